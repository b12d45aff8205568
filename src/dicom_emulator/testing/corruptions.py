"""Ready-made rewrites of feed pages, for `Fault(rewrite=...)`: what a service may send that it should not."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

Rewrite = Callable[[bytes], bytes]
Row = dict[str, Any]

LEFT_OUT = object()
"""As a value in `altered`: the member is not there."""

_PADDED = ("studyInstanceUid", "seriesInstanceUid", "sopInstanceUid")


def html(_page: bytes) -> bytes:
    """A sign-in page instead of the answer."""
    return b"<!DOCTYPE html><html><title>Sign in</title></html>"


def not_json(page: bytes) -> bytes:
    """The page without its end."""
    return page[:-1] + b',{"sequence":'


def swapped(old: bytes, new: bytes) -> Rewrite:
    """Some bytes in place of others, wherever they stand: for what is neither JSON nor UTF-8."""

    def swap(page: bytes) -> bytes:
        return page.replace(old, new)

    return swap


def altered(sequence: int | None = None, /, **members: Any) -> Rewrite:
    """One entry, or all of them, with these members set; LEFT_OUT takes one away."""
    present = {name: value for name, value in members.items() if value is not LEFT_OUT}

    def alter(row: Row) -> Row:
        if sequence is not None and row["sequence"] != sequence:
            return row
        return {name: value for name, value in row.items() if name not in members} | present

    return edited(alter)


def edited(change: Callable[[Row], Any]) -> Rewrite:
    """Each entry as `change` gives it: anything that JSON can say, NaN and infinities too."""

    def edit(page: bytes) -> bytes:
        rows = json.loads(page)
        return _dumped([change(row) for row in rows] if isinstance(rows, list) else change(rows))

    return edit


def rearranged(change: Callable[[list[Row]], list[Any]]) -> Rewrite:
    """The list of entries as `change` gives it; other answers stay."""

    def rearrange(page: bytes) -> bytes:
        rows = json.loads(page)
        return _dumped(change(rows)) if isinstance(rows, list) else page

    return rearrange


def zulu(page: bytes) -> bytes:
    """`Z` instead of `+00:00`."""
    return page.replace(b'+00:00"', b'Z"')


lower_case: Rewrite = edited(lambda row: row | {"action": row["action"].lower(), "state": row["state"].lower()})
"""Action and state in lower case, as the documentation shows them."""

padded: Rewrite = edited(lambda row: row | {name: row[name] + " \0" for name in _PADDED})
"""The UIDs with a space and a NUL behind."""

out_of_order: Rewrite = rearranged(lambda rows: rows[::-1])
"""The last entry first."""


def twice(limit: int) -> Rewrite:
    """Every entry two times, side by side, as many as a page of `limit` takes."""
    return rearranged(lambda rows: [row for row in rows for _ in range(2)][:limit])


def longer(than: int) -> Rewrite:
    """A page of more entries than that, made from its last; an empty one stays."""

    def lengthen(rows: list[Row]) -> list[Row]:
        last = rows[-1:]
        return rows + [row | {"sequence": row["sequence"] + more} for row in last for more in range(1, than + 1)]

    return rearranged(lengthen)


def shifted(seconds: float) -> Rewrite:
    """All timestamps moved, so that they fall out of the window."""

    def move(row: Row) -> Row:
        moment = datetime.fromisoformat(row["timestamp"]) + timedelta(seconds=seconds)
        return row | {"timestamp": moment.isoformat()}

    return edited(move)


def with_more(*values: Any) -> Rewrite:
    """These behind the entries: numbers, texts, objects that are no entries."""
    return rearranged(lambda rows: [*rows, *values])


def the_same_for_ever() -> Rewrite:
    """The first page with entries that it meets, from then on for every page."""
    kept: list[bytes] = []

    def repeat(page: bytes) -> bytes:
        if not kept and page != b"[]":
            kept.append(page)
        return kept[0] if kept else page

    return repeat


def _dumped(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")
