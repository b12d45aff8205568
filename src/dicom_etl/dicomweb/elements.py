"""Values of DICOM JSON as plain ones, the same form for each attribute whatever a match holds (PS3.18 Annex F)."""

from __future__ import annotations

from typing import Any

from dicom_etl.dicomweb.keywords import Keyword

_PN_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


def plain_value(dataset: dict[str, Any], attribute: Keyword) -> Any:
    """One value, a list of values, or None without any.

    An attribute to which the standard gives one value is a text or a number, even where a file has several: then a text
    with DICOM's backslash between them. All others are lists. A name is its first group that is there; an item of a
    sequence stays DICOM JSON.
    """
    element = dataset.get(attribute.tag)
    values = element.get("Value") if isinstance(element, dict) else None
    plain = [_plain(value) for value in values] if isinstance(values, list) else []
    if all(value is None for value in plain):
        return None
    if not attribute.is_single or attribute.vr == "SQ":
        return plain
    return plain[0] if len(plain) == 1 else "\\".join("" if value is None else str(value) for value in plain)


def _plain(value: Any) -> Any:
    if isinstance(value, dict) and value.keys() <= set(_PN_GROUPS):
        return next((value[group] for group in _PN_GROUPS if value.get(group)), None)
    if isinstance(value, str):
        return value.strip(" \0") or None
    return value
