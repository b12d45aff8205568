"""Slices of the feed, read side by side on several connections (design/architecture.md: Reading the feed)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import pairwise
from threading import Condition, Event, Thread
from types import TracebackType

from dicom_etl.core.entry import Entry
from dicom_etl.dicomweb.feed.entry_limit import EntryLimit
from dicom_etl.dicomweb.feed.page import PAGE_BYTES, Page, PageRequest
from dicom_etl.dicomweb.feed.paging import Cursor, Fetch, advance
from dicom_etl.dicomweb.feed.waiting import Waiting
from dicom_etl.remote.http.client import Cancelled

_JOIN_SECONDS = 2.0
# So often a reading looks whether another thread has stopped it.
_LOOK_SECONDS = 0.5
# All connections together: with 64 of them pages of 8 MiB would be half a GiB.
_BYTES_UNDER_WAY = 128 << 20


@dataclass(frozen=True, slots=True)
class SliceOptions:
    """How many slices are read at once, and of what pages."""

    connections: int
    batch_size: int
    metadata: bool


class SliceReader:
    """Iterates over pages of new entries, in any order; to be closed, so that its threads end.

    It starts with one slice. When a page is full, the slice's rest is split for idle connections. With a
    ``cut`` that bounds the entries, the first page of a stretch tells how far to read on; when that much is
    read and entries are left to be had, the next stretch begins.

    ``waiting`` are the pages that are read and not taken yet.
    """

    def __init__(self, fetch: Fetch, start: int, cut: EntryLimit, options: SliceOptions, stop: Event) -> None:
        self.pages = 0
        self.slices = 0
        self.repeated = 0
        self.waiting = Waiting(options.connections)
        self._fetch = fetch
        self._cut = cut
        # As many threads as connections. A few more, to decode meanwhile, were slower: they progress unevenly,
        # and slices that end early are split again (measured: 45 slices instead of 8).
        self._workers = options.connections
        self._options = options
        self._limit = options.batch_size
        self._changed = Condition()
        self._pending: list[tuple[int, int, Cursor]] = []  # a heap: oldest first
        self._active = 0
        self._rest = start
        self._threads: list[Thread] = []
        self._error: BaseException | None = None
        self._probe: Cursor | None = None
        self._stop = stop

    def __enter__(self) -> SliceReader:
        with self._changed:
            self._next_stretch()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._stop.set()
            self._changed.notify_all()
        # A thread that waits for an answer ends with it, and as a daemon holds nobody up until then.
        for thread in self._threads:
            thread.join(_JOIN_SECONDS if kind is None else 0.1)

    def __iter__(self) -> Iterator[list[Entry]]:
        while (entries := self._next_read()) is not None:
            yield entries

    def _next_read(self) -> list[Entry] | None:
        with self._changed:
            while not self.waiting and self._error is None and not self._finished() and not self._stop.is_set():
                self._changed.wait(_LOOK_SECONDS)
            if self._error is not None:
                raise self._error
            if self._stop.is_set():
                raise Cancelled
            if not self.waiting:
                return None
            self._changed.notify_all()
            return self.waiting.take().entries

    def _finished(self) -> bool:
        return not self._pending and self._active == 0

    def _next_stretch(self) -> None:
        """The whole rest as one slice: its first page tells whether there is more, and how dense it is."""
        start, end = self._rest, self._cut.end
        self._rest = end
        if start < end:
            self._probe = self._add(start, end)

    def _add(self, start: int, end: int) -> Cursor:
        self.slices += 1
        page_bytes = min(PAGE_BYTES, _BYTES_UNDER_WAY // self._workers)
        cursor = Cursor(start, end, self._options.batch_size, self._options.metadata, self._limit, page_bytes)
        heappush(self._pending, (start, self.slices, cursor))
        if self._active + len(self._pending) > len(self._threads) < self._workers:
            thread = Thread(target=self._work, name=f"feed-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._changed.notify_all()
        return cursor

    def _work(self) -> None:
        try:
            while (cursor := self._take()) is not None:
                self._read_slice(cursor)
                self._leave(cursor)
        except Cancelled:
            pass
        except BaseException as error:  # noqa: BLE001 - not handled here: it is raised in the caller's thread
            with self._changed:
                self._error = self._error or error
                self._stop.set()
                self._changed.notify_all()

    def _take(self) -> Cursor | None:
        with self._changed:
            while not self._pending and not self._stop.is_set():
                self._changed.wait()
            if self._stop.is_set():
                return None
            self._active += 1
            return heappop(self._pending)[2]

    def _leave(self, cursor: Cursor) -> None:
        with self._changed:
            self._active -= 1
            self.repeated += cursor.repeated
            if self._finished():
                self._next_stretch()
            self._changed.notify_all()

    def _read_slice(self, cursor: Cursor) -> None:
        while self._still_wanted(cursor) and advance(cursor, self._fetch_counted, self._emit):
            with self._changed:
                self._limit = cursor.limit
                self._limit_stretch(cursor)
                self._share(cursor)

    def _still_wanted(self, cursor: Cursor) -> bool:
        with self._changed:
            cursor.end = min(cursor.end, self._cut.end)
            return cursor.ticks < cursor.end and not self._stop.is_set()

    def _fetch_counted(self, page_request: PageRequest) -> Page:
        page = self._fetch(page_request)
        with self._changed:
            self.pages += 1
        return page

    def _emit(self, page: Page) -> None:
        """Hands entries to the caller's thread, and waits while it lags behind."""
        with self._changed:
            wanted = [entry for entry in page.entries if entry.ticks < self._cut.end]
            self._cut.add(entry.ticks for entry in wanted)
            while not self.waiting.has_room(page) and not self._stop.is_set():
                self._changed.wait()
            if self._stop.is_set():
                raise Cancelled
            if wanted:
                self.waiting.put(Page(wanted, page.size_bytes))
                self._changed.notify_all()

    def _limit_stretch(self, cursor: Cursor) -> None:
        """After the first page of a stretch: how much of the rest is read now."""
        if cursor is self._probe:
            self._probe = None
            self._rest = cursor.end = self._cut.plan(cursor.ticks, cursor.page_entries, cursor.page_ticks)

    def _share(self, cursor: Cursor) -> None:
        """Splits what is left of a slice, strictly after the last timestamp seen, for idle connections."""
        idle = self._workers - self._active - len(self._pending)
        left = cursor.end - cursor.ticks - 1
        pages_left = -(-left // max(1, cursor.page_ticks))
        parts = min(idle + 1, pages_left, left)
        if parts < 2:
            return
        edges = [cursor.ticks + 1 + left * part // parts for part in range(1, parts)] + [cursor.end]
        cursor.end = edges[0]
        for start, end in pairwise(edges):
            self._add(start, end)
