"""The rules of a VR's text: fo-dicom's full ones (v2 warnings), and the index's minimum (errors)."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date

from dicom_emulator.dicom.elements import Element
from dicom_emulator.state.uids import is_valid_uid

_LENGTHS = {"AE": 16, "CS": 16, "DS": 16, "LO": 64, "LT": 10240, "SH": 16, "ST": 1024, "UI": 64}
_CONTROL = re.compile("[\x00-\x1a\x1c-\x1f\x7f]")  # ESC switches character sets
_PATTERNS = {
    "AS": (re.compile(r"\d{3}[DWMY]"), "value does not have pattern 000[DWMY]"),
    "CS": (re.compile(r"[A-Z0-9_ ]*"), "value contains invalid character"),
    "DS": (
        re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*"),
        "value is no decimal string",
    ),
    "DT": (
        re.compile(r"\d{4}(\d{2}(\d{2}(\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?)?)?)?([+-]\d{4})?\s*"),
        "value does not mach pattern YYYY[MM[DD[HH[MM[SS[.F{1-6}]]]]]]",
    ),
    "IS": (re.compile(r"\s*[+-]?\d{1,12}\s*"), "value is no integer string"),
    "TM": (
        re.compile(r"([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?\s*"),
        "value does not mach pattern HH[MM[SS[.F{1-6}]]]",
    ),
    "UI": (re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))* *"), "value is not a valid UID"),
}


def full_violation(element: Element) -> str | None:
    """The first broken rule in fo-dicom's words, None when all values are valid.

    Empty components are valid. NULs at the end are looked over (StoreDatasetValidator, null padding).
    """
    for value in element.values:
        if isinstance(value, str) and (text := value.rstrip("\0")):
            reason = _full_reason(element.vr, text)
            if reason is not None:
                return f'Content "{value}" does not validate VR {element.vr}: {reason}'
    return None


def minimum_violation(element: Element, vr: str) -> str | None:
    """What makes an indexed attribute unusable: another VR than `vr`, too long, no date, no UID.

    Only the first value is looked at (ElementMinimumValidator.cs).
    """
    if element.vr != vr:
        return f"The VR is {element.vr}, expected {vr}."
    reason = index_violation(vr, str(element.values[0])) if element.values else None
    return None if reason is None else f"Dicom element failed validation for VR '{vr}': {reason}"


def index_violation(vr: str, text: str) -> str | None:
    """Why the index cannot take a value of a VR, in words without the value; None when it can, or has nothing to take.

    Numbers of binary VRs are what they are.
    """
    text = text.rstrip("\0")
    return _MINIMUM[vr](text) if text and vr in _MINIMUM else None


def _full_reason(vr: str, text: str) -> str | None:
    if len(text.rstrip(" ") if vr == "UI" else text) > _LENGTHS.get(vr, len(text)):
        return f"value exceeds maximum length of {_LENGTHS[vr]} characters"
    if vr in _SPECIAL:
        return _SPECIAL[vr](text)
    pattern, reason = _PATTERNS.get(vr, (None, None))
    if pattern is not None and not pattern.fullmatch(text):
        return reason
    if vr == "IS" and not -(2**31) <= int(text) < 2**31:
        return "value too large to fit 32 bit integer"
    return None


def _person_name_reason(text: str) -> str | None:
    groups = text.split("=")
    if len(groups) > 3:
        return "value contains too many groups"
    if any(len(group) > 64 for group in groups):
        return "value exceeds maximum length of 64 characters"
    if any(group.count("^") > 4 for group in groups):
        return "value contains too many components"
    return "value contains invalid character" if _CONTROL.search(text) else None


def _date_reason(text: str) -> str | None:
    """One date, or a range of two (fo-dicom takes the form of a query for valid)."""
    dates = text.rstrip(" ").split("-")
    if len(dates) > 2 or any(one and not _is_date(one) for one in dates):
        return "one of the date values does not match the pattern YYYYMMDD"
    return None


def _is_date(text: str) -> bool:
    if not re.fullmatch(r"\d{8}", text):
        return False
    try:
        date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return False
    return True


def _no_control_reason(text: str) -> str | None:
    return "value contains invalid character" if _CONTROL.search(text) else None


_SPECIAL: dict[str, Callable[[str], str | None]] = {
    "AE": _no_control_reason,
    "DA": _date_reason,
    "LO": _no_control_reason,
    "PN": _person_name_reason,
    "SH": _no_control_reason,
}


def _at_most(length: int) -> Callable[[str], str | None]:
    return lambda text: f"Value exceeds maximum length of {length}." if len(text) > length else None


def _long_string(text: str) -> str | None:
    return _at_most(64)(text) or ("Value contains invalid character." if _CONTROL.search(text) else None)


def _matching(vr: str, reason: str) -> Callable[[str], str | None]:
    pattern = _PATTERNS[vr][0]
    return lambda text: None if pattern.fullmatch(text) else reason


def _integer_string(text: str) -> str | None:
    reason = "Value cannot be parsed as a valid integer string."
    return _matching("IS", reason)(text) or (None if -(2**31) <= int(text) < 2**31 else reason)


_MINIMUM: dict[str, Callable[[str], str | None]] = {
    "AE": _at_most(16),
    "AS": lambda text: None if len(text) == 4 else "Value length is not expected.",
    "CS": _at_most(16),
    "DA": lambda text: None if _is_date(text) else "Value cannot be parsed as a valid date.",
    "DT": _matching("DT", "Value cannot be parsed as a valid DateTime."),
    "IS": _integer_string,
    "LO": _long_string,
    "PN": _person_name_reason,
    "SH": _at_most(16),
    "TM": _matching("TM", "Value cannot be parsed as a valid Time."),
    "UI": lambda text: None if is_valid_uid(text) else "Value is not a valid identifier.",
}
