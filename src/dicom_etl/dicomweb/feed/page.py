"""One page of the change feed: asked for, decoded, checked.

design/service-protocol.md: Feed parameters, Paging the feed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

from dicom_etl.core.entry import Entry
from dicom_etl.core.errors import ProtocolError
from dicom_etl.core.timerange import format_instant
from dicom_etl.dicomweb.feed.decode import NotJson, decode_page
from dicom_etl.remote.http.client import HttpClient
from dicom_etl.remote.http.request import Call
from dicom_etl.remote.http.response import Answer
from dicom_etl.remote.http.retry import Failure, Kind, Patience

PATH = "/v2/changefeed"
# What ``limit`` aims at: 200 headers of 40 KB. Fewer requests are not worth the memory: each connection holds a page.
PAGE_BYTES = 8 << 20
# Where the headers have just become larger: given up then, and asked for in parts.
LARGEST_PAGE_BYTES = 2 * PAGE_BYTES


@dataclass(frozen=True, slots=True)
class Ask:
    """What a page is asked for: up to ``limit`` entries of [start, end) after the first ``offset``."""

    start: int
    end: int
    offset: int
    limit: int
    metadata: bool = True

    def bare(self) -> Ask:
        return replace(self, metadata=False)


@dataclass(frozen=True, slots=True)
class Page:
    """The entries of one answer in the service's order, and the size of its body."""

    entries: list[Entry]
    size_bytes: int


def request_page(client: HttpClient, ask: Ask, patience: Patience) -> Page:
    """The page, with the client's retries.

    Raises body.TooLarge when more than one entry was asked for and the body is over LARGEST_PAGE_BYTES;
    ProtocolError when the page is not what was asked for; else as ``HttpClient.send``.
    """
    call = Call(
        PATH,
        params={
            "startTime": format_instant(ask.start),
            "endTime": format_instant(ask.end),
            "offset": str(ask.offset),
            "limit": str(ask.limit),
            "includeMetadata": "true" if ask.metadata else "false",
        },
        expect_json=True,
        # A single entry cannot be asked for in parts; it is taken whatever its size.
        max_bytes=LARGEST_PAGE_BYTES if ask.limit > 1 else None,
    )
    return client.send(call, lambda answer: _read(answer, ask), patience)


def _read(answer: Answer, ask: Ask) -> Page:
    try:
        entries = decode_page(answer.body)
    except NotJson as error:
        raise Failure("an answer that is not JSON", Kind.FAILING) from error
    _check(entries, ask)
    return Page(entries, len(answer.body))


def _check(entries: list[Entry], ask: Ask) -> None:
    if len(entries) > ask.limit:
        raise ProtocolError("the change feed sent a page longer than its limit")
    if any(not ask.start <= entry.ticks < ask.end for entry in entries):
        raise ProtocolError("the change feed sent an entry outside the time that was asked for")
    order = [(entry.ticks, entry.sequence) for entry in entries]
    if any(earlier > later for earlier, later in pairwise(order)):
        raise ProtocolError("the change feed sent a page that is not ordered by time and sequence")
