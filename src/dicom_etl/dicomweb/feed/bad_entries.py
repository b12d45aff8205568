"""A page that fails for good, bisected down to the entries that make it fail (design/architecture.md: Rejects)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from threading import Lock

from dicom_etl.core.entry import ABSENT, Entry
from dicom_etl.core.errors import ProtocolError, ServiceUnavailable
from dicom_etl.core.reasons import METADATA_NOT_TRIED, METADATA_UNAVAILABLE
from dicom_etl.dicomweb.feed.page import Page, PageRequest, request_page
from dicom_etl.remote.http.body import TooLarge
from dicom_etl.remote.http.client import HttpClient, KeepsFailing
from dicom_etl.remote.http.retry import RetryPolicy

REQUESTS_PER_RUN = 2000
_QUICK_ATTEMPTS = 4
_SINGLE_ATTEMPTS = 2
_BARE_ATTEMPTS = 2
_READINGS = 3
# So many entries without metadata in a row, and it is asked whether the service is well.
_DOUBTFUL = 400
_MOST_ROUNDS = 20
_LONGEST_PAUSE_SECONDS = 30.0

log = logging.getLogger(__name__)


class Budget:
    """How many more requests may be spent on looking closer; shared by the threads of one reading."""

    def __init__(self, requests: int = REQUESTS_PER_RUN) -> None:
        self._left = requests
        self._lock = Lock()

    def take(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left >= 0

    def give(self, requests: int) -> None:
        """So many were worth their cost and do not count."""
        with self._lock:
            self._left += requests

    @property
    def spent(self) -> bool:
        with self._lock:
            return self._left <= 0


class Health:
    """Whether the service can give any metadata at all; shared by the threads of one reading.

    Bad entries and a service whose store of metadata is down look alike, entry by entry. What tells them apart is
    an entry that was read before: a service that cannot give it any more is not well.
    """

    def __init__(self) -> None:
        self._good: PageRequest | None = None
        self._unread_in_a_row = 0
        self._lock = Lock()

    def read(self, entries: list[Entry]) -> None:
        """These came with what they have; remembers one that is the first of its instant."""
        with self._lock:
            for before, entry in pairwise(entries):
                if entry.ticks != before.ticks and entry.has_metadata:
                    self._good = PageRequest(entry.ticks, entry.ticks + 1, 0, 1)
            if any(entry.has_metadata for entry in entries):
                self._unread_in_a_row = 0

    def unread(self, count: int) -> bool:
        """Takes note of entries without metadata; whether it is time to doubt the service."""
        with self._lock:
            before, self._unread_in_a_row = self._unread_in_a_row, self._unread_in_a_row + count
            return before // _DOUBTFUL < self._unread_in_a_row // _DOUBTFUL

    @property
    def good(self) -> PageRequest | None:
        with self._lock:
            return self._good


@dataclass(frozen=True, slots=True)
class PageSource:
    """Where pages come from: the client, the budget for poisoned ones, and whether still wanted."""

    client: HttpClient
    budget: Budget
    cancelled: Callable[[], bool]
    health: Health = field(default_factory=Health)


class _Shifted(Exception):
    """A part of the page holds other entries than it did a moment ago."""


def fetch_page(source: PageSource, page_request: PageRequest) -> Page:
    """The page that was asked for, complete; entries whose metadata cannot be had carry a code.

    When the service fails with metadata and answers without, the page is bisected, in at most two requests
    an entry and within the budget; beyond it the entries come without metadata. When it fails without
    metadata too, that is an outage: both are tried until the client's time is over (ServiceUnavailable).
    Raises else as ``page.request_page``.
    """
    if not page_request.metadata:
        return request_page(source.client, page_request, RetryPolicy(cancelled=source.cancelled))
    for _ in range(_READINGS):
        page, complete = _with_or_without(source, page_request, _QUICK_ATTEMPTS)
        if complete:
            source.health.read(page.entries)
            return page
        log.warning("a page of the change feed fails with metadata; looking for the entry")
        try:
            entries = _bisected(_Poisoned(source, page_request, page.entries))
        except _Shifted:
            continue
        _refuse_an_outage(source, entries)
        return Page(entries, page.size_bytes + sum(len(entry.metadata) for entry in entries))
    raise ProtocolError("the change feed shows other entries each time the same page is asked for")


def _refuse_an_outage(source: PageSource, entries: list[Entry]) -> None:
    """Raise ServiceUnavailable when the service cannot give the metadata of anything.

    Else a failure of its store, which the feed without metadata does not show, would turn every entry of a run
    into a reject, and count as read.
    """
    source.health.read(entries)
    unread = sum(entry.unreadable is not None for entry in entries)
    if not source.health.unread(unread if unread == len(entries) else 0):
        return
    good = source.health.good
    try:
        well = good is not None and bool(request_page(source.client, good, RetryPolicy(None, _SINGLE_ATTEMPTS)).entries)
    except KeepsFailing:
        well = False
    if not well:
        raise ServiceUnavailable(
            f"the DICOM service at {source.client.host} cannot give any metadata, of entries that it gave before "
            "neither; run again later"
        )


def _with_or_without(source: PageSource, page_request: PageRequest, attempts: int) -> tuple[Page, bool]:
    """The page and whether it came with metadata; through an outage, until the client's time is over."""
    client = source.client
    since = client.monotonic()
    retry_policy = RetryPolicy(since, attempts, source.cancelled)
    bare_policy = RetryPolicy(since, _BARE_ATTEMPTS, source.cancelled)
    pause_seconds = 1.0
    for _ in range(_MOST_ROUNDS):
        try:
            return request_page(client, page_request, retry_policy), True
        except KeepsFailing:
            pass
        try:
            return request_page(client, page_request.bare(), bare_policy), False
        except KeepsFailing:
            if source.cancelled() or client.monotonic() + pause_seconds > client.deadline(since):
                raise
        client.pause(pause_seconds, source.cancelled)
        pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)
    return request_page(client, page_request, RetryPolicy(since, cancelled=source.cancelled)), True


@dataclass(frozen=True, slots=True)
class _Poisoned:
    """A page that fails, and what it holds as the answer without metadata tells."""

    source: PageSource
    page_request: PageRequest
    bare: list[Entry]

    def part(self, low: int, high: int) -> PageRequest:
        """The request for entries low..high-1 of the page, by keyset: only their tie costs an offset."""
        ticks = self.bare[low].ticks
        before = sum(1 for entry in self.bare[:low] if entry.ticks == ticks)
        if ticks == self.page_request.start:
            before += self.page_request.offset
        return PageRequest(ticks, self.page_request.end, before, high - low)


def _bisected(page: _Poisoned) -> list[Entry]:
    count = len(page.bare)
    if count < 2:
        return [_unreadable(entry, METADATA_UNAVAILABLE) for entry in page.bare]
    return _part(page, 0, count // 2) + _part(page, count // 2, count)


def _part(page: _Poisoned, low: int, high: int) -> list[Entry]:
    """Entries low..high-1, each with metadata or with the code that says why not."""
    if not page.source.budget.take():
        return [_unreadable(entry, METADATA_NOT_TRIED) for entry in page.bare[low:high]]
    if high - low == 1:
        return _single(page, low)
    try:
        # One attempt: its halves are the second.
        answer = request_page(page.source.client, page.part(low, high), RetryPolicy(None, 1, page.source.cancelled))
    except (KeepsFailing, TooLarge):
        middle = (low + high) // 2
        return _part(page, low, middle) + _part(page, middle, high)
    return _same(page, low, high, answer)


def _single(page: _Poisoned, position: int) -> list[Entry]:
    """The entry alone: given up only when the service answers for it without metadata right after."""
    answer, complete = _with_or_without(page.source, page.part(position, position + 1), _SINGLE_ATTEMPTS)
    entries = _same(page, position, position + 1, answer)
    if complete:
        return entries
    page.source.budget.take()
    return [_unreadable(entry, METADATA_UNAVAILABLE) for entry in entries]


def _same(page: _Poisoned, low: int, high: int, answer: Page) -> list[Entry]:
    if [e.sequence for e in answer.entries] != [e.sequence for e in page.bare[low:high]]:
        raise _Shifted
    return answer.entries


def _unreadable(entry: Entry, reason: str) -> Entry:
    return entry.replace(metadata=ABSENT, unreadable=reason)
