"""What one study is, as the FHIR mapping reads it: values of the tables by the DICOM attribute that they are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from zoneinfo import ZoneInfo

Json = dict[str, Any]
Facts = Mapping[str, Any]
"""Values by tag as `outputs.columns.sets.IMAGING` writes it (``AccessionNumber``,
``ProcedureCodeSequence[0].CodeValue``), and by keyword for the seven attributes that `instance` has.

Texts are stripped and never empty, a DA is a ``date``, an IS an ``int``, a TM as ``hh``, ``hh:mm``, ``hh:mm:ss`` or
``hh:mm:ss.f``; what the tables do not have is None or absent.
"""


@dataclass(frozen=True, slots=True)
class SeriesFacts:
    """One series: ``values`` of its row in `series` and `series_tags`.

    ``instances`` has the living instances' ``SOPInstanceUID``, ``SOPClassUID``, ``InstanceNumber`` and what else is
    kept at that level, in no order.
    """

    uid: str
    values: Facts
    instances: Sequence[Facts]


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """One living study, with ``values`` of its row in `study` and `study_tags`; ``series`` is never empty."""

    partition: str
    uid: str
    values: Facts
    series: Sequence[SeriesFacts]


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingOptions:
    """What the resources depend on beside the tables: settings, and whose lake it is.

    ``service_url`` is the DICOM service's address with its version, ``source`` the one without. ``zone`` is that of
    times whose header does not tell it. ``key`` is what ids are computed with, ``lake`` marks what is ours.
    """

    service_url: str
    source: str
    lake: str
    key: bytes
    issuers: Mapping[str, str]
    default_system: str | None
    zone: ZoneInfo | None
    patients: Literal["find", "find_or_create", "own"]
    instances: Literal["auto", "all", "none"]
    dose: bool
    strict_modality: bool


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource as it is to stand in the server, and what of the tables it could not hold.

    ``left_out`` counts by reason, a word such as ``modality`` or ``time-without-zone``: never a value.
    """

    kind: str
    id: str
    body: Json
    left_out: Mapping[str, int]
