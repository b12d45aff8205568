"""Single values of elements of a DICOM JSON header (PS3.18 Annex F), tolerant of what scanners write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw

from dicom_etl.core.values import UNDECODABLE, stripped

T = TypeVar("T")
_ODD: Final = (*UNDECODABLE, UnicodeEncodeError)
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_LONGEST: Final = 32
_LARGEST: Final = 1e18


class _Element(msgspec.Struct, gc=False):
    value: Raw = msgspec.field(default=Raw(), name="Value")
    inline: Raw = msgspec.field(default=Raw(), name="InlineBinary")
    bulk: Raw = msgspec.field(default=Raw(), name="BulkDataURI")


_ELEMENT: Final = msgspec.json.Decoder(_Element)
_MEMBERS: Final = msgspec.json.Decoder(list[Raw] | None)
_SCALAR: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(int | float | str | None)


def decoded(decoder: msgspec.json.Decoder[T], raw: Raw | bytes | str) -> T | None:
    """What the decoder makes of it; None where it is another thing."""
    try:
        return decoder.decode(raw)
    except _ODD:
        return None


def members(element: Raw) -> Sequence[Raw] | None:
    """What stands in the element's Value, which may be empty; None where it is no element, or binary."""
    found = decoded(_ELEMENT, element)
    if found is None:
        return None
    if not found.value:
        return None if found.inline or found.bulk else ()
    try:
        return _MEMBERS.decode(found.value) or ()
    except _ODD:
        return None


def first(decoder: msgspec.json.Decoder[T], element: Raw) -> T | None:
    """The first member, decoded; None where there is none, or another thing."""
    found = members(element) if element else None
    return decoded(decoder, found[0]) if found else None


def text(element: Raw) -> str | None:
    """The first value without its padding; a number, as some write a code, as its text."""
    value = first(_SCALAR, element)
    return None if value is None else stripped(str(value))


def number(element: Raw) -> int | float | None:
    """The first value as a number, also from text as DS has it; None for NaN, infinities, and what is no number.

    A whole one is an int, so that ``450``, ``450.0`` and ``"450"`` are one number.
    """
    value = first(_SCALAR, element)
    if isinstance(value, str):
        digits = value.strip(" \0")
        value = float(digits) if len(digits) <= _LONGEST and _DECIMAL.fullmatch(digits) else None
    if value is None or not -_LARGEST < value < _LARGEST:
        return None
    return int(value) if value == int(value) else float(value)
