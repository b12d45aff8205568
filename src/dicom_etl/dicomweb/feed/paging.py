"""Keyset paging: where each page starts, and how many entries it asks for (halved when too large); each entry once.

design/architecture.md: Reading the feed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from dicom_etl.core.entry import Entry
from dicom_etl.core.errors import ProtocolError
from dicom_etl.dicomweb.feed.page import PAGE_BYTES, Page, PageRequest
from dicom_etl.remote.http.body import TooLarge

Fetch = Callable[[PageRequest], Page]
Emit = Callable[[Page], None]

_MOST_READINGS_OF_A_TIE = 8


@dataclass(slots=True)
class Cursor:
    """How far a slice of the feed has been read.

    All entries of [start of the slice, ticks) have been emitted, and those in ``seen`` at exactly ``ticks``.
    ``limit`` is what the next page asks for: as many entries as should make ``page_bytes`` by the last page, and at
    most ``batch_size``. ``end`` may move left.
    ``page_entries`` and ``page_ticks`` are the size of the last page and the time that it covered.
    """

    ticks: int
    end: int
    batch_size: int
    metadata: bool = True
    limit: int = 0
    page_bytes: int = PAGE_BYTES
    seen: set[int] = field(default_factory=set)
    page_entries: int = 0
    page_ticks: int = 0
    repeated: int = 0

    def __post_init__(self) -> None:
        self.limit = self.limit or self.batch_size


def advance(cursor: Cursor, fetch: Fetch, emit: Emit) -> bool:
    """Emits the next page of the slice, each entry once, and moves the cursor; False when that was the last.

    What is emitted carries the size of the whole answer: its entries' metadata are parts of that.
    Raises ProtocolError when the service repeats itself.
    """
    page_request = PageRequest(cursor.ticks, cursor.end, len(cursor.seen), cursor.limit, cursor.metadata)
    page, limit = _fitting(cursor, fetch, page_request)
    full = len(page.entries) >= limit
    again = sum(1 for entry in page.entries if entry.sequence in cursor.seen)
    if again:
        # A row arrived late in the tie and pushed a known one behind the offset.
        cursor.repeated += again
        _read_tie_again(cursor, fetch, emit)
        return cursor.ticks < cursor.end
    new = _distinct(page.entries)
    cursor.repeated += len(page.entries) - len(new)
    if new:
        _move(cursor, new)
        emit(Page(new, page.size_bytes))
    return full


def _fitting(cursor: Cursor, fetch: Fetch, page_request: PageRequest) -> tuple[Page, int]:
    """The page and the limit it was asked with, halved until its body is of bearable size; sets the next limit."""
    while True:
        try:
            page = fetch(page_request)
        except TooLarge:
            page_request = replace(page_request, limit=max(1, page_request.limit // 2))
            continue
        if page.entries:
            fitting = cursor.page_bytes * len(page.entries) // max(1, page.size_bytes)
            # At most doubled: one page of small headers does not tell that the large ones are over.
            cursor.limit = max(1, min(fitting, 2 * page_request.limit, cursor.batch_size))
        return page, page_request.limit


def _distinct(entries: list[Entry]) -> list[Entry]:
    """The entries without those that are listed twice; they stand side by side, by the order of the page."""
    return [
        entry
        for position, entry in enumerate(entries)
        if position == 0 or entries[position - 1].sequence != entry.sequence
    ]


def _move(cursor: Cursor, new: list[Entry]) -> None:
    last = new[-1].ticks
    cursor.page_entries, cursor.page_ticks = len(new), last - new[0].ticks
    if last != cursor.ticks:
        cursor.ticks = last
        cursor.seen = set()
    cursor.seen.update(entry.sequence for entry in new if entry.ticks == last)


def _read_tie_again(cursor: Cursor, fetch: Fetch, emit: Emit) -> None:
    """Reads the cursor's timestamp from its first entry, emits what is new, and moves behind it."""
    before: list[int] = []
    for _ in range(_MOST_READINGS_OF_A_TIE):
        sequences, pages = _read_tie(cursor, fetch, emit)
        # Within one answer, or when nothing moved between two readings, the tie is complete.
        still = pages == 1 or len(set(sequences)) == len(sequences) or sequences == before
        if sequences and still:
            cursor.ticks += 1
            cursor.seen = set()
            return
        before = sequences
    raise ProtocolError("the change feed sends the same page again and again")


def _read_tie(cursor: Cursor, fetch: Fetch, emit: Emit) -> tuple[list[int], int]:
    """The sequences at the cursor's timestamp as they were served, and the number of pages.

    No sequences when a page brought nothing new: it moved as it was read, or the service repeats itself.
    """
    sequences: list[int] = []
    pages = 0
    while True:
        page_request = PageRequest(cursor.ticks, cursor.ticks + 1, len(sequences), cursor.limit, cursor.metadata)
        page, limit = _fitting(cursor, fetch, page_request)
        pages += 1
        served = [entry.sequence for entry in page.entries]
        full = len(served) >= limit
        if full and set(served) <= set(sequences):
            return [], pages
        new = [entry for entry in _distinct(page.entries) if entry.sequence not in cursor.seen]
        cursor.seen.update(entry.sequence for entry in new)
        if new:
            emit(Page(new, page.size_bytes))
        sequences += served
        if not full:
            return sequences, pages
