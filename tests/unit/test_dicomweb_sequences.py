"""The feed by sequence against a small v1 service: ranges of numbers, no repeats, poison alone, refusals told."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

import httpx
import pytest

from dicom_etl.dicomweb.client import DicomClient, connect
from dicom_etl.dicomweb.page import LARGEST_PAGE_BYTES
from dicom_etl.dicomweb.poison import Budget
from dicom_etl.dicomweb.sequences import FeedRefused, complete, latest_by_sequence, list_sequences
from dicom_etl.entry import Entry
from dicom_etl.errors import AccessDenied, ProtocolError, ServiceUnavailable
from dicom_etl.settings import Dicom
from dicom_etl.window import parse_instant

TIME = "2026-01-01T12:00:00.0000001+00:00"


def row(sequence: int, metadata: bool) -> dict[str, object]:
    entry: dict[str, object] = {"sequence": sequence, "action": "Create", "timestamp": TIME, "state": "Current"}
    return {**entry, "metadata": {"00080060": {"vr": "CS", "Value": ["CT"]}}} if metadata else entry


def as_json(body: object, status: int = 200) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json; charset=utf-8"}
    return httpx.Response(status, headers=headers, stream=httpx.ByteStream(content))


@dataclass
class Feed:
    """A v1 feed by service-protocol §2.1; ``poison`` fails pages with metadata, ``down`` requests fail at first."""

    sequences: list[int]
    poison: set[int] = field(default_factory=set)
    down: int = 0
    asked: list[tuple[int, int, bool]] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        query = dict(parse_qsl(request.url.query.decode(), strict_parsing=True))
        metadata = query["includeMetadata"] == "true"
        if request.url.path == "/v1/changefeed/latest":
            return as_json(row(max(self.sequences), metadata)) if self.sequences else httpx.Response(204)
        assert request.url.path == "/v1/changefeed"
        offset, limit = int(query["offset"]), int(query["limit"])
        assert offset >= 0
        assert 1 <= limit <= 100
        self.asked.append((offset + 1, offset + limit, metadata))
        if self.down > 0:
            self.down -= 1
            return httpx.Response(503, text="busy")
        numbers = [n for n in sorted(self.sequences) if offset < n <= offset + limit]
        if metadata and self.poison.intersection(numbers):
            return httpx.Response(503, text="busy")
        return as_json([row(number, metadata) for number in numbers])


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def monotonic(self) -> float:
        return self.now


def client_of(service: Callable[[httpx.Request], httpx.Response]) -> DicomClient:
    clock = Clock()
    dicom = Dicom("http://svc.example/root", 2, "none", "T", 4, 100.0, 300.0)
    transport = httpx.MockTransport(lambda request: service(_below_root(request)))
    return connect(dicom, sleep=clock.sleep, monotonic=clock.monotonic, transport=transport)


def _below_root(request: httpx.Request) -> httpx.Request:
    return httpx.Request(request.method, str(request.url).replace("/root/", "/", 1))


def test_a_range_of_numbers() -> None:
    """Both ends included, without metadata, with the time to 100 ns; an empty range is no error."""
    feed = Feed([1, 3, 4, 200])
    with client_of(feed) as client:
        listed = list_sequences(client, 3, 102)
        assert [(e.sequence, e.ticks, e.has_metadata) for e in listed] == [
            (3, parse_instant(TIME), False),
            (4, parse_instant(TIME), False),
        ]
        assert list_sequences(client, 5, 5) == []
    assert feed.asked == [(3, 102, False), (5, 5, False)]


@pytest.mark.parametrize(("first", "last"), [(1, 101), (5, 4)])
def test_a_range_that_the_service_would_cut_is_a_bug(first: int, last: int) -> None:
    """At most a hundred numbers, at least one."""
    with client_of(Feed([])) as client, pytest.raises(ValueError, match="1 to 100 numbers"):
        list_sequences(client, first, last)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([row(4, False)], "outside the numbers"),
        ([row(11, False)], "outside the numbers"),
        ([row(7, False), row(6, False)], "not ordered by sequence"),
        ({"sequence": 7}, "no list"),
        ([{"timestamp": TIME}], "without sequence"),
    ],
    ids=["below", "above", "out of order", "no list", "no sequence"],
)
def test_a_page_that_was_not_asked_for(body: object, message: str) -> None:
    """The service breaks its protocol: 70."""
    with client_of(lambda _: as_json(body)) as client, pytest.raises(ProtocolError, match=message):
        list_sequences(client, 5, 10)


def test_an_entry_that_is_listed_twice_comes_once() -> None:
    """As everywhere."""
    with client_of(lambda _: as_json([row(6, False), row(6, False), row(7, False)])) as client:
        assert [entry.sequence for entry in list_sequences(client, 5, 10)] == [6, 7]


def test_an_answer_that_is_cut_is_asked_for_again() -> None:
    """And a busy service is waited for."""
    bodies = [as_json(b'[{"sequence":6'), httpx.Response(429, headers={"retry-after": "1"}), as_json([row(6, False)])]
    with client_of(lambda _: bodies.pop(0)) as client:
        assert [entry.sequence for entry in list_sequences(client, 5, 10)] == [6]
        assert client.retries == 2


def test_the_largest_number() -> None:
    """Without metadata; None of an empty feed, in each of the forms that services have for it."""
    with client_of(Feed([7, 12, 3])) as client:
        latest = latest_by_sequence(client)
        assert latest is not None
        assert (latest.sequence, latest.ticks, latest.has_metadata) == (12, parse_instant(TIME), False)
    for empty in (httpx.Response(204), as_json(b""), as_json(b" null ")):
        with client_of(lambda _, answer=empty: answer) as client:
            assert latest_by_sequence(client) is None


@pytest.mark.parametrize("status", [400, 404, 405, 410, 501])
def test_a_service_without_version_1_is_told_apart(status: int) -> None:
    """No error and no retry: whoever asks goes another way."""
    requests = []

    def refuse(request: httpx.Request) -> httpx.Response:
        requests.append(request.url.path)
        return httpx.Response(status, text="no")

    with client_of(refuse) as client:
        with pytest.raises(FeedRefused):
            latest_by_sequence(client)
        with pytest.raises(FeedRefused):
            list_sequences(client, 1, 100)
    assert requests == ["/v1/changefeed/latest", "/v1/changefeed"]


def test_other_refusals_are_errors_as_everywhere() -> None:
    """403 asks for a role, a service that fails to the end is unavailable."""
    with client_of(lambda _: httpx.Response(403)) as client, pytest.raises(AccessDenied, match="Data Reader"):
        latest_by_sequence(client)
    with client_of(lambda _: httpx.Response(503)) as client, pytest.raises(ServiceUnavailable, match="503"):
        list_sequences(client, 1, 100)


def listed(*sequences: int) -> list[Entry]:
    return [Entry(sequence=sequence, timestamp=TIME, ticks=parse_instant(TIME)) for sequence in sequences]


def test_entries_with_their_metadata() -> None:
    """One request for all of them; others that lie between are left out, and nothing asks for nothing."""
    feed = Feed(list(range(1, 100)))
    with client_of(feed) as client:
        whole = complete(client, listed(3, 5, 80), Budget())
        assert complete(client, [], Budget()) == []
    assert [(e.sequence, e.has_metadata, e.unreadable) for e in whole] == [
        (3, True, None),
        (5, True, None),
        (80, True, None),
    ]
    assert feed.asked == [(3, 80, True)]


def test_poisoned_entries_are_alone_without_metadata() -> None:
    """The others whole, at few requests."""
    feed = Feed(list(range(1, 101)), poison={17, 18, 60})
    with client_of(feed) as client:
        whole = complete(client, listed(*range(1, 101)), Budget())
    assert [e.sequence for e in whole] == list(range(1, 101))
    assert {e.sequence: e.unreadable for e in whole if e.unreadable} == dict.fromkeys(
        (17, 18, 60), "metadata-unavailable"
    )
    assert sum(e.has_metadata for e in whole) == 97
    assert len(feed.asked) <= 3 * 2 * 7 * 5


def test_beyond_its_budget_poison_is_not_searched_for() -> None:
    """The entries come without metadata and say that they were not tried."""
    feed = Feed(list(range(1, 101)), poison=set(range(1, 101)))
    with client_of(feed) as client:
        whole = complete(client, listed(*range(1, 101)), Budget(3))
    assert [e.sequence for e in whole] == list(range(1, 101))
    assert {e.unreadable for e in whole} == {"metadata-not-tried"}
    assert len(feed.asked) <= 5 * (1 + 2 * 3)


def test_an_outage_is_no_poison() -> None:
    """Fails with and without metadata: waited for; when it ends, all entries are whole; when not, unavailable."""
    feed = Feed(list(range(1, 101)), down=7)
    with client_of(feed) as client:
        whole = complete(client, listed(*range(1, 101)), Budget())
    assert feed.down == 0
    assert sum(e.has_metadata for e in whole) == 100
    with client_of(lambda _: httpx.Response(503)) as client, pytest.raises(ServiceUnavailable):
        complete(client, listed(1, 2), Budget())


def test_a_page_that_is_too_large_comes_in_parts() -> None:
    """More than 64 MB for several entries: halved; one entry is taken whatever its size."""
    asked: list[int] = []

    def huge(request: httpx.Request) -> httpx.Response:
        query = dict(parse_qsl(request.url.query.decode(), strict_parsing=True))
        first, limit = int(query["offset"]) + 1, int(query["limit"])
        asked.append(limit)
        metadata = query["includeMetadata"] == "true"
        padding = b" " * (LARGEST_PAGE_BYTES + 1) if metadata and (limit > 2 or first == 1) else b""
        return as_json(padding + json.dumps([row(n, metadata) for n in range(first, first + limit)]).encode())

    with client_of(huge) as client:
        whole = complete(client, listed(1, 2, 3, 4), Budget())
    assert [(e.sequence, e.has_metadata) for e in whole] == [(1, True), (2, True), (3, True), (4, True)]
    assert asked == [4, 4, 2, 2, 1, 1, 2]
