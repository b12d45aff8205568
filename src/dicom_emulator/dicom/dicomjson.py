"""The DICOM JSON that the service writes for a stored file (design/service-protocol.md: DICOM JSON)."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from dicom_emulator.dicom.elements import Element, Elements
from dicom_emulator.http.jsontext import Number

_PN_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_INT32 = range(-(2**31), 2**31)
_SINGLE_DIGITS, _DOUBLE_DIGITS = 7, 15
_INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


class NotWritable(Exception):
    """A value that the service cannot write; the store fails with 272."""


def dataset_json(elements: Elements) -> dict[str, Any]:
    """The dataset as a JSON object: 8 upper-case hex digits -> `vr` and, unless empty, `Value`.

    Raises NotWritable for infinities and FD NaN.
    """
    return {f"{tag:08X}": element_json(element) for tag, element in elements.items()}


def element_json(element: Element) -> dict[str, Any]:
    """One element; see `dataset_json`."""
    if not element.values:
        return {"vr": element.vr}
    return {"vr": element.vr, "Value": _WRITERS.get(element.vr, _texts)(element)}


def _texts(element: Element) -> list[str | None]:
    """One entry per component, null when empty."""
    return [text or None for text in element.values]


def _sequence(element: Element) -> list[dict[str, Any]]:
    return [dataset_json(item) for item in element.values]


def _person_names(element: Element) -> list[dict[str, str] | None]:
    """Objects of the groups that are not blank; null for an empty name."""
    return [_person_name(name) if name else None for name in element.values]


def _person_name(name: str) -> dict[str, str]:
    groups = name.split("=")
    if len(groups) > len(_PN_GROUPS) and any(group.strip() for group in groups[len(_PN_GROUPS) :]):
        raise NotWritable("a person name has at most three groups")
    return {label: group for label, group in zip(_PN_GROUPS, groups, strict=False) if group.strip()}


def _integers(element: Element) -> list[Any]:
    return [Number(value) for value in element.values]


def _integer_strings(element: Element) -> list[Any]:
    """Numbers; the whole array as strings when one does not parse or is too large (`["73.8"]`)."""
    numbers: list[Any] = []
    for text in element.values:
        if not text:
            numbers.append(None)
        elif _INTEGER.fullmatch(text) and int(text) in _INT32:
            numbers.append(int(text))
        else:
            return _texts(element)
    return numbers


def _decimal_strings(element: Element) -> list[Any]:
    """Numbers with the scale they have; the whole array as strings when one does not parse."""
    numbers = [_decimal(text) if text else None for text in element.values]
    blank = [number is None and bool(text) for number, text in zip(numbers, element.values, strict=True)]
    return _texts(element) if any(blank) else numbers


def _decimal(text: str) -> Number | None:
    """`+01.0` -> 1.0, `.5` -> 0.5, `1E2` -> 100; None when it is no DS (more than 16 characters too)."""
    text = text.strip().rstrip("\0")
    if len(text) > 16 or not _DECIMAL.fullmatch(text):
        return None
    value = Decimal(text)
    if value == value.to_integral_value() and "." not in text:
        value = value.to_integral_value()
    if abs(value.adjusted()) > 28:  # beyond .NET's decimal: a double, or zero when too small
        return Number(_number_text(float(text), _DOUBLE_DIGITS))
    return Number(format(abs(value) if value.is_zero() else value, "f"))


def _floats(element: Element) -> list[Any]:
    return [_float(value, element.vr) for value in element.values]


def _float(value: float, vr: str) -> Any:
    if vr == "FL" and math.isnan(value):
        return "NaN"
    if not math.isfinite(value):
        raise NotWritable("JSON has no such number")
    return Number(_single_text(value) if vr == "FL" else _number_text(value, _DOUBLE_DIGITS))


def _single_text(value: float) -> str:
    """The shortest digits that give the same 32-bit number."""
    for precision in range(1, 10):
        text = f"{value:.{precision}g}"
        if struct.pack("<f", float(text)) == struct.pack("<f", value):
            return _number_text(float(text), _SINGLE_DIGITS)
    raise AssertionError("nine digits always suffice")


def _number_text(value: float, precision: int) -> str:
    """The shortest digits as .NET writes them: `1`, `0.1`, `1E-05`, `1E+15` (`1E+07` of a single)."""
    decimal = Decimal(repr(value)).normalize()
    sign, digits, _ = decimal.as_tuple()
    scientific = decimal.adjusted()
    if value == 0:
        return "-0" if sign else "0"
    if -5 < scientific < precision:
        return format(decimal, "f")
    mantissa = "".join(map(str, digits))
    fraction = f".{mantissa[1:]}" if len(mantissa) > 1 else ""
    return f"{'-' * sign}{mantissa[0]}{fraction}E{scientific:+03d}"


_WRITERS: dict[str, Callable[[Element], list[Any]]] = {
    "SQ": _sequence,
    "PN": _person_names,
    "IS": _integer_strings,
    "SV": _integers,
    "UV": _integers,
    "DS": _decimal_strings,
    "FL": _floats,
    "FD": _floats,
    "SL": _integers,
    "SS": _integers,
    "UL": _integers,
    "US": _integers,
}
