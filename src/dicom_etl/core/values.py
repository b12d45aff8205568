"""The value of one kept attribute from its DICOM JSON element (design/architecture.md: Values of attributes)."""

from __future__ import annotations

import re
from datetime import date

import msgspec

from dicom_etl.core.attributes import Attribute

# What msgspec raises on JSON that is wrong, of another type, not UTF-8, or nested without end.
UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_PADDING = " \0"
_EIGHT_DIGITS = re.compile(r"[0-9]{8}")
_NUMBER_STARTS = frozenset(b"-0123456789")


class _Element(msgspec.Struct, gc=False):
    value: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="Value")


class _PersonName(msgspec.Struct, gc=False):
    alphabetic: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="Alphabetic")


_ELEMENT = msgspec.json.Decoder(_Element)
_VALUES = msgspec.json.Decoder(list[msgspec.Raw])
_PERSON_NAME = msgspec.json.Decoder(_PersonName)
_TEXT = msgspec.json.Decoder(str)


def kept_value(attribute: Attribute, element: msgspec.Raw | bytes) -> str | date | None:
    """The attribute's value in ``change``: a ``date`` for DA, text for all others, None when there is none.

    The first of ``Value`` alone counts. A number keeps the text it has in the JSON; a person's name is its
    Alphabetic group.
    """
    try:
        first = _first(element)
        text = _text(_alphabetic(first) if attribute.vr == "PN" else first)
    except UNDECODABLE:
        return None
    return date_of(text) if attribute.is_date and text else text


def stripped(text: str | None) -> str | None:
    """The text without the spaces and NULs that pad it; None when nothing is left."""
    return (text.strip(_PADDING) or None) if text else None


def _first(element: msgspec.Raw | bytes) -> bytes:
    value = _ELEMENT.decode(element).value
    values = _VALUES.decode(value) if value else ()
    return bytes(values[0]) if values else b""


def _alphabetic(value: bytes) -> bytes:
    return bytes(_PERSON_NAME.decode(value).alphabetic) if value.startswith(b"{") else value


def _text(value: bytes) -> str | None:
    if value.startswith(b'"'):
        return stripped(_TEXT.decode(value))
    return value.decode("ascii") if value and value[0] in _NUMBER_STARTS else None


def date_of(text: str) -> date | None:
    """The day of a DA value; None when it is none."""
    if not _EIGHT_DIGITS.fullmatch(text):
        return None
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return None
