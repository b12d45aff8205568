"""The kept attributes of one entry's metadata, decoded in one pass where they look as they should."""

from __future__ import annotations

from datetime import date
from typing import Any

import msgspec

from dicom_etl.core.attributes import ATTRIBUTES, Attribute
from dicom_etl.core.reasons import METADATA_INVALID, METADATA_MISSING, METADATA_NOT_OBJECT, METADATA_NOT_UTF8
from dicom_etl.core.values import UNDECODABLE, date_of, kept_value, stripped

Kept = tuple[str | date | None, ...]
NOTHING: Kept = (None,) * len(ATTRIBUTES)


class _Texts(msgspec.Struct, gc=False):
    value: list[str | None] = msgspec.field(default=[], name="Value")

    @property
    def first(self) -> str | None:
        return self.value[0] if self.value else None


class _Name(msgspec.Struct, gc=False):
    alphabetic: str | None = msgspec.field(default=None, name="Alphabetic")


class _Names(msgspec.Struct, gc=False):
    value: list[_Name | None] = msgspec.field(default=[], name="Value")

    @property
    def first(self) -> str | None:
        return self.value[0].alphabetic if self.value and self.value[0] else None


# As the service writes them. One pass with three decoders an attribute took a third of the landing's time.
_USUAL = msgspec.json.Decoder(
    msgspec.defstruct(
        "UsualAttributes",
        [
            (a.column, (_Names if a.vr == "PN" else _Texts) | None, msgspec.field(default=None, name=a.tag))
            for a in ATTRIBUTES
        ],
        gc=False,
    )
)
# As they may come: one field per attribute, undecoded: numbers keep their text, and an odd element spoils only itself.
_ANY = msgspec.json.Decoder(
    msgspec.defstruct(
        "KeptAttributes",
        [(a.column, msgspec.Raw, msgspec.field(default=msgspec.Raw(), name=a.tag)) for a in ATTRIBUTES],
        gc=False,
    )
)


def kept_values(metadata: bytes) -> tuple[Kept, str | None]:
    """The kept attributes, in the order of ATTRIBUTES, and the reason when the metadata cannot be used."""
    if metadata in (b"", b"null"):
        return NOTHING, METADATA_MISSING
    if not _is_utf8(metadata):
        return NOTHING, METADATA_NOT_UTF8
    try:
        return _usual(metadata), None
    except UNDECODABLE:
        return _one_by_one(metadata)


def _usual(metadata: bytes) -> Kept:
    elements = _USUAL.decode(metadata)
    return tuple([_tidy(attribute, getattr(elements, attribute.column)) for attribute in ATTRIBUTES])


def _tidy(attribute: Attribute, element: _Texts | _Names | None) -> str | date | None:
    text = stripped(element.first) if element else None
    return date_of(text) if attribute.is_date and text else text


def _one_by_one(metadata: bytes) -> tuple[Kept, str | None]:
    try:
        elements: Any = _ANY.decode(metadata)
    except msgspec.ValidationError:
        return NOTHING, METADATA_NOT_OBJECT
    except UNDECODABLE:
        return NOTHING, METADATA_INVALID
    return tuple([_value(attribute, getattr(elements, attribute.column)) for attribute in ATTRIBUTES]), None


def _value(attribute: Attribute, element: msgspec.Raw) -> str | date | None:
    return kept_value(attribute, element) if element else None


def _is_utf8(text: bytes) -> bool:
    # The service escapes everything else, so that the quick look nearly always decides.
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
