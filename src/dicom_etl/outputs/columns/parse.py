"""Headers to the values of columns: in one pass where they look as the service writes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec

from dicom_etl.core.values import UNDECODABLE
from dicom_etl.outputs.columns.design import Column, ColumnDesign
from dicom_etl.outputs.columns.elements import Elements, elements_of, find
from dicom_etl.outputs.columns.members import Taken, taker
from dicom_etl.outputs.columns.tagpath import TagPath
from dicom_etl.outputs.columns.usual import Kind, header_decoder, kind_of, usual_taker
from dicom_etl.outputs.columns.vr import Outcome, Value


class HeaderState(StrEnum):
    """Whether there is a header to read."""

    OK = "ok"
    MISSING = "missing"
    UNREADABLE = "unreadable"


class ParsedHeader(NamedTuple):
    """Values and outcomes, both in the order of the design's columns; null and ABSENT throughout when not ``ok``."""

    values: tuple[Value, ...]
    outcomes: tuple[Outcome, ...]
    state: HeaderState


_NOTHING: Final = (b"", b"null")
_ABSENT: Final[Taken] = (None, Outcome.ABSENT)
_Record = tuple[Any, ...]


class HeaderReader:
    """Reads the columns of one design from headers in DICOM JSON (PS3.18 F), as feed and ``/metadata`` have them."""

    def __init__(self, design: ColumnDesign) -> None:
        self.design = design
        kinds = _kinds(design.columns)
        self._decode = header_decoder(list(kinds.items())).decode
        self._slow = [_slow_way(column.path) for column in design.columns]
        self._usual = [
            _usual_way(column.path, list(kinds), kinds.get(column.path.steps[0].tag), slow)
            for column, slow in zip(design.columns, self._slow, strict=True)
        ]
        self._private = any(column.path.steps[0].creator is not None for column in design.columns)
        self._nulls: tuple[Value, ...] = (None,) * len(design.columns)
        self._absent = (Outcome.ABSENT,) * len(design.columns)

    def read(self, metadata: str | bytes | None) -> ParsedHeader:
        """The values of one header. Nothing raises: an odd element has an outcome, an odd header a state."""
        header = metadata.encode("utf-8", "surrogatepass") if isinstance(metadata, str) else metadata or b""
        if header in _NOTHING:
            return ParsedHeader(self._nulls, self._absent, HeaderState.MISSING)
        try:
            # msgspec checks no text that it skips.
            if not header.isascii():
                header.decode()
            taken = self._taken(header)
        except UNDECODABLE:
            return ParsedHeader(self._nulls, self._absent, HeaderState.UNREADABLE)
        values, outcomes = zip(*taken, strict=True) if taken else ((), ())
        return ParsedHeader(values, outcomes, HeaderState.OK)

    def _taken(self, header: bytes) -> list[Taken]:
        try:
            fields = msgspec.structs.astuple(self._decode(header))
        except UNDECODABLE:
            elements = elements_of(header)
            return [take(elements) for take in self._slow]
        record = (*fields, elements_of(header) if self._private else None)
        return [take(record) for take in self._usual]


def _kinds(columns: Sequence[Column]) -> dict[str, Kind]:
    """The tags that columns begin with and how each is decoded, in the order of headers, which is quick to match."""
    kinds: dict[str, Kind] = {}
    for column in columns:
        step, kind = column.path.steps[0], kind_of(column.path)
        if step.creator is None:
            kinds[step.tag] = kind if kinds.get(step.tag, kind) == kind else "raw"
    return dict(sorted(kinds.items()))


def _slow_way(path: TagPath) -> Callable[[Elements], Taken]:
    take, steps = taker(path), path.steps
    return lambda elements: take(find(steps, elements))


def _usual_way(
    path: TagPath, tags: list[str], kind: Kind | None, slow: Callable[[Elements], Taken]
) -> Callable[[_Record], Taken]:
    """From the fields of the struct; behind them stands the whole dataset, for private tags."""
    tag = path.steps[0].tag
    if kind is None:
        return lambda record: slow(record[-1])
    field = tags.index(tag)
    if kind == "raw":
        return lambda record: slow({tag: record[field]}) if record[field] else _ABSENT
    return usual_taker(path, field)


def top_level_tags(metadata: str | bytes) -> tuple[str, ...]:
    """The keys of a header's own elements, for the set ``all``; none when it cannot be read."""
    header = metadata.encode("utf-8", "surrogatepass") if isinstance(metadata, str) else metadata
    try:
        return tuple(elements_of(header)) if header not in _NOTHING else ()
    except UNDECODABLE:
        return ()
