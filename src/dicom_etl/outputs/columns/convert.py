"""The converters: one member of an element's ``Value`` to a column's value, by the form that ``vr`` has for it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from dicom_etl.core.values import date_of, stripped
from dicom_etl.outputs.columns.vr import Form

# What a converter answers to a value that is none of its type.
UNUSABLE: Final = object()
Scalar = str | int | float | None
Converter = Callable[[Scalar], object]

_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INTEGRAL = re.compile(r"([+-]?[0-9]+)(?:\.0*)?")
_NOT_FINITE = frozenset(("NaN", "Infinity", "-Infinity"))
_TIME = re.compile(r"([0-9]{2})(?:([0-9]{2})(?:([0-9]{2})(\.[0-9]{1,6})?)?)?")
_COLON_TIME = re.compile(r"([0-9]{2}):([0-9]{2})(?::([0-9]{2})(\.[0-9]{1,6})?)?")
_MOMENT = re.compile(r"([0-9]{8})([0-9]{2})([0-9]{2})(?:([0-9]{2})(?:\.([0-9]{1,6}))?)?([+-])([0-9]{2})([0-9]{2})")
_DAY_OF_MOMENT = re.compile(r"([0-9]{8})(?:[0-9]{2}){0,3}(?:\.[0-9]{1,6})?(?:[+-][0-9]{4})?")
_LONGS = range(-(2**63), 2**63)


def _text(value: Scalar) -> object:
    if value is None or isinstance(value, str):
        return stripped(value)
    return str(value)


def _decimal(value: Scalar) -> object:
    if isinstance(value, str):
        text = stripped(value)
        if text is None or not _DECIMAL.fullmatch(text):
            return None if text is None else UNUSABLE
        value = text
    try:
        number = None if value is None else float(value)
    except OverflowError:
        return UNUSABLE
    return UNUSABLE if number is not None and not math.isfinite(number) else number


def _float(value: Scalar) -> object:
    if isinstance(value, str) and value.strip(" \0") in _NOT_FINITE:
        return float(value.strip(" \0"))
    return _decimal(value)


def _long(value: Scalar) -> object:
    if isinstance(value, str):
        text = stripped(value)
        found = _INTEGRAL.fullmatch(text) if text else None
        if found is None:
            return None if text is None else UNUSABLE
        digits = found[1]
        value = int(digits) if len(digits) <= 20 else 2**63
    elif isinstance(value, float):
        if not value.is_integer():
            return UNUSABLE
        value = int(value)
    return value if value is None or value in _LONGS else UNUSABLE


def _date(value: Scalar) -> object:
    text = _text(value)
    return None if text is None else date_of(str(text)) or UNUSABLE


def _time(value: Scalar) -> object:
    text = _text(value)
    if text is None:
        return None
    found = _TIME.fullmatch(str(text)) or _COLON_TIME.fullmatch(str(text))
    if found is None:
        return UNUSABLE
    hour, minute, second, fraction = found.groups()
    # PS3.5 allows a leap second.
    if int(hour) > 23 or int(minute or 0) > 59 or int(second or 0) > 60:
        return UNUSABLE
    return ":".join(part for part in (hour, minute, second) if part) + (fraction or "")


def _timestamp(value: Scalar) -> object:
    text = _text(value)
    found = _MOMENT.fullmatch(str(text)) if text is not None else None
    if found is None:
        return None if text is None else UNUSABLE
    day, hour, minute, second, fraction, sign, hours, minutes = found.groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    try:
        clock = int(hour), int(minute), int(second or 0), int((fraction or "0").ljust(6, "0"))
        zone = timezone(-offset if sign == "-" else offset)
        local = datetime(int(day[:4]), int(day[4:6]), int(day[6:]), *clock, tzinfo=zone)
        return local.astimezone(UTC)
    except (ValueError, OverflowError):
        return UNUSABLE


def _day(value: Scalar) -> object:
    text = _text(value)
    found = _DAY_OF_MOMENT.fullmatch(str(text)) if text is not None else None
    return _date(found[1]) if found else None if text is None else UNUSABLE


CONVERTERS: Final[Mapping[Form, Converter]] = {
    "text": _text,
    "alphabetic": _text,
    "ideographic": _text,
    "phonetic": _text,
    "decimal": _decimal,
    "float": _float,
    "long": _long,
    "date": _date,
    "day": _day,
    "time": _time,
    "timestamp": _timestamp,
}
