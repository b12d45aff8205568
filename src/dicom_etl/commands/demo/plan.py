"""Which instances the demo changes, chosen by their shape among what the service holds."""

from __future__ import annotations

import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from dicom_etl.core.errors import DicomEtlError

PYDICOM_FILES = Path(pydicom.__file__).parent / "data"


class DemoFailed(DicomEtlError):
    """The demo did not show what it must show (70)."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One living instance of the service, as its oracle tells."""

    study: str
    series: str
    sop: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What the demo changes: a study to update, one to delete, and two instances to delete."""

    updated_study: str
    deleted_study: str
    last_of_series: Instance
    one_of_many: Instance
    uploaded_again: Path


def plan(instances: list[Instance]) -> Plan:
    """What to change, chosen by shape: the largest studies, a series of one instance, a series of many."""
    studies: dict[str, list[Instance]] = defaultdict(list)
    series: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        studies[instance.study].append(instance)
        series[instance.series].append(instance)
    several_series = [s for s, members in studies.items() if len({i.series for i in members}) > 1]
    by_size = sorted(studies, key=lambda study: (-len(studies[study]), study))
    lonely = next(i for i in instances if i.study in several_series and len(series[i.series]) == 1)
    free = [study for study in by_size if study != lonely.study]
    one = next(i for i in instances if i.study not in free[:2] and i != lonely and len(series[i.series]) > 1)
    return Plan(free[0], free[1], lonely, one, _file_of(studies[free[1]][0]))


def _file_of(instance: Instance) -> Path:
    for path in sorted(PYDICOM_FILES.rglob("*")):
        if path.is_file() and _sop_of(path) == instance.sop:
            return path
    raise LookupError("an instance of the service is not among the uploaded files")


def _sop_of(path: Path) -> str | None:
    try:
        with warnings.catch_warnings(action="ignore"):  # some of the files are odd on purpose
            return str(pydicom.dcmread(path, specific_tags=["SOPInstanceUID"]).get("SOPInstanceUID"))
    except (InvalidDicomError, EOFError, ValueError, NotImplementedError, AttributeError):
        return None
