"""The content tree of a structured report, read from its DICOM JSON header (PS3.3 C.17.3, PS3.18 Annex F)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec
from msgspec import Raw

from dicom_etl.outputs.fhir.header_values import decoded, first, members, number, text

# Dose templates are at most eight deep; JSON from elsewhere may be nested without end.
DEEPEST: Final = 32


@dataclass(frozen=True, slots=True)
class Code:
    """An item of a code sequence (PS3.3 8.8): value of whichever length, scheme designator in capitals, meaning."""

    value: str | None
    scheme: str | None
    meaning: str | None


@dataclass(frozen=True, slots=True)
class ContentItem:
    """One content item with the values that it has, None for others.

    ``path`` counts from 1 in each Content Sequence, the root is ``1`` (PS3.3 C.17.3.2.5); an item that cannot be read
    keeps its number. ``skipped`` counts those below this item, at any depth. ``number`` is finite.
    """

    path: str
    relationship: str | None
    value_type: str | None
    name: Code | None
    code: Code | None
    number: int | float | None
    unit: Code | None
    text: str | None
    uid: str | None
    date_time: str | None
    children: tuple[ContentItem, ...]
    skipped: int

    @property
    def modifiers(self) -> tuple[str, ...]:
        """The meanings of the codes that modify the item's concept, such as a side, in their order."""
        codes = [child.code for child in self.children if child.relationship == "HAS CONCEPT MOD"]
        return tuple(code.meaning for code in codes if code and code.meaning)


@dataclass(frozen=True, slots=True)
class Document:
    """The tree, and what the header says of the document: both flags (PS3.3 C.17.2) and (0008,0201)."""

    root: ContentItem
    completion: str | None
    verification: str | None
    utc_offset: str | None


def _tag(tag: str) -> Any:
    return msgspec.field(default=Raw(), name=tag)


class _Item(msgspec.Struct, gc=False):
    relationship: Raw = _tag("0040A010")
    value_type: Raw = _tag("0040A040")
    name: Raw = _tag("0040A043")
    code: Raw = _tag("0040A168")
    measured: Raw = _tag("0040A300")
    text: Raw = _tag("0040A160")
    uid: Raw = _tag("0040A124")
    date_time: Raw = _tag("0040A120")
    content: Raw = _tag("0040A730")


class _Header(_Item, gc=False):
    completion: Raw = _tag("0040A491")
    verification: Raw = _tag("0040A493")
    utc_offset: Raw = _tag("00080201")


class _Code(msgspec.Struct, gc=False):
    value: Raw = _tag("00080100")
    long_value: Raw = _tag("00080119")
    urn: Raw = _tag("00080120")
    scheme: Raw = _tag("00080102")
    meaning: Raw = _tag("00080104")


class _Measured(msgspec.Struct, gc=False):
    decimal: Raw = _tag("0040A30A")
    double: Raw = _tag("0040A161")
    unit: Raw = _tag("004008EA")


_HEADER = msgspec.json.Decoder(_Header)
_ITEM = msgspec.json.Decoder(_Item)
_CODE = msgspec.json.Decoder(_Code)
_MEASURED = msgspec.json.Decoder(_Measured)


def content_tree(header: bytes | str) -> ContentItem | None:
    """The root of the header's content tree; None where there is none. Nothing that a header may have raises."""
    read = document(header)
    return read.root if read else None


def document(header: bytes | str) -> Document | None:
    """The header's content tree with the document's flags; None for what is no header, or has no content."""
    found = decoded(_HEADER, header)
    if found is None or not (found.name or found.content):
        return None
    return Document(_item(found, "1", 1), text(found.completion), text(found.verification), text(found.utc_offset))


def _item(item: _Item, path: str, depth: int) -> ContentItem:
    measured = first(_MEASURED, item.measured) or _Measured()
    decimal = number(measured.decimal)
    children, skipped = _children(item.content, path, depth)
    return ContentItem(
        path=path,
        relationship=text(item.relationship),
        value_type=text(item.value_type),
        name=_code(item.name),
        code=_code(item.code),
        number=number(measured.double) if decimal is None else decimal,
        unit=_code(measured.unit),
        text=text(item.text),
        uid=text(item.uid),
        date_time=text(item.date_time),
        children=children,
        skipped=skipped,
    )


def _children(content: Raw, path: str, depth: int) -> tuple[tuple[ContentItem, ...], int]:
    """The items of a Content Sequence, and how many at any depth are none, or too deep."""
    if not content:
        return (), 0
    found = members(content)
    if found is None:
        return (), 1
    if depth == DEEPEST:
        return (), len(found)
    items = ((ordinal, decoded(_ITEM, raw)) for ordinal, raw in enumerate(found, 1))
    children = tuple(_item(item, f"{path}.{ordinal}", depth + 1) for ordinal, item in items if item)
    return children, len(found) - len(children) + sum(child.skipped for child in children)


def _code(sequence: Raw) -> Code | None:
    item = first(_CODE, sequence)
    if item is None:
        return None
    value = text(item.value) or text(item.long_value) or text(item.urn)
    scheme, meaning = text(item.scheme), text(item.meaning)
    return Code(value, scheme.upper() if scheme else None, meaning) if value or meaning else None
