"""Body Part Examined (0018,0015) as a SNOMED CT code: PS3.16 Annex L, read from ``body_part.tsv``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from types import MappingProxyType

from dicom_etl.outputs.fhir.codes import SCT, coding
from dicom_etl.outputs.fhir.facts import Json


@lru_cache(maxsize=1)
def body_parts() -> Mapping[str, tuple[str, str | None]]:
    """Code and meaning by term; the meaning is None where PS3.16 CID 4 lacks the code."""
    text = resources.files(__package__).joinpath("body_part.tsv").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines() if not line.startswith("#"))
    return MappingProxyType({term: (code, meaning or None) for term, code, meaning in rows})


def body_site(term: str) -> Json:
    """A Coding of the term, compared in capitals and without blanks; without code when Annex L lacks the term."""
    found = body_parts().get("".join(term.split()).upper())
    return {"display": term} if found is None else coding(SCT, *found)
