"""Finds the server's own Patients by the identifiers that the images have."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal
from urllib.parse import quote, urlencode

from dicom_etl.core.settings.model import Fhir
from dicom_etl.outputs.fhir.answers import matches, next_link, objects
from dicom_etl.outputs.fhir.bundle import Entry
from dicom_etl.outputs.fhir.facts import Json
from dicom_etl.outputs.fhir.ids import LAKE
from dicom_etl.outputs.fhir.sending import sent
from dicom_etl.outputs.fhir.server import FhirServer

_ELEMENTS = "identifier,active,link,meta"
# How many Patients are asked for, and once more: two would do, were there not those that do not count.
_PAGES = (10, 500)
_SPECIAL = re.compile(r"([\\,|$])")
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


@dataclass(frozen=True, slots=True)
class PatientKey:
    """An identifier as Patient has it; without ``system`` where neither issuer nor default names one."""

    system: str | None
    value: str


@dataclass(frozen=True, slots=True)
class Found:
    """How many Patients have an identifier; ``id`` is that of the one."""

    kind: Literal["one", "none", "several"]
    id: str | None = None


def found_patients(
    server: FhirServer, identifiers: Collection[PatientKey], fhir: Fhir, *, our_tag: str = LAKE
) -> dict[PatientKey, Found]:
    """What the server has for each identifier; an identifier whose search it refuses is not in the result.

    Patients count whose identifier equals, letter by letter: servers match otherwise. Not counted are those with a tag
    of the system ``our_tag`` (made by dicom-etl), those that are not active, and those replaced by another. A key
    without a system finds only identifiers without one: the same number of another issuer may be another person.
    Raises as ``sent``.
    """
    found: dict[PatientKey, Found] = {}
    rest = list(identifiers)
    for page in _PAGES:
        asked = dict(_asked(server, rest, fhir, page, our_tag))
        found |= {key: one for key, one in asked.items() if one is not None}
        rest = [key for key, one in asked.items() if one is None]
    # More than anybody can look at: no study is to be given to one of them.
    return found | dict.fromkeys(rest, Found("several"))


def _asked(
    server: FhirServer, keys: Collection[PatientKey], fhir: Fhir, page: int, our_tag: str
) -> Iterator[tuple[PatientKey, Found | None]]:
    """What the first so many Patients of each key tell; None where those that follow may tell more.

    In bundles, and no further page by its link: addresses stand in logs on the way.
    """
    by_search = {_search(key, page): key for key in keys}
    for entry, outcome in sent(server, (Entry("GET", "Patient", "", search=one) for one in by_search), fhir):
        if outcome.accepted(entry) and outcome.body is not None:
            key = by_search[entry.search or ""]
            counted = _found(key, matches(outcome.body, "Patient"), our_tag)
            yield key, counted if counted.kind == "several" or next_link(outcome.body) is None else None


def _search(key: PatientKey, page: int) -> str:
    """``identifier=system|value``, or ``|value`` for one without a system (FHIR R4 search.html#token)."""
    token = f"{_escaped(key.system or '')}|{_escaped(key.value)}"
    return urlencode({"identifier": token, "_elements": _ELEMENTS, "_count": str(page)}, quote_via=quote)


def _escaped(text: str) -> str:
    r"""With a backslash before ``\ , | $``, which part values (FHIR R4 search.html#escaping)."""
    return _SPECIAL.sub(r"\\\1", text)


def _found(key: PatientKey, candidates: Iterator[Json], our_tag: str) -> Found:
    ids = (patient["id"] for patient in candidates if _counts(patient, key, our_tag))
    first_two = list(islice(dict.fromkeys(ids), 2))
    if not first_two:
        return Found("none")
    return Found("one", first_two[0]) if len(first_two) == 1 else Found("several")


def _counts(patient: Json, key: PatientKey, our_tag: str) -> bool:
    meta = patient.get("meta")
    tags = objects(meta.get("tag")) if isinstance(meta, dict) else []
    return (
        isinstance(patient.get("id"), str)
        and _ID.fullmatch(patient["id"]) is not None
        and any(_is(one, key) for one in objects(patient.get("identifier")))
        and patient.get("active") is not False
        and not any(link.get("type") == "replaced-by" for link in objects(patient.get("link")))
        and not any(tag.get("system") == our_tag for tag in tags)
    )


def _is(identifier: Json, key: PatientKey) -> bool:
    return identifier.get("value") == key.value and identifier.get("system") == key.system
