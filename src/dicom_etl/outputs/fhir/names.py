"""Names of persons: FHIR HumanName, and a name to show, from the alphabetic group of a PN (PS3.5 6.2.1)."""

from __future__ import annotations

from dicom_etl.outputs.fhir.facts import Json
from dicom_etl.outputs.fhir.reasons import LeftOut, Reason
from dicom_etl.outputs.fhir.values import text


def human_name(value: str | None, left_out: LeftOut) -> Json | None:
    """``family``, ``given`` with middle names, ``prefix``, ``suffix``: those that the name has; None for no name."""
    family, given, middle, prefix, suffix = _components(value, left_out)
    name: Json = {
        "family": family,
        "given": [*_words(given), *_words(middle)],
        "prefix": _words(prefix),
        "suffix": _words(suffix),
    }
    return {part: found for part, found in name.items() if found} or None


def shown_name(value: str | None, left_out: LeftOut) -> str | None:
    """The name as one speaks it, ``Dr. Anna Maria Meier``; None for no name."""
    family, given, middle, prefix, suffix = _components(value, left_out)
    return " ".join(part for part in (prefix, given, middle, family, suffix) if part) or None


def _components(value: str | None, left_out: LeftOut) -> list[str | None]:
    """The five, in DICOM's order. Of plain text with several groups the first is the alphabetic one."""
    parts = (value or "").split("=", 1)[0].split("^")
    if any(part.strip() for part in parts[5:]):
        left_out[Reason.NAME] += 1
    found = [text(part, left_out) for part in parts[:5]]
    return found + [None] * (5 - len(found))


def _words(component: str | None) -> list[str]:
    return component.split() if component else []
