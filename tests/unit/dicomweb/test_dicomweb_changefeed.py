"""Reading the feed against a small service of its own: each row once, the cut exact, the cost bounded."""

from __future__ import annotations

import json
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_etl.core.entry import Entry
from dicom_etl.core.errors import ProtocolError, ServiceUnavailable
from dicom_etl.core.settings.model import Dicom
from dicom_etl.core.timerange import Window
from dicom_etl.dicomweb.connect import connect
from dicom_etl.dicomweb.feed import parallel, waiting
from dicom_etl.dicomweb.feed.bad_entries import Budget
from dicom_etl.dicomweb.feed.entry_limit import EntryLimit
from dicom_etl.dicomweb.feed.page import Page, PageRequest
from dicom_etl.dicomweb.feed.paging import Cursor
from dicom_etl.dicomweb.feed.parallel import SliceOptions, SliceReader
from dicom_etl.dicomweb.feed.reader import FeedReader, FeedReadResult, read_at, read_feed, refetch, service_now
from dicom_etl.remote.http.body import TooLarge
from dicom_etl.remote.http.client import HttpClient
from support.broken import Mutant, assert_caught
from support.examples import examples
from support.reading import read_with

SECOND = 10_000_000
HOUR = 3600 * SECOND
NOON = 1_767_268_800 * SECOND  # 2026-01-01T12:00:00Z, a multiple of an hour
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Row = tuple[int, int]  # ticks, sequence


def text_of(ticks: int) -> str:
    """As the service writes it: +00:00, zeros at the end of the fraction left out."""
    moment = (EPOCH + timedelta(seconds=ticks // SECOND)).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{ticks % SECOND:07d}".rstrip("0") if ticks % SECOND else ""
    return moment + fraction + "+00:00"


def ticks_of(text: str) -> int:
    """Of a query parameter: whole seconds or a fraction, with Z."""
    head, _, fraction = text.removesuffix("Z").partition(".")
    moment = datetime.strptime(head + "+0000", "%Y-%m-%dT%H:%M:%S%z")
    return (moment - EPOCH) // timedelta(seconds=1) * SECOND + int(fraction.ljust(7, "0") if fraction else 0)


@dataclass
class Asked:
    start: int
    end: int
    offset: int
    limit: int
    metadata: bool


@dataclass
class Feed:
    """A change feed; ``poison`` fails pages with metadata, ``down`` all.

    design/service-protocol.md: Feed parameters.
    """

    rows: list[Row]
    poison: set[int] = field(default_factory=set)
    poison_requests: int | None = None
    fail: Callable[[], httpx.Response] = lambda: httpx.Response(503, text="busy")
    down: int = 0
    entry: Callable[[int, int, bool], object] | None = None
    after: Callable[[Feed, Asked, list[Row]], None] | None = None
    latency_seconds: float = 0.0
    asked: list[Asked] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0

    def __post_init__(self) -> None:
        self.rows.sort()
        self.lock = threading.Lock()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v2/changefeed"
        assert b"+" not in request.url.query
        query = dict(parse_qsl(request.url.query.decode(), strict_parsing=True))
        assert query["startTime"].endswith("Z")
        ask = Asked(
            ticks_of(query["startTime"]),
            ticks_of(query["endTime"]),
            int(query["offset"]),
            int(query["limit"]),
            query["includeMetadata"] == "true",
        )
        assert ask.end > ask.start
        assert 1 <= ask.limit <= 200
        if not self.latency_seconds:
            with self.lock:
                return self.answer(ask)
        with self.lock:
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        time.sleep(self.latency_seconds)
        with self.lock:
            self.under_way -= 1
            return self.answer(ask)

    def answer(self, ask: Asked) -> httpx.Response:
        self.asked.append(ask)
        if self.down > 0:
            self.down -= 1
            return self.fail()
        low, high = bisect_left(self.rows, (ask.start, -1)), bisect_left(self.rows, (ask.end, -1))
        page = self.rows[low:high][ask.offset : ask.offset + ask.limit]
        bad = ask.metadata and self.poison.intersection(sequence for _, sequence in page)
        if bad and self.poison_requests != 0:
            self.poison_requests = None if self.poison_requests is None else self.poison_requests - 1
            return self.fail()
        body = [(self.entry or default_entry)(ticks, sequence, ask.metadata) for ticks, sequence in page]
        if self.after is not None:
            self.after(self, ask, page)
        return as_page(body)


def default_entry(ticks: int, sequence: int, metadata: bool) -> dict[str, object]:
    entry: dict[str, object] = {
        "sequence": sequence,
        "partitionName": "Microsoft.Default",
        "sopInstanceUid": f"1.2.{sequence}",
        "action": "Create",
        "timestamp": text_of(ticks),
        "state": "Current",
    }
    return {**entry, "metadata": {"00080060": {"vr": "CS", "Value": ["CT"]}}} if metadata else entry


def as_page(body: object) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json; charset=utf-8", "date": "Thu, 01 Jan 2026 18:00:00 GMT"}
    return httpx.Response(200, headers=headers, stream=httpx.ByteStream(content))


class Clock:
    """Time that passes only by sleeping, for many threads."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lock = threading.Lock()

    def sleep(self, seconds: float) -> None:
        with self.lock:
            self.now += seconds

    def monotonic(self) -> float:
        return self.now


def client_of(
    service: Callable[[httpx.Request], httpx.Response], connections: int = 4, clock: Clock | None = None
) -> HttpClient:
    clock = clock or Clock()
    dicom = Dicom("http://svc.example", 2, "none", "T", connections, 100.0, 300.0)
    transport = httpx.MockTransport(service)
    return connect(dicom, sleep=clock.sleep, monotonic=clock.monotonic, transport=transport)


def read(
    feed: Callable[[httpx.Request], httpx.Response], window: Window, **options: object
) -> tuple[FeedReadResult, list[Entry]]:
    """The reading and what the sink got, checked to have come from the calling thread."""
    got: list[Entry] = []
    caller = threading.get_ident()

    def sink(entries: list[Entry]) -> None:
        assert threading.get_ident() == caller
        got.extend(entries)

    chosen = {"batch_size": 200, "connections": 4, **options}
    with client_of(feed, chosen["connections"]) as client:
        reading = read_with(client, window, sink, **chosen)
    return reading, got


def rows_of(entries: list[Entry]) -> list[Row]:
    return sorted((entry.ticks, entry.sequence) for entry in entries)


# Rows with many ties (few moments), spread (any tick of an hour) or both, sequences crossed with time.
moments = st.one_of(
    st.integers(0, 5).map(lambda n: NOON + n * 600 * SECOND),
    st.integers(NOON, NOON + HOUR - 1),
    st.integers(NOON, NOON + 30),
)
feeds = st.lists(moments, max_size=120).flatmap(
    lambda ticks: st.permutations(range(1, len(ticks) + 1)).map(lambda order: sorted(zip(ticks, order, strict=True)))
)
many = settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])


@many
@given(rows=feeds, batch_size=st.integers(1, 9), connections=st.integers(1, 5))
def test_every_row_comes_exactly_once(rows: list[Row], batch_size: int, connections: int) -> None:
    """Whatever the ties, the density, the page size and the connections; and the requests stay in proportion."""
    feed = Feed(rows)
    reading, got = read(feed, Window(NOON, NOON + HOUR), batch_size=batch_size, connections=connections)
    assert rows_of(got) == rows
    assert reading == FeedReadResult(Window(NOON, NOON + HOUR), len(rows), 0, len(feed.asked), reading.slices)
    assert reading.pages <= len(rows) / batch_size + reading.slices
    assert reading.slices <= 1 + connections * (len(rows) // batch_size)
    tie = max(Counter(ticks for ticks, _ in rows).values(), default=0)
    assert all(ask.offset <= tie for ask in feed.asked)


@many
@given(
    rows=feeds,
    edges=st.tuples(st.integers(0, HOUR), st.integers(0, HOUR)),
    batch_size=st.integers(1, 9),
)
def test_a_window_is_half_open_to_the_tick(rows: list[Row], edges: tuple[int, int], batch_size: int) -> None:
    """Rows at the start are in, rows at the end are out, to 100 ns."""
    start, end = NOON + min(edges), NOON + max(edges)
    reading, got = read(Feed(rows), Window(start, end), batch_size=batch_size)
    assert rows_of(got) == [row for row in rows if start <= row[0] < end]
    assert reading.entries == len(got)


@many
@given(
    ticks=st.lists(st.integers(0, 2000), max_size=150),
    start=st.integers(0, 300),
    length=st.integers(0, 1800),
    grid=st.sampled_from([7, 50, 100, 1000]),
    max_entries=st.integers(1, 60),
    batch_size=st.integers(1, 9),
    connections=st.integers(1, 5),
)
def test_the_cut_is_exact(
    ticks: list[int],
    start: int,
    length: int,
    grid: int,
    max_entries: int,
    batch_size: int,
    connections: int,
) -> None:
    """The cut is the last edge with no more than so many rows before it, but the first window is always whole."""
    rows = sorted((tick, number) for number, tick in enumerate(ticks, 1))
    window = Window(start, start + length)
    edges = [edge for edge in range(0, window.end, grid) if edge > start] + [window.end]
    allowed = [e for e in edges if sum(start <= t < e for t in ticks) <= max_entries]
    expected = max([edges[0], *allowed])

    reading, got = read(
        Feed(rows),
        window,
        batch_size=batch_size,
        connections=connections,
        max_entries=max_entries,
        grid_ticks=grid,
    )

    assert reading.window == Window(start, expected)
    inside = [row for row in rows if start <= row[0] < expected]
    assert [row for row in rows_of(got) if row[0] < expected] == inside
    assert reading.entries == len(inside)
    assert len(set(rows_of(got))) == len(got)


@many
@given(
    rows=feeds.filter(bool),
    batch_size=st.integers(1, 6),
    behind=st.lists(st.booleans(), min_size=1, max_size=3),
    first=st.integers(1, 5),
)
def test_rows_that_arrive_late_within_a_tie_are_found(
    rows: list[Row], batch_size: int, behind: list[bool], first: int
) -> None:
    """A row that appears at the last timestamp seen, before or behind the rows seen there, is not missed."""
    waiting = [3000 + n if later else 1000 + n for n, later in enumerate(behind)]
    added: list[Row] = []

    def arrive(feed: Feed, ask: Asked, page: list[Row]) -> None:
        if waiting and len(page) == ask.limit and len(feed.asked) >= first:
            row = (page[-1][0], waiting.pop())
            added.append(row)
            feed.rows.append(row)
            feed.rows.sort()

    shifted = [(ticks, sequence + 2000) for ticks, sequence in rows]
    reading, got = read(
        Feed(list(shifted), after=arrive), Window(NOON, NOON + HOUR), batch_size=batch_size, connections=1
    )
    assert rows_of(got) == sorted(shifted + added)
    assert reading.entries == len(got)


def test_late_rows_do_arrive_in_that_test() -> None:
    """The one case in plain numbers: 3 of a tie seen, a fourth arrives in front of them, none is lost."""
    tie = [(NOON + 5, n) for n in (10, 20, 30)]

    def arrive(feed: Feed, _ask: Asked, _page: list[Row]) -> None:
        if len(feed.asked) == 1:
            feed.rows = sorted([*feed.rows, (NOON + 5, 1)])

    feed = Feed([*tie, (NOON + 6, 40), (NOON + 6, 50)], after=arrive)
    reading, got = read(feed, Window(NOON, NOON + HOUR), batch_size=3, connections=1)
    assert [entry.sequence for entry in got] == [10, 20, 30, 1, 40, 50]
    assert (reading.entries, reading.repeated) == (6, 1)
    asked = [(ask.start - NOON, ask.offset) for ask in feed.asked]
    assert asked == [(0, 0), (5, 3), (5, 0), (5, 3), (6, 0)]


def test_entries_listed_twice_count_once() -> None:
    """A service that lists each row twice is read to the end, each row once; the rest is counted."""
    rows = [(NOON + n // 3, n) for n in range(1, 40)]
    twice = Feed(sorted(rows * 2))
    reading, got = read(twice, Window(NOON, NOON + HOUR), batch_size=7, connections=1)
    assert rows_of(got) == rows
    assert reading.entries == 39
    assert reading.repeated > 0


# -- parallel reading and its cost


def test_an_even_feed_is_read_side_by_side_with_few_requests() -> None:
    """20 000 rows on 8 connections: all connections work, and hardly a page is wasted."""
    rows = [(NOON + n * 1_800_000 - n % 7, n) for n in range(1, 20_001)]
    # 50 ms: with 4 ms a busy machine answered the first request before it had begun the eighth (CI, 2 cores).
    feed = Feed(rows, latency_seconds=0.05)
    reading, got = read(feed, Window(NOON, NOON + HOUR), connections=8)
    assert len(got) == 20_000
    assert feed.most_under_way == 8
    assert reading.slices <= 40
    assert len(feed.asked) <= 20_000 / 200 * 1.1 + reading.slices
    assert max(ask.offset for ask in feed.asked) <= 1


def test_connections_adapt_to_a_service_that_throttles() -> None:
    """A service that takes two requests at once is read completely by eight connections, with few refusals."""
    rows = [(NOON + n * SECOND, n) for n in range(1, 3001)]
    feed = Feed(rows, latency_seconds=0.002)
    refused: list[None] = []

    def service(request: httpx.Request) -> httpx.Response:
        if feed.under_way >= 2:
            refused.append(None)
            return httpx.Response(429)
        return feed(request)

    class Hasty(Clock):
        """Waits are real here, a fiftieth as long: the others need time to finish."""

        def sleep(self, seconds: float) -> None:
            time.sleep(seconds / 50)

    got: list[Entry] = []
    with client_of(service, 8, Hasty()) as client:
        reading = read_feed(FeedReader(client, 10, 8), Window(NOON, NOON + HOUR), got.extend)
    assert rows_of(got) == rows
    assert refused
    assert len(refused) <= reading.pages


def test_empty_years_cost_few_pages() -> None:
    """One busy hour in 57 empty years: the empty time is not walked through, the hour is read in parallel."""
    rows = [(NOON + n * 7_000_000, n) for n in range(1, 5001)]
    feed = Feed(rows)
    reading, got = read(feed, Window(0, NOON + 2 * HOUR), connections=8)
    assert len(got) == 5000
    assert reading.pages <= 25 + reading.slices
    assert reading.slices <= 60

    empty = Feed([])
    assert read(empty, Window(0, NOON), connections=8)[0].pages == 1


def test_the_waste_behind_a_cut_is_bounded() -> None:
    """With 1 000 of 50 000 rows wanted in hourly windows, little more than those is read."""
    rows = [(NOON + n * 30 * SECOND, n) for n in range(50_000)]
    feed = Feed(rows)
    reading, got = read(feed, Window(0, NOON + 500 * HOUR), connections=8, max_entries=1000, grid_ticks=HOUR)
    assert reading.window == Window(0, NOON + 8 * HOUR)
    assert reading.entries == 960
    assert len(got) <= 3000
    assert len(feed.asked) <= 20


def test_a_single_tie_larger_than_many_pages_is_read() -> None:
    """1 000 rows of one moment (the deletion of a study): the tie costs offsets, nothing else does."""
    rows = [(NOON + 5, n) for n in range(1, 1001)] + [(NOON + 9, 2000)]
    feed = Feed(rows)
    reading, got = read(feed, Window(NOON, NOON + HOUR), connections=4)
    assert rows_of(got) == rows
    assert reading.repeated == 0


def test_progress_is_told_in_the_callers_thread() -> None:
    """Pages and entries so far, growing, the last time complete."""
    told: list[tuple[int, int]] = []
    rows = [(NOON + n, n) for n in range(1, 51)]
    reading, _ = read(Feed(rows), Window(NOON, NOON + HOUR), batch_size=10, progress=lambda *now: told.append(now))
    assert told == sorted(told)
    assert told[-1][1] == 50
    assert 5 <= told[-1][0] <= reading.pages


def test_a_slow_sink_holds_the_connections_back() -> None:
    """While the sink works, only a bounded number of pages waits in memory."""
    rows = [(NOON + n * SECOND, n) for n in range(1, 2001)]
    feed = Feed(rows)
    ahead: list[int] = []
    taken = 0

    def sink(_entries: list[Entry]) -> None:
        nonlocal taken
        time.sleep(0.002)
        taken += 1
        ahead.append(len(feed.asked) - taken)

    with client_of(feed) as client:
        reading = read_feed(FeedReader(client, 10, 4), Window(NOON, NOON + HOUR), sink)
    assert reading.entries == 2000
    # As many as wait, as many as are under way, and the empty pages at the ends of slices.
    assert max(ahead) <= 4 + 4 + reading.slices


def test_a_page_aims_at_8_mib() -> None:
    """One over 16 MiB is given up and asked for in halves; then the last page's size decides, upwards in doubles."""
    pad = "x" * (1 << 20)

    def entry(ticks: int, sequence: int, metadata: bool) -> object:
        row = default_entry(ticks, sequence, metadata)
        return {**row, "metadata": {"00080060": {"vr": "LT", "Value": [pad]}}} if sequence <= 40 else row

    feed = Feed([(NOON + n, n) for n in range(1, 201)], entry=entry)
    reading, got = read(feed, Window(NOON, NOON + HOUR), batch_size=48, connections=1)
    assert [e.sequence for e in got] == list(range(1, 201))
    assert reading.entries == 200
    assert [ask.limit for ask in feed.asked] == [48, 24, 12, 7, 7, 7, 7, 7, 14, 28, 48, 48, 48]


def _check_large_headers() -> None:
    """2 000 entries of 300 KB, ten connections, and a sink that lags behind."""
    rows = [Entry(n, "", ticks=NOON + n * SECOND) for n in range(2_000)]
    lock = threading.Lock()
    sizes: list[int] = []
    refused: list[int] = []

    def fetch(ask: PageRequest) -> Page:
        page = [row for row in rows if ask.start <= row.ticks < ask.end][ask.offset : ask.offset + ask.limit]
        size = len(page) * 300_000
        with lock:
            (refused if size > 16 << 20 else sizes).append(size)
        if size > 16 << 20:
            raise TooLarge
        return Page(page, size)

    window = Window(NOON, NOON + HOUR)
    reader = SliceReader(
        fetch,
        NOON,
        EntryLimit(window, None, None),
        SliceOptions(connections=10, batch_size=200, metadata=True),
        threading.Event(),
    )
    got: list[int] = []
    with reader:
        for entries in reader:
            got += [entry.sequence for entry in entries]
            time.sleep(0.005)
    assert sorted(got) == list(range(2_000))
    assert [size // 300_000 for size in refused] == [200, 100], "only the first pages are too large"
    assert sizes[0] == 50 * 300_000
    assert max(sizes[1:]) <= 8 << 20, "a page aims at 8 MiB"
    assert 8 << 20 <= reader.waiting.most_bytes <= 64 << 20, "what waits is bounded"


def test_pages_of_large_headers_are_bounded_by_bytes() -> None:
    """Each page, on whatever connection, and all that wait together."""
    _check_large_headers()


@pytest.mark.parametrize(
    "mutant",
    [
        Mutant("a page aims at 8 MiB", _check_large_headers, parallel, "PAGE_BYTES", 32 << 20, "a page aims at 8 MiB"),
        Mutant("what waits is bounded", _check_large_headers, waiting, "MOST_BYTES", 1 << 40, "what waits is bounded"),
        Mutant("a slice begins as the others go", _check_large_headers, Cursor, "__post_init__",
               lambda cursor: setattr(cursor, "limit", cursor.batch_size), "only the first pages are too large"),
    ],
    ids=lambda mutant: mutant.rule,
)  # fmt: skip
def test_pages_without_bounds_are_caught(mutant: Mutant) -> None:
    """Broken twins of the rules above."""
    assert_caught(mutant)


def test_one_page_waits_whatever_its_size() -> None:
    """Else a single header of 70 MiB would never be taken; beside others it waits for room."""
    pages = waiting.Waiting(most_pages=3)
    large, small = Page([], 70 << 20), Page([], 1)
    assert pages.has_room(large)
    pages.put(large)
    assert not pages.has_room(small)
    assert pages.take() is large
    for _ in range(3):
        assert pages.has_room(small)
        pages.put(small)
    assert not pages.has_room(small)
    assert (len(pages), pages.most_bytes) == (3, 70 << 20)


# -- a service that breaks its protocol


def paged(change: Callable[[list[dict[str, object]], Asked], object]) -> Callable[[httpx.Request], httpx.Response]:
    """A feed of 20 rows, ten to a page, whose pages are changed on the way."""
    feed = Feed([(NOON + n * 10, n) for n in range(1, 21)])

    def service(request: httpx.Request) -> httpx.Response:
        body = json.loads(b"".join(feed(request).stream))
        return as_page(change(body, feed.asked[-1]))

    return service


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda body, _: [*body, {**body[-1], "sequence": 99}], "longer than its limit"),
        (lambda body, _: body[::-1], "not ordered"),
        (lambda body, _: [{**body[0], "timestamp": "2020-01-01T00:00:00Z"}, *body[1:]], "outside the time"),
        (lambda body, _: [*body[:-1], {**body[-1], "timestamp": "2027-01-01T00:00:00Z"}], "outside the time"),
        (lambda body, _: [*body[:-1], 5], "without sequence"),
        (lambda body, _: [*body[:-1], None], "without sequence"),
        (lambda body, _: [*body[:-1], {**body[-1], "sequence": "20"}], "without sequence"),
        (lambda body, _: [*body[:-1], {**body[-1], "sequence": 1.5}], "without sequence"),
        (lambda body, _: [*body[:-1], {**body[-1], "sequence": 2**64}], "no 64 bit number"),
        (lambda body, _: [*body[:-1], {**body[-1], "timestamp": "yesterday"}], "cannot be read"),
        (lambda body, _: [*body[:-1], {**body[-1], "timestamp": "2026-01-01T12:00:00"}], "cannot be read"),
        (lambda body, _: [*body[:-1], {**body[-1], "timestamp": None}], "without sequence"),
        (lambda body, _: {"value": body}, "no list"),
    ],
)
def test_broken_protocol_is_an_error_without_values(
    change: Callable[[list[dict[str, object]], Asked], object], message: str
) -> None:
    """Pages that cannot be a page of this feed end the reading with 70, and nothing of them is quoted."""
    with pytest.raises(ProtocolError, match=message) as caught:
        read(paged(change), Window(NOON, NOON + HOUR), batch_size=10)
    assert caught.value.exit_code == 70
    assert not any(sign in str(caught.value) for sign in ("1.2.", "2020", "2027", "yesterday"))


@pytest.mark.parametrize("ticks", [NOON, NOON + 5])
def test_a_page_that_repeats_for_ever_is_an_error(ticks: int) -> None:
    """A service that gives one full page whatever it is asked ends with 70, also when it is a tie."""
    body = [default_entry(ticks + (n if ticks == NOON else 0), n, True) for n in range(10)]
    requests: list[None] = []

    def service(_request: httpx.Request) -> httpx.Response:
        requests.append(None)
        return as_page(body)

    with pytest.raises(ProtocolError):
        read(service, Window(NOON, NOON + HOUR), batch_size=10)
    assert len(requests) <= 30


# -- odd entries


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({"metadata": 5}, "metadata-not-object"),
        ({"metadata": "text"}, "metadata-not-object"),
        ({"metadata": []}, "metadata-not-object"),
        ({"sopInstanceUid": 5}, "field-not-text"),
        ({"action": ["Create"]}, "field-not-text"),
        ({"filePath": {}}, "field-not-text"),
        ({"metadata": None}, None),
        ({"sopInstanceUid": None}, None),
        ({"action": "Explode"}, None),
        ({"timestamp": "2026-01-01T12:00:00.0000070Z"}, None),
        ({"timestamp": "2026-01-01T13:00:00.000007+01:00"}, None),
        ({"surprise": {"deep": [1]}, "__ticks": 7, "__unreadable": "no"}, None),
    ],
)
def test_an_odd_entry_is_one_entry_with_its_reason(odd: dict[str, object], reason: str | None) -> None:
    """Odd fields cost only what is odd: the page goes on, the entry keeps sequence and time."""

    def entry(ticks: int, sequence: int, metadata: bool) -> object:
        row = default_entry(ticks, sequence, metadata)
        return {**row, **odd} if sequence == 7 else row

    feed = Feed([(NOON + n * 10, n) for n in range(1, 21)], entry=entry)
    _, got = read(feed, Window(NOON, NOON + HOUR), batch_size=50)
    assert rows_of(got) == feed.rows
    by_sequence = {e.sequence: e for e in got}
    assert {n: e.unreadable for n, e in by_sequence.items() if e.unreadable} == ({7: reason} if reason else {})
    assert by_sequence[7].has_metadata == (reason is None and odd.get("metadata", "as usual") is not None)
    assert all(e.has_metadata for n, e in by_sequence.items() if n != 7)
    assert len(feed.asked) == 1


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (b'"metadata": {"00100010": "\xff\xfe"}', "metadata-not-utf8"),
        (b'"metadata": {}, "action": "Cr\xffeate"', "field-not-text"),
        (b'"metadata": {}, "partitionName": "cl\xffinic"', "field-not-text"),
        (b'"metadata": {"00100010": "\xc3\xa4\xf0\x9f\x98\x80"}', None),
        (b'"metadata": ' + b'{"a":[' * 60 + b"]}" * 60, None),
    ],
)
def test_bytes_that_are_no_utf8_cost_only_their_entry(broken: bytes, reason: str | None) -> None:
    """Invalid UTF-8 in one entry leaves the others alone; valid text beyond ASCII and deep nesting pass."""

    def service(_request: httpx.Request) -> httpx.Response:
        rows = [json.dumps(default_entry(NOON + n, n, True)).encode() for n in range(1, 6)]
        row = json.dumps(default_entry(NOON + 3, 3, False)).encode()
        rows[2] = row[:-1] + b", " + broken + b"}"
        return as_page(b"[" + b",".join(rows) + b"]")

    _, got = read(service, Window(NOON, NOON + HOUR))
    assert [e.sequence for e in got] == [1, 2, 3, 4, 5]
    assert [e.unreadable for e in got] == [None, None, reason, None, None]
    assert [e.has_metadata for e in got] == [True, True, reason is None, True, True]


def test_metadata_comes_verbatim() -> None:
    """The bytes of the metadata are those of the body, spaces and number forms included."""
    verbatim = b'{ "00280030":{"vr":"DS","Value":[1.0, 1e0,"\\u00e4"]} }'

    def service(_request: httpx.Request) -> httpx.Response:
        row = json.dumps(default_entry(NOON, 1, False)).encode()
        return as_page(b"[" + row[:-1] + b', "metadata": ' + verbatim + b"}]")

    _, (entry,) = read(service, Window(NOON, NOON + HOUR))
    assert bytes(entry.metadata) == verbatim
    assert (entry.ticks, entry.action, entry.sop_instance_uid) == (NOON, "Create", "1.2.1")


# -- poisoned pages

BUSY = lambda: httpx.Response(503, text="busy")  # noqa: E731
BROKEN = lambda: httpx.Response(500, text="error")  # noqa: E731
NAN = lambda: as_page(b'[{"sequence": 1, "metadata": {"a": NaN}}]')  # noqa: E731


@settings(max_examples=examples(100), deadline=None)
@given(
    rows=feeds.filter(bool),
    data=st.data(),
    batch_size=st.integers(1, 16),
    connections=st.integers(1, 4),
    fail=st.sampled_from([BUSY, BROKEN, NAN]),
)
def test_poisoned_entries_come_without_metadata_and_the_others_with(
    rows: list[Row], data: st.DataObject, batch_size: int, connections: int, fail: Callable[[], httpx.Response]
) -> None:
    """Wherever they lie, in ties too: each bad entry alone is unreadable, at a bounded number of requests."""
    poison = data.draw(st.sets(st.sampled_from([sequence for _, sequence in rows]), max_size=10))
    feed = Feed(rows, poison=set(poison), fail=fail)
    reading, got = read(feed, Window(NOON, NOON + HOUR), batch_size=batch_size, connections=connections)
    assert rows_of(got) == rows
    assert {e.sequence for e in got if e.unreadable == "metadata-unavailable"} == poison
    assert all(e.has_metadata != (e.sequence in poison) for e in got)
    assert reading.repeated == 0
    # A poisoned page: 4 attempts, 1 without metadata; an entry: at most 2 parts, 2 attempts, 1 without.
    assert len(feed.asked) <= reading.pages + len(poison) * (5 + batch_size.bit_length() * 2 + 4)


def test_one_bad_entry_of_a_full_page_costs_some_two_dozen_requests() -> None:
    """200 rows, one bad: four attempts, one look without metadata, then halves down to the entry."""
    feed = Feed([(NOON + n, n) for n in range(1, 201)], poison={77})
    _, got = read(feed, Window(NOON, NOON + HOUR))
    assert [e.sequence for e in got if e.unreadable] == [77]
    assert len(got) == 200
    assert len(feed.asked) <= 28


def test_a_bad_entry_deep_in_a_tie_is_found_by_its_place_in_the_tie() -> None:
    """Eight entries of one moment, the sixth bad, four to a page: the parts count from the tie's first entry."""
    feed = Feed([(NOON + 5, n) for n in range(1, 9)], poison={6})
    _, got = read(feed, Window(NOON, NOON + HOUR), batch_size=4, connections=1)
    assert [(e.sequence, e.unreadable) for e in got if e.unreadable] == [(6, "metadata-unavailable")]
    assert [e.sequence for e in got] == [1, 2, 3, 4, 5, 6, 7, 8]
    parts = [(ask.offset, ask.limit) for ask in feed.asked if ask.limit < 4]
    assert parts == [(4, 2), (4, 1), (5, 1), (5, 1), (5, 1), (6, 2)]


def test_poison_that_heals_leaves_nothing_unreadable() -> None:
    """A page that fails for a while is read whole."""
    feed = Feed([(NOON + n, n) for n in range(1, 101)], poison={50}, poison_requests=3)
    reading, got = read(feed, Window(NOON, NOON + HOUR))
    assert len(got) == 100
    assert not [e for e in got if e.unreadable]
    assert reading.pages == 1


def test_a_bad_entry_alone_in_its_window_is_found() -> None:
    """The only entry of a window is bad: it comes, without metadata."""
    feed = Feed([(NOON + 3, 9)], poison={9})
    _, (entry,) = read(feed, Window(NOON, NOON + HOUR))
    assert (entry.sequence, entry.unreadable, entry.has_metadata) == (9, "metadata-unavailable", False)


def test_a_service_without_any_metadata_is_unavailable() -> None:
    """When 20 000 entries in a row, and one that was read before, come without metadata, it is no night of rejects."""
    rows = [(NOON + n * SECOND // 10, n) for n in range(1, 20_001)]
    feed = Feed(rows, poison=set(range(1, 20_001)))
    with pytest.raises(ServiceUnavailable, match="cannot give any metadata"):
        read(feed, Window(NOON, NOON + HOUR), poison_requests=500)
    assert 0 < len(feed.asked) <= 4_000


def test_thousands_of_bad_entries_cost_a_bounded_number_of_requests() -> None:
    """20 000 bad entries after good ones: after the run's budget the rest is taken without looking closer."""
    rows = [(NOON + n * SECOND // 10, n) for n in range(1, 21_001)]
    feed = Feed(rows, poison=set(range(1001, 21_001)))
    reading, got = read(feed, Window(NOON, NOON + HOUR), poison_requests=500)
    assert len(got) == 21_000
    reasons = Counter(e.unreadable for e in got)
    assert set(reasons) == {None, "metadata-unavailable", "metadata-not-tried"}
    assert reasons[None] == 1_000
    assert reasons["metadata-unavailable"] >= 100
    assert len(feed.asked) <= 6 * reading.pages + 4 * 500


def test_an_outage_is_waited_out_and_poisons_nothing() -> None:
    """When the service fails without metadata too, it is an outage: nothing is given up for it."""
    feed = Feed([(NOON + n, n) for n in range(1, 101)], down=0)

    def service(request: httpx.Request) -> httpx.Response:
        if len(feed.asked) == 1 and not feed.down:
            feed.down = 11
        return feed(request)

    reading, got = read(service, Window(NOON, NOON + HOUR), batch_size=60)
    assert len(got) == 100
    assert feed.down == 0
    assert not [e for e in got if e.unreadable]
    assert reading.entries == 100


def test_an_outage_to_the_end_is_unavailable() -> None:
    """A service that never comes back is 75, within the time for one request and a bounded count."""
    clock = Clock()
    feed = Feed([(NOON, 1)], down=10**9)
    with (
        client_of(feed, clock=clock) as client,
        pytest.raises(ServiceUnavailable, match=r"svc.example .*status 503"),
    ):
        read_feed(FeedReader(client, 10, 2), Window(NOON, NOON + 1), lambda _: None)
    assert clock.now <= 31
    assert len(feed.asked) <= 60


# -- ends


def test_a_failing_worker_ends_the_others() -> None:
    """One thread's error is raised in the caller and no thread stays behind."""
    rows = [(NOON + n * SECOND, n) for n in range(1, 3001)]
    feed = Feed(rows, latency_seconds=0.001)

    def service(request: httpx.Request) -> httpx.Response:
        return httpx.Response(403) if len(feed.asked) > 40 else feed(request)

    before = threading.active_count()
    with pytest.raises(Exception, match="assign the role DICOM Data Reader"):
        read(service, Window(NOON, NOON + HOUR), batch_size=10, connections=6)
    _assert_threads_end(before)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interrupted_reading_leaves_no_thread(error: type[BaseException]) -> None:
    """Ctrl-C in the sink, or its own error, ends the threads too."""
    rows = [(NOON + n * SECOND, n) for n in range(1, 3001)]

    def sink(_entries: list[Entry]) -> None:
        raise error

    before = threading.active_count()
    with client_of(Feed(rows, latency_seconds=0.001)) as client, pytest.raises(error):
        read_feed(FeedReader(client, 10, 6), Window(NOON, NOON + HOUR), sink)
    _assert_threads_end(before)


def _assert_threads_end(before: int) -> None:
    for _ in range(200):
        if threading.active_count() <= before:
            return
        time.sleep(0.01)
    pytest.fail("a thread stayed behind")


def test_an_empty_window_asks_nothing() -> None:
    """[t, t) holds nothing, and the service would refuse the question."""
    feed = Feed([(NOON, 1)])
    reading, got = read(feed, Window(NOON, NOON))
    assert (reading.entries, reading.pages, got, feed.asked) == (0, 0, [], [])


def test_a_cut_without_a_grid_is_a_bug() -> None:
    """max_entries needs the edges to cut at."""
    with pytest.raises(ValueError, match="edges of a grid"):
        read(Feed([]), Window(NOON, NOON + 1), max_entries=5)


# -- single entries


def test_entries_are_read_again_by_microsecond_and_sequence() -> None:
    """Tables remember microseconds: all 100 ns of one are looked through, and only the wanted come back, if whole."""
    rows = [(NOON + 19, 1), (NOON + 20, 2), (NOON + 27, 3), (NOON + 27, 4), (NOON + 29, 5), (NOON + 30, 6)]
    feed = Feed(rows, poison={4})
    with client_of(feed) as client:
        got = refetch(client, NOON + 20, [2, 4, 5, 6, 77], Budget())
    assert [(e.sequence, e.ticks - NOON, e.unreadable, e.has_metadata) for e in got] == [
        (2, 20, None, True),
        (5, 29, None, True),
    ]


def test_whether_an_entry_is_still_served_costs_one_request() -> None:
    """Without metadata the question is one page."""
    feed = Feed([(NOON + 20, 2), (NOON + 20, 3)])
    with client_of(feed) as client:
        assert [e.sequence for e in read_at(client, NOON + 20, [3])] == [3]
        assert read_at(client, NOON + 20, [9]) == []
    assert [ask.metadata for ask in feed.asked] == [False, False]


def test_the_services_clock_is_asked_cheaply() -> None:
    """One request for one entry without metadata of a time before there was DICOM tells what time it is."""
    feed = Feed([(NOON, 1)])
    with client_of(feed) as client:
        assert service_now(client) == NOON + 6 * HOUR
    assert feed.asked == [Asked(0, 1, 0, 1, False)]
