"""The change feed of one window, read completely; paging sees to it that each entry comes once.

design/architecture.md: Reading the feed, Rejects.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import groupby
from threading import Event
from typing import Any

from dicom_etl.core.entry import Entry
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import TICKS_PER_MICROSECOND, Window, floor_to_grid
from dicom_etl.dicomweb.feed.bad_entries import REQUESTS_PER_RUN, Budget, PageSource, fetch_page
from dicom_etl.dicomweb.feed.entry_limit import EntryLimit
from dicom_etl.dicomweb.feed.page import Page, PageRequest, request_page
from dicom_etl.dicomweb.feed.paging import Cursor, advance
from dicom_etl.dicomweb.feed.parallel import SliceOptions, SliceReader
from dicom_etl.remote.http.client import HttpClient, KeepsFailing
from dicom_etl.remote.http.malloc import return_large_blocks
from dicom_etl.remote.http.retry import DEFAULT_RETRY, RetryPolicy, never

Progress = Callable[[int, int], None]
"""Called with the pages and entries taken so far, from the thread that reads."""


@dataclass(frozen=True, slots=True)
class FeedReadResult:
    """What was read: every entry of ``window``, which is the one asked for or a cut of it.

    ``entries`` are the distinct sequences in it, ``repeated`` the rows met more than once, ``pages`` the
    pages asked for (retries not counted), ``slices`` the parts of the window read side by side.
    """

    window: Window
    entries: int
    repeated: int
    pages: int
    slices: int


@dataclass(frozen=True, slots=True)
class FeedReader:
    """How the feed is read: pages of ``batch_size`` entries, over so many ``connections`` at once.

    A page has fewer entries where headers are large. ``progress`` is called as the pages come. ``stop`` is set by
    another thread to end the reading. ``poison_requests`` bounds what is asked to find entries that fail.
    """

    client: HttpClient
    batch_size: int
    connections: int
    metadata: bool = True
    progress: Progress | None = None
    stop: Event | None = None
    poison_requests: int = REQUESTS_PER_RUN


def feed_reader(client: HttpClient, settings: Settings, **how: Any) -> FeedReader:
    """The reader of the feed by the settings; ``how`` are further fields of ``FeedReader``."""
    return FeedReader(client, settings.feed.batch_size, settings.dicom.connections, **how)


def read_feed(
    reader: FeedReader,
    window: Window,
    sink: Callable[[list[Entry]], None],
    *,
    max_entries: int | None = None,
    grid_ticks: int | None = None,
) -> FeedReadResult:
    """What was read, after ``sink`` has taken it all.

    ``sink`` gets the entries of a page at a time, in this thread, pages in any order; while it works, the
    connections read ahead, up to 64 MiB. With ``max_entries`` the window is cut at the last multiple of ``grid_ticks``
    that leaves no more than that many entries before it, though never within its first window of the grid; ``sink``
    may have got entries at or after the cut.

    Raises ServiceUnavailable, AccessDenied, ConfigurationError and ProtocolError, and Cancelled when another thread
    has set ``reader.stop``; the sink's own errors and KeyboardInterrupt pass through. No thread works on afterwards.
    """
    return_large_blocks()
    cut = EntryLimit(window, max_entries, grid_ticks)
    stop = reader.stop or Event()
    source = PageSource(reader.client, Budget(reader.poison_requests), stop.is_set)
    slices = SliceReader(
        lambda page_request: fetch_page(source, page_request),
        window.start,
        cut,
        SliceOptions(reader.connections, reader.batch_size, reader.metadata),
        stop,
    )
    taken = 0
    with slices:
        for entries in slices:
            sink(entries)
            taken += len(entries)
            if reader.progress is not None:
                reader.progress(slices.pages, taken)
    return FeedReadResult(Window(window.start, cut.end), cut.entries, slices.repeated, slices.pages, slices.slices)


def read_at(client: HttpClient, ticks: int, sequences: Collection[int], *, batch_size: int = 200) -> list[Entry]:
    """Those of ``sequences`` that the service serves in the microsecond of ``ticks``, without metadata.

    In the feed's order. The whole microsecond, because that is what table columns remember of an instant: to see
    whether a stored entry is still served. Raises as ``read_feed``.
    """
    served = _served_at(PageSource(client, Budget(), never), ticks, batch_size)
    return [entry for _, entry in served if entry.sequence in sequences]


def refetch(client: HttpClient, ticks: int, sequences: Collection[int], budget: Budget) -> list[Entry]:
    """Those of ``sequences``, served in the microsecond of ``ticks``, whose metadata can be had by now.

    For what failed before: each entry is asked for once, without retries, and one that is no longer Current comes
    without metadata, which it does not need. Every request is taken from ``budget``; what is beyond it is left out,
    for another time. Raises as ``read_feed``.
    """
    source = PageSource(client, budget, never)
    again = []
    for offset, entry in _served_at(source, ticks, batch_size=200):
        if entry.sequence not in sequences:
            continue
        if (entry.state or "").lower() != "current":
            again.append(entry)
            continue
        if not budget.take():
            break
        try:
            page = request_page(client, PageRequest(entry.ticks, entry.ticks + 1, offset, 1), RetryPolicy(None, 1))
        except KeepsFailing:
            continue
        again += [one for one in page.entries if one.sequence == entry.sequence]
    return again


def _served_at(source: PageSource, ticks: int, batch_size: int) -> list[tuple[int, Entry]]:
    """What is served in the microsecond of ``ticks``, without metadata, each entry with its place in its tie."""
    start = floor_to_grid(ticks, TICKS_PER_MICROSECOND)
    cursor = Cursor(start, start + TICKS_PER_MICROSECOND, batch_size, metadata=False)
    served: list[Entry] = []

    def fetch(page_request: PageRequest) -> Page:
        source.budget.take()
        return fetch_page(source, page_request)

    while advance(cursor, fetch, lambda page: served.extend(page.entries)):
        pass
    return list(_offsets(served))


def _offsets(entries: list[Entry]) -> Iterator[tuple[int, Entry]]:
    """Each entry with the number of entries before it at the same timestamp; rows that came late in order."""
    ordered = sorted(entries, key=lambda entry: (entry.ticks, entry.sequence))
    for _, tie in groupby(ordered, key=lambda entry: entry.ticks):
        yield from enumerate(tie)


def service_now(client: HttpClient) -> int | None:
    """The service's clock in ticks, by the ``Date`` header of one cheap page; None when it sends none."""
    request_page(client, PageRequest(0, 1, 0, 1, metadata=False), DEFAULT_RETRY)
    return client.service_time


def any_entry(client: HttpClient, window: Window) -> bool:
    """Whether the window holds an entry: one request. Raises as ``HttpClient.send``."""
    page = request_page(client, PageRequest(window.start, window.end, 0, 1, metadata=False), DEFAULT_RETRY)
    return bool(page.entries)
