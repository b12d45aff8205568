"""The texts and numbers that FHIR R4's primitive types allow (datatypes.html#primitive)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

_ZONE = r"(Z|[+-](0\d|1[0-3]):[0-5]\d|[+-]14:00)"
_DAY = r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
# R4's own expression allows a second 60, and HAPI's validator refuses it.
_TIME = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?"
_DATE = re.compile(rf"\d{{4}}(-(0[1-9]|1[0-2]))?|{_DAY}")
_DATE_TIME = re.compile(rf"\d{{4}}(-(0[1-9]|1[0-2]))?|{_DAY}(T{_TIME}{_ZONE})?")
_INSTANT = re.compile(rf"{_DAY}T{_TIME}{_ZONE}")
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_CODE = re.compile(r"\S+(\s\S+)*")
_URI = re.compile(r"\S+")
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")
_OID = re.compile(r"urn:oid:[0-2](\.(0|[1-9]\d*))+")
_LARGEST = 2**31 - 1


def is_absolute(value: object) -> bool:
    """Whether a URI says where it belongs, as a system of codes or identifiers must."""
    return isinstance(value, str) and _ABSOLUTE.fullmatch(value) is not None


def is_id(value: object) -> bool:
    return isinstance(value, str) and _ID.fullmatch(value) is not None


def is_allowed(type_name: str, value: Any) -> bool:
    """Whether a JSON value is one of that primitive type."""
    return _RULES[type_name](value)


def _text(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _whole(lowest: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= _LARGEST


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", value)


def _is_uri(value: Any) -> bool:
    if not isinstance(value, str) or not _URI.fullmatch(value):
        return False
    return not value.startswith("urn:oid:") or _OID.fullmatch(value) is not None


def _dated(pattern: re.Pattern[str]) -> Callable[[Any], bool]:
    """A text of that form, whose day there is: no 30th of February."""
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None and _is_day(value[:10])


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text + "-01-01"[len(text) - 4 :] if len(text) < 10 else text)
    except ValueError:
        return False
    return True


_RULES: Mapping[str, Callable[[Any], bool]] = {
    "boolean": lambda value: isinstance(value, bool),
    "integer": _whole(-_LARGEST - 1),
    "unsignedInt": _whole(0),
    "positiveInt": _whole(1),
    "decimal": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "string": _is_text,
    "markdown": _is_text,
    "xhtml": _is_text,
    "uri": _is_uri,
    "url": _is_uri,
    "canonical": _is_uri,
    "code": _text(_CODE),
    "id": is_id,
    "date": _dated(_DATE),
    "dateTime": _dated(_DATE_TIME),
    "instant": _dated(_INSTANT),
    "time": _text(re.compile(_TIME)),
}
PRIMITIVES = frozenset(_RULES)
