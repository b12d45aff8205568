"""One page of the change feed: asked for with the limit that it is given, decoded, checked; never cut here.

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
from dicom_etl.remote.http.request import HttpRequest
from dicom_etl.remote.http.response import NOT_JSON, HttpResponse
from dicom_etl.remote.http.retry import FailureKind, RetryableError, RetryPolicy

PATH = "/v2/changefeed"
# What ``limit`` aims at: 200 headers of 40 KB. Fewer requests are not worth the memory: each connection holds a page.
PAGE_BYTES = 8 << 20
# Where the headers have just become larger: given up then, and asked for in parts.
LARGEST_PAGE_BYTES = 2 * PAGE_BYTES


@dataclass(frozen=True, slots=True)
class PageRequest:
    """What a page is asked for: up to ``limit`` entries of [start, end) after the first ``offset``."""

    start: int
    end: int
    offset: int
    limit: int
    metadata: bool = True

    def bare(self) -> PageRequest:
        return replace(self, metadata=False)


@dataclass(frozen=True, slots=True)
class Page:
    """The entries of one answer in the service's order, and the size of its body."""

    entries: list[Entry]
    size_bytes: int


def request_page(client: HttpClient, page_request: PageRequest, retry_policy: RetryPolicy) -> Page:
    """The page, with the client's retries.

    Raises body.TooLarge when more than one entry was asked for and the body is over LARGEST_PAGE_BYTES;
    ProtocolError when the page is not what was asked for; else as ``HttpClient.send``.
    """
    request = HttpRequest(
        PATH,
        params={
            "startTime": format_instant(page_request.start),
            "endTime": format_instant(page_request.end),
            "offset": str(page_request.offset),
            "limit": str(page_request.limit),
            "includeMetadata": "true" if page_request.metadata else "false",
        },
        expect_json=True,
        # A single entry cannot be asked for in parts; it is taken whatever its size.
        max_bytes=LARGEST_PAGE_BYTES if page_request.limit > 1 else None,
    )
    return client.send(request, lambda response: _read(response, page_request), retry_policy)


def _read(response: HttpResponse, page_request: PageRequest) -> Page:
    try:
        entries = decode_page(response.body)
    except NotJson as error:
        raise RetryableError(NOT_JSON, FailureKind.FAILING) from error
    _check(entries, page_request)
    return Page(entries, len(response.body))


def _check(entries: list[Entry], page_request: PageRequest) -> None:
    if len(entries) > page_request.limit:
        raise ProtocolError("the change feed sent a page longer than its limit")
    if any(not page_request.start <= entry.ticks < page_request.end for entry in entries):
        raise ProtocolError("the change feed sent an entry outside the time that was asked for")
    order = [(entry.ticks, entry.sequence) for entry in entries]
    if any(earlier > later for earlier, later in pairwise(order)):
        raise ProtocolError("the change feed sent a page that is not ordered by time and sequence")
