"""The service misbehaves, over a real socket: what is landed, what is set aside, and what ends the reading.

Read at the level of feed and landing (issue 4, §3 and §4): the truth is the emulator's own store, and what was
landed is read back from the Parquet files.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow.parquet as pq
import pytest

from dicom_emulator.http.tokens import NOBODY, READER
from dicom_emulator.options import EmulatorOptions
from dicom_emulator.serve import Emulator, serve_in_thread
from dicom_emulator.state.service import DicomService
from dicom_emulator.state.uids import instance_key
from dicom_emulator.testing import corruptions
from dicom_emulator.testing.faults import Fault
from dicom_emulator.testing.random_feed import HOUR, Script, play
from dicom_etl.core.entry import Entry
from dicom_etl.core.errors import AccessDenied, ConfigurationError, DicomEtlError, ProtocolError, ServiceUnavailable
from dicom_etl.core.settings.model import Dicom
from dicom_etl.core.timerange import Window, parse_instant
from dicom_etl.dicomweb.connect import connect
from dicom_etl.dicomweb.feed.bad_entries import Budget
from dicom_etl.dicomweb.feed.reader import FeedReader, FeedReadResult, read_feed, refetch, service_now
from dicom_etl.lake.delta.folder import local_folder
from dicom_etl.landing.landing import Landed, Landing
from dicom_etl.remote.http.client import HttpClient
from support.reading import read_with

FEED = "/v2/changefeed"
START = parse_instant("2024-05-01T00:00:00Z")
WINDOW = Window(START, START + 26 * HOUR)
READ_AT = datetime(2024, 5, 3, tzinfo=UTC)
CT = b'{"00080060":{"vr":"CS","Value":["CT"]}}'
DEEP = b'{"00400555":{"vr":"SQ","Value":[' * 29 + b"{}" + b"]}}" * 29
LARGE = b'{"00080060":{"vr":"CS","Value":["CT"]},"00091001":{"vr":"UT","Value":["%b"]}}' % (b"x" * (4 << 20))

Row = dict[str, Any]


@pytest.fixture
def serving() -> Iterator[Callable[..., Emulator]]:
    """Starts services, by default one with a few hundred entries of real headers, all kinds of histories."""
    with ExitStack() as stack:

        def serve(entries: int = 240, **options: Any) -> Emulator:
            emulator = stack.enter_context(serve_in_thread(EmulatorOptions(file_paths=True, **options)))
            emulator.service.clock.freeze("2024-05-03T00:00:00Z")
            if entries:
                assert mixed(play(emulator.service, 4, entries))
            return emulator

        yield serve


def mixed(script: Script) -> bool:
    """Whether the story has what makes a feed hard to read."""
    kinds = script.kinds()
    return all(kinds[kind] for kind in ("update", "delete study", "re-create", "tie", "crossed", "other partition"))


@dataclass
class Clock:
    """Sleeps are noted; time passes as it does, or by them alone."""

    frozen: bool = False
    slept: float = 0.0
    on_sleep: Callable[[], None] = lambda: None

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.on_sleep()

    def monotonic(self) -> float:
        return 1000.0 + self.slept if self.frozen else time.monotonic()


def connected(base_url: str, clock: Clock | None = None, token: Any = None, **changes: Any) -> HttpClient:
    values = {
        "base_url": base_url, "api_version": 2, "auth": "none", "token_env": "T", "connections": 2,
        "timeout_seconds": 20.0, "retry_seconds": 300.0,
    }  # fmt: skip
    clock = clock or Clock()
    return connect(Dicom(**{**values, **changes}), token, sleep=clock.sleep, monotonic=clock.monotonic)


@dataclass
class Result:
    """What one run would have landed; `rows` as they stand in the files, by sequence."""

    reading: FeedReadResult
    landed: Landed
    rows: dict[int, Row]

    @property
    def reasons(self) -> dict[int, str]:
        return {one.sequence: one.reason for one in self.landed.unusable}


def land(client: HttpClient, folder: Path, window: Window = WINDOW, **options: Any) -> Result:
    """Reads a window into files below the folder, as a run does, and reads the files back."""
    chosen = {"batch_size": 50, "connections": 2, **options}
    folder.mkdir(exist_ok=True)
    with Landing(local_folder(str(folder)), run_id=1, read_at=READ_AT) as landing:
        reading = read_with(client, window, landing.add, **chosen)
        landed = landing.finish(reading.window.end)
    found = [row for file in landed.files for row in pq.read_table(folder / file.path).to_pylist()]
    assert len(found) == landed.entries == reading.entries
    return Result(reading, landed, {row["sequence"]: comparable(row) for row in found})


def comparable(row: Row) -> Row:
    names = ("timestampTicks", "partitionName", "action", "state", "filePath", "modality")
    uids = ("studyInstanceUid", "seriesInstanceUid", "sopInstanceUid")
    text = row["metadata"]
    return {name: row[name] for name in (*names, *uids)} | {"metadata": None if text is None else json.loads(text)}


def expected(service: DicomService, window: Window = WINDOW) -> dict[int, Row]:
    """What must be landed, from the emulator's store as it is now."""
    rows = {}
    for row in service.history.window(window.start, window.end, 0, 10**9):
        version = service.version(row.current_watermark)
        document = None if version is None else json.loads(version.metadata)
        values = (document or {}).get("00080060", {}).get("Value", [None])
        rows[row.sequence] = {
            "timestampTicks": row.ticks,
            "partitionName": row.key.partition,
            "action": row.action,
            "state": row.state,
            "filePath": row.file_path,
            "modality": values[0],
            "studyInstanceUid": row.key.study,
            "seriesInstanceUid": row.key.series,
            "sopInstanceUid": row.key.sop,
            "metadata": document,
        }
    return rows


def equal(result: Result, service: DicomService) -> bool:
    """Everything landed once, as the service holds it, and nothing set aside."""
    rows = expected(service, result.reading.window)
    assert result.rows == rows
    assert result.landed.unusable == ()
    return len(rows) > 0


# --- must converge ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        *(Fault(status=status, times=3) for status in (408, 429, 500, 502, 503, 504)),
        Fault(status=503, skip=2, times=7),
        Fault(reset=True, times=3),
        Fault(reset=True, cut_body=200, skip=1, times=3),
        Fault(cut_body=0, times=3),
        Fault(cut_body=300, skip=1, times=3),
        Fault(status=200, body="<html></html>", content_type="text/html", times=7),
        Fault(rewrite=corruptions.html, times=7),
        Fault(rewrite=corruptions.not_json, skip=1, times=7),
        Fault(rewrite=corruptions.swapped(b'"sequence":', b'"sequence"\xff'), times=3),
        Fault(truncate=100, times=3),
    ],
    ids=lambda fault: "-".join(
        str(part)
        for part in (
            fault.status, "reset" * fault.reset, fault.cut_body, fault.truncate,
            getattr(fault.rewrite, "__name__", ""), fault.content_type[:9], fault.skip, fault.times,
        )
    ),
)  # fmt: skip
def test_what_passes_is_waited_for(serving: Callable[..., Emulator], tmp_path: Path, fault: Fault) -> None:
    """Errors, resets, cut and senseless answers that stop after a while cost retries and nothing else."""
    emulator = serving()
    struck = emulator.service.faults.add(fault)
    clock = Clock()
    with connected(emulator.base_url, clock) as client:
        result = land(client, tmp_path)
    assert equal(result, emulator.service)
    assert struck.hits == fault.times
    assert client.retries > 0
    assert clock.slept > 0


@pytest.mark.parametrize(
    "fault", [Fault(times=3, truncate=300), Fault(times=3, cut_body=300), Fault(times=3, rewrite=corruptions.html)]
)
def test_compressed_answers_may_be_damaged(serving: Callable[..., Emulator], tmp_path: Path, fault: Fault) -> None:
    """A gzip stream that is truncated in an answer of the right length, or cut, is no answer."""
    emulator = serving(gzip=True)
    struck = emulator.service.faults.add(fault)
    with connected(emulator.base_url) as client:
        assert equal(land(client, tmp_path), emulator.service)
    assert (struck.hits, client.retries) == (3, 3)


@pytest.mark.parametrize(
    "fault", [Fault(trickle_seconds=0.05, times=2), Fault(delay_seconds=0.6, times=2)], ids=["trickle", "silence"]
)
def test_a_body_slower_than_the_timeout_is_asked_for_again(
    serving: Callable[..., Emulator], tmp_path: Path, fault: Fault
) -> None:
    """A byte now and then keeps no connection open: the timeout is for the whole answer."""
    emulator = serving()
    struck = emulator.service.faults.add(fault)
    began = time.monotonic()
    with connected(emulator.base_url, timeout_seconds=0.3) as client:
        result = land(client, tmp_path, connections=1)
    assert equal(result, emulator.service)
    assert (struck.hits, client.retries > 0) == (2, True)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("as_date", [False, True])
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_kept(
    serving: Callable[..., Emulator], tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int, as_date: bool
) -> None:
    """In seconds, and as a date by the service's own clock, years from ours: not earlier, hardly later."""
    emulator = serving()
    emulator.service.faults.add(Fault(status=status, times=1, retry_after=7, retry_after_as_date=as_date))
    caplog.set_level(logging.DEBUG, "dicom_etl")
    clock = Clock(frozen=True)
    with connected(emulator.base_url, clock) as client:
        assert equal(land(client, tmp_path, connections=1), emulator.service)
    (retry,) = [vars(record) for record in caplog.records if record.message == "retrying request"]
    assert (retry["reason"], retry["attempt"]) == (f"status {status}", 1)
    assert 7.0 <= retry["wait_seconds"] <= 7.0 * 1.05
    assert 7.0 <= clock.slept < 16.0


def test_refused_connections_are_waited_for(serving: Callable[..., Emulator]) -> None:
    """A service that restarts between two pages."""
    emulator = serving()
    away, gone = ExitStack(), Event()
    got: list[Entry] = []

    def leave_once(entries: list[Entry]) -> None:
        if not got:
            away.enter_context(emulator.refusing())
            gone.set()
        got.extend(entries)

    def come_back() -> None:
        assert gone.wait(10)
        away.close()

    clock = Clock(on_sleep=come_back)
    with connected(emulator.base_url, clock) as client:
        read_feed(FeedReader(client, 50, 1), WINDOW, leave_once)
    assert client.retries > 0
    assert sorted(entry.sequence for entry in got) == sorted(expected(emulator.service))


@pytest.mark.parametrize(
    ("rewrite", "changes"),
    [
        (corruptions.zulu, {}),
        (corruptions.lower_case, {}),
        (corruptions.padded, {}),
        (corruptions.twice(50), {}),
        (corruptions.altered(partitionName=corruptions.LEFT_OUT), {"partitionName": "Microsoft.Default"}),
        (corruptions.altered(partitionName=None), {"partitionName": "Microsoft.Default"}),
        (corruptions.altered(filePath=corruptions.LEFT_OUT), {"filePath": None}),
        (corruptions.altered(somethingNew={"a": [1]}), {}),
    ],
    ids=["zulu", "lower case", "padded", "twice", "no partition", "null partition", "no path", "unknown member"],
)
def test_what_can_be_understood_is(
    serving: Callable[..., Emulator], tmp_path: Path, rewrite: corruptions.Rewrite, changes: Row
) -> None:
    """Another spelling of the same, or less than there should be, on every page: landed in the service's own way."""
    emulator = serving()
    struck = emulator.service.faults.add(Fault(rewrite=rewrite))
    with connected(emulator.base_url) as client:
        result = land(client, tmp_path)
    assert struck.hits >= 5
    assert result.rows == {sequence: row | changes for sequence, row in expected(emulator.service).items()}
    assert result.landed.unusable == ()
    assert client.retries == 0


@pytest.mark.parametrize("value", [corruptions.LEFT_OUT, None], ids=["absent", "null"])
def test_absent_metadata_heals(serving: Callable[..., Emulator], tmp_path: Path, value: object) -> None:
    """Where nothing needs it nothing is missing; a Current entry is set aside, and whole when it is read again."""
    emulator = serving()
    service = emulator.service
    absent = service.faults.add(Fault(rewrite=corruptions.altered(metadata=value)))
    with connected(emulator.base_url) as client:
        result = land(client, tmp_path)
        rows = expected(service)
        current = {sequence for sequence, row in rows.items() if row["state"] == "Current"}
        assert 0 < len(current) < len(rows)
        assert result.reasons == dict.fromkeys(current, "metadata-missing")
        assert result.rows == {s: row | {"metadata": None, "modality": None} for s, row in rows.items()}
        service.faults.remove(absent.id)
        one = min(current)
        (again,) = refetch(client, rows[one]["timestampTicks"], [one], Budget())
        assert json.loads(bytes(again.metadata)) == rows[one]["metadata"]
        assert equal(land(client, tmp_path / "again"), service)


@pytest.mark.parametrize("metadata", [LARGE, DEEP], ids=["4 MB", "60 deep"])
def test_big_metadata_is_metadata(serving: Callable[..., Emulator], tmp_path: Path, metadata: bytes) -> None:
    """Several of 4 MB on one page, or nested to the depth that the service allows."""
    assert DEEP.count(b"{") + DEEP.count(b"[") in range(59, 90)
    emulator = serving()
    for number in range(3):
        emulator.service.create(instance_key("1.2", "1.2.3", f"1.2.3.{number}"), metadata, at_ticks=START + number)
    with connected(emulator.base_url) as client:
        result = land(client, tmp_path)
    assert equal(result, emulator.service)
    assert client.retries == 0


def test_an_empty_feed_is_read(serving: Callable[..., Emulator], tmp_path: Path) -> None:
    """Nothing there: no entries, one page, and the service tells the time."""
    emulator = serving(0)
    with connected(emulator.base_url) as client:
        result = land(client, tmp_path)
        assert service_now(client) == emulator.service.clock.now_ticks()
    assert (result.landed.entries, result.landed.files, result.reading.pages) == (0, (), 1)


@dataclass
class Renewing:
    """A source of tokens: each lasts so many requests, or until the clock reaches an instant."""

    emulator: Emulator
    requests: int | None = None
    seconds: int | None = None
    issued: list[str] = field(default_factory=list)

    def __call__(self, renew: bool) -> str:
        if renew or not self.issued:
            service = self.emulator.service
            expires = None if self.seconds is None else service.clock.now_ticks() + self.seconds * 10_000_000
            self.issued.append(service.tokens.issue(READER, expires=expires, requests=self.requests))
        return self.issued[-1]


def test_a_refused_token_is_renewed_once(serving: Callable[..., Emulator], tmp_path: Path) -> None:
    """One 401: another token, no retry, no wait."""
    emulator = serving()
    once = emulator.service.faults.add(Fault(status=401, times=1))
    tokens, clock = Renewing(emulator), Clock()
    with connected(emulator.base_url, clock, tokens) as client:
        assert equal(land(client, tmp_path), emulator.service)
    assert (once.hits, len(tokens.issued), client.retries, clock.slept) == (1, 2, 0, 0.0)


def test_a_token_expires_in_mid_window(serving: Callable[..., Emulator], tmp_path: Path) -> None:
    """After every forty requests, again and again, while two connections share it."""
    emulator = serving()
    tokens = Renewing(emulator, requests=40)
    with connected(emulator.base_url, token=tokens) as client:
        assert equal(land(client, tmp_path, batch_size=2), emulator.service)
    assert len(tokens.issued) > 2
    assert emulator.service.tokens.refused >= len(tokens.issued) - 1
    assert client.retries == 0


def test_a_token_expires_by_the_clock(serving: Callable[..., Emulator]) -> None:
    """It lasts ten hours, and four pass with every page."""
    emulator = serving()
    tokens = Renewing(emulator, seconds=36_000)
    got: list[Entry] = []

    def slowly(entries: list[Entry]) -> None:
        emulator.service.clock.advance(4 * HOUR)
        got.extend(entries)

    with connected(emulator.base_url, token=tokens) as client:
        read_feed(FeedReader(client, 20, 1), WINDOW, slowly)
    assert len(tokens.issued) > 1
    assert sorted(entry.sequence for entry in got) == sorted(expected(emulator.service))


# --- one bad entry ----------------------------------------------------------------------------------------

BAD = 7


def by_metadata(metadata: bytes) -> Callable[[DicomService], dict[str, Any]]:
    return lambda _service: {"metadata": metadata}


def by_rewrite(rewrite: corruptions.Rewrite) -> Callable[[DicomService], dict[str, Any]]:
    def spoil(service: DicomService) -> dict[str, Any]:
        service.faults.add(Fault(rewrite=rewrite))
        return {}

    return spoil


def by_fault(**fields: Any) -> Callable[[DicomService], dict[str, Any]]:
    def spoil(service: DicomService) -> dict[str, Any]:
        service.faults.add(Fault(sequences=(BAD,), **fields))
        return {}

    return spoil


ONE_BAD = {
    "NaN": (by_metadata(b'{"00180050":{"vr":"DS","Value":[NaN]}}'), "metadata-unavailable"),
    "Infinity": (by_metadata(b'{"00180050":{"vr":"DS","Value":[1,-Infinity]}}'), "metadata-unavailable"),
    "broken": (by_metadata(b'{"00180050":}'), "metadata-unavailable"),
    "100 000 deep": (by_metadata(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "metadata-unavailable"),
    "list": (by_metadata(b"[1]"), "metadata-not-object"),
    "text": (by_metadata(b'"CT"'), "metadata-not-object"),
    "number": (by_metadata(b"7"), "metadata-not-object"),
    "false": (by_metadata(b"false"), "metadata-not-object"),
    "null": (by_metadata(b"null"), "metadata-missing"),
    "not UTF-8": (by_metadata(b'{"00080060":{"vr":"CS","Value":["C\xff"]}}'), "metadata-not-utf8"),
    "a surrogate in UTF-8": (by_metadata(b'{"00080060":{"vr":"CS","Value":["\xed\xa0\x80"]}}'), "metadata-not-utf8"),
    "no study UID": (by_rewrite(corruptions.altered(BAD, studyInstanceUid=corruptions.LEFT_OUT)), "uid-missing"),
    "null series UID": (by_rewrite(corruptions.altered(BAD, seriesInstanceUid=None)), "uid-missing"),
    "empty SOP UID": (by_rewrite(corruptions.altered(BAD, sopInstanceUid=" ")), "uid-missing"),
    "number for a UID": (by_rewrite(corruptions.altered(BAD, sopInstanceUid=7)), "uid-missing"),
    "UID not UTF-8": (by_rewrite(corruptions.swapped(b'"5.5.7"', b'"5.5.\xff"')), "uid-missing"),
    "unknown action": (by_rewrite(corruptions.altered(BAD, action="Vanish")), "action-unknown"),
    "no action": (by_rewrite(corruptions.altered(BAD, action=corruptions.LEFT_OUT)), "action-unknown"),
    "unknown state": (by_rewrite(corruptions.altered(BAD, state="Gone")), "state-unknown"),
    "list for a state": (by_rewrite(corruptions.altered(BAD, state=["Current"])), "state-unknown"),
    "number for a path": (by_rewrite(corruptions.altered(BAD, filePath=1)), "field-not-text"),
    "object for a partition": (by_rewrite(corruptions.altered(BAD, partitionName={})), "field-not-text"),
    "partition not UTF-8": (by_rewrite(corruptions.swapped(b'"spoilt"', b'"sp\xffilt"')), "field-not-text"),
    "503 for good": (by_fault(), "metadata-unavailable"),
    "500 for good": (by_fault(status=500), "metadata-unavailable"),
    "cut for good": (by_fault(cut_body=20), "metadata-unavailable"),
    "reset for good": (by_fault(reset=True), "metadata-unavailable"),
    "HTML for good": (by_fault(rewrite=corruptions.html), "metadata-unavailable"),
}


@pytest.mark.parametrize("alone", [False, True], ids=["among others", "alone"])
@pytest.mark.parametrize(("spoil", "reason"), ONE_BAD.values(), ids=ONE_BAD.keys())
def test_one_bad_entry_is_set_aside(
    serving: Callable[..., Emulator],
    tmp_path: Path,
    spoil: Callable[[DicomService], dict[str, Any]],
    reason: str,
    alone: bool,
) -> None:
    """It is landed without what is bad, with its reason; all others are landed whole, at a bounded cost."""
    emulator = serving(0)
    service = emulator.service
    for number in range(1, 21):
        if number != BAD and not alone:
            service.create(instance_key("5", "5.5", f"5.5.{number}"), CT, at_ticks=START + number, sequence=number)
    good = expected(service)
    bad = {"metadata": CT} | spoil(service)
    service.create(("spoilt", "5", "5.5", "5.5.7"), at_ticks=START + BAD, sequence=BAD, **bad)
    with connected(emulator.base_url) as client:
        result = land(client, tmp_path)
    assert result.reasons == {BAD: reason}
    assert sorted(result.rows) == sorted([*good, BAD])
    assert {sequence: row for sequence, row in result.rows.items() if sequence != BAD} == good
    assert result.rows[BAD]["timestampTicks"] == START + BAD
    assert len(good) == (0 if alone else 19)
    assert client.requests <= 40


@pytest.mark.parametrize("action", ["Delete", "Create"])
def test_a_deletion_needs_no_metadata(serving: Callable[..., Emulator], tmp_path: Path, action: str) -> None:
    """Metadata that cannot be read spoils nothing where the state says that the instance is gone."""
    emulator = serving(0)
    row = emulator.service.create(instance_key("5", "5.5", "5.5.7"), CT, at_ticks=START, sequence=BAD)
    emulator.service.delete("Microsoft.Default", "5", at_ticks=START + 1)
    emulator.service.faults.add(Fault(rewrite=corruptions.altered(metadata="nonsense", action=action)))
    with connected(emulator.base_url) as client:
        result = land(client, tmp_path)
    assert row.state == "Deleted"
    assert [one["state"] for one in result.rows.values()] == ["Deleted", "Deleted"]
    assert result.reasons == {}


@pytest.mark.parametrize("spread", [1, 3 * 10_000_000], ids=["on neighbouring ticks", "over hours"])
def test_thousands_of_bad_entries_cost_a_bounded_number_of_requests(
    serving: Callable[..., Emulator], tmp_path: Path, spread: int
) -> None:
    """After ten good ones 3 000 are landed with a reason; a budget bounds the looking closer, whatever the number."""
    emulator = serving(0)
    service = emulator.service
    for number in range(1, 3001):
        key = instance_key("5", "5.5", f"5.5.{number}")
        service.create(key, CT, at_ticks=START + 100 + number * spread, sequence=number)
    for number in range(3001, 3011):
        key = instance_key("5", "5.5", f"5.5.{number}")
        service.create(key, CT, at_ticks=START + number - 3001, sequence=number)
    service.faults.add(Fault(sequences=tuple(range(1, 3001))))
    with connected(emulator.base_url) as client:
        result = land(client, tmp_path, batch_size=200, poison_requests=100)
    assert len(result.rows) == 3010
    assert set(result.reasons.values()) == {"metadata-unavailable", "metadata-not-tried"}
    assert len(result.reasons) == 3000
    # Per page: some attempts with metadata and one without; and the budget, a single entry taking two of it.
    assert client.requests <= 2 * 100 + 6 * result.reading.pages
    assert result.reading.pages <= 40
    service.faults.clear()
    with connected(emulator.base_url) as client:
        assert equal(land(client, tmp_path / "healed", batch_size=200), service)


# --- must fail, and leave nothing -------------------------------------------------------------------------

BREACHES = {
    "the same page for ever": corruptions.the_same_for_ever,
    "longer than the limit": lambda: corruptions.longer(50),
    "out of order": lambda: corruptions.out_of_order,
    "before the window": lambda: corruptions.shifted(-30 * 86400),
    "behind the window": lambda: corruptions.shifted(30 * 86400),
    "a number for an entry": lambda: corruptions.with_more(7),
    "null for an entry": lambda: corruptions.with_more(None),
    "a list for an entry": lambda: corruptions.with_more([]),
    "an object that is none": lambda: corruptions.with_more({"x": 1}),
    "no sequence": lambda: corruptions.altered(sequence=corruptions.LEFT_OUT),
    "a text for a sequence": lambda: corruptions.edited(lambda row: row | {"sequence": str(row["sequence"])}),
    "half a sequence": lambda: corruptions.edited(lambda row: row | {"sequence": row["sequence"] + 0.5}),
    "a sequence below zero": lambda: corruptions.edited(lambda row: row | {"sequence": -row["sequence"]}),
    "a sequence beyond 64 bits": lambda: corruptions.edited(lambda row: row | {"sequence": 2**63 + row["sequence"]}),
    "no timestamp": lambda: corruptions.altered(timestamp=corruptions.LEFT_OUT),
    "a timestamp without zone": lambda: corruptions.edited(lambda row: row | {"timestamp": row["timestamp"][:-6]}),
    "an object for the list": lambda: corruptions.swapped(b'[{"sequence"', b'{"entries":[{"sequence"'),
}


def fails(error: type[DicomEtlError], code: int, client: HttpClient, folder: Path, **options: Any) -> DicomEtlError:
    """The error that ends the reading; no file is left behind."""
    folder.mkdir(exist_ok=True)
    with client, pytest.raises(error) as caught:
        land(client, folder, **options)
    assert caught.value.exit_code == code
    assert list(folder.rglob("*.parquet")) == []
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("make", BREACHES.values(), ids=BREACHES.keys())
def test_a_breach_of_the_protocol_ends_the_reading(
    serving: Callable[..., Emulator], tmp_path: Path, make: Callable[[], corruptions.Rewrite]
) -> None:
    """70, from the first page on or in the middle, at once: nobody retries what is not a failure."""
    for skip in (0, 3):
        emulator = serving()
        struck = emulator.service.faults.add(Fault(rewrite=make(), skip=skip))
        clock = Clock()
        fails(ProtocolError, 70, connected(emulator.base_url, clock), tmp_path / str(skip), batch_size=20)
        assert struck.hits >= 1
        assert (emulator.service.requests.count() <= 60, clock.slept) == (True, 0.0)


def test_a_refusal_that_is_none_of_these_is_a_breach(serving: Callable[..., Emulator], tmp_path: Path) -> None:
    """400 in plain text for what we asked."""
    emulator = serving()
    emulator.service.faults.add(Fault(status=400, body="The query parameter 'Limit' is invalid."))
    error = fails(ProtocolError, 70, connected(emulator.base_url), tmp_path)
    assert "400" in str(error)


def test_access_is_denied(serving: Callable[..., Emulator], tmp_path: Path) -> None:
    """A token without a role is 77 and told which role; one that is never accepted too, after one renewal."""
    emulator = serving(tokens={"n": NOBODY})
    error = fails(AccessDenied, 77, connected(emulator.base_url, token=lambda _: "n"), tmp_path)
    assert "DICOM Data Reader" in str(error)
    assert emulator.service.requests.count(status=403) == 1
    fails(AccessDenied, 77, connected(emulator.base_url, token=lambda _: "nonsense"), tmp_path)
    assert emulator.service.requests.count(status=401) == 2
    fails(AccessDenied, 77, connected(emulator.base_url), tmp_path)


def test_a_role_that_is_taken_away_ends_the_reading(serving: Callable[..., Emulator], tmp_path: Path) -> None:
    """403 in the middle: what was read before is not kept."""
    emulator = serving()
    emulator.service.faults.add(Fault(status=403, skip=3))
    fails(AccessDenied, 77, connected(emulator.base_url), tmp_path)


def test_a_wrong_address_is_configuration(serving: Callable[..., Emulator], tmp_path: Path) -> None:
    """404, below another path or from the feed itself, and a version that is not served: 78, asked once."""
    emulator = serving()
    fails(ConfigurationError, 78, connected(emulator.base_url + "/v2"), tmp_path)
    gone = emulator.service.faults.add(Fault(status=404))
    fails(ConfigurationError, 78, connected(emulator.base_url), tmp_path)
    emulator.service.faults.clear()
    refusal = '{"error":{"code":"UnsupportedApiVersion","message":"no such version"}}'
    version = emulator.service.faults.add(Fault(status=400, body=refusal, content_type="application/json"))
    assert "dicom.api_version" in str(fails(ConfigurationError, 78, connected(emulator.base_url), tmp_path))
    assert (gone.hits, version.hits) == (1, 1)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(serving: Callable[..., Emulator], tmp_path: Path, status: int) -> None:
    """78; the other address hears nothing, least of all the token, and is not named."""
    emulator, elsewhere = serving(), serving(0)
    target = f"{elsewhere.base_url}/v2/changefeed"
    emulator.service.faults.add(Fault(status=status, headers={"location": target}, skip=2))
    client = connected(emulator.base_url, token=Renewing(emulator))
    error = fails(ConfigurationError, 78, client, tmp_path)
    assert elsewhere.service.requests.count() == 0
    assert elsewhere.base_url not in str(error)


def test_a_refused_connection_to_the_end_is_unavailable(serving: Callable[..., Emulator], tmp_path: Path) -> None:
    """75 after 30 s when the service was never there, after retry_seconds when it was."""
    emulator = serving()
    with emulator.refusing():
        clock = Clock(frozen=True)
        fails(ServiceUnavailable, 75, connected(emulator.base_url, clock), tmp_path, connections=1)
        assert 10 < clock.slept <= 30
    away = ExitStack()
    clock = Clock(frozen=True)
    client = connected(emulator.base_url, clock)
    service_now(client)
    with away:
        away.enter_context(emulator.refusing())
        fails(ServiceUnavailable, 75, client, tmp_path, connections=1)
    assert 200 < clock.slept <= 300


TO_THE_END = {
    "503": Fault(status=503, skip=2),
    "500": Fault(status=500, skip=2),
    "429": Fault(status=429, skip=2),
    "429 and 1 s": Fault(status=429, skip=2, retry_after=1),
    "503 and 20 s as a date": Fault(status=503, skip=2, retry_after=20, retry_after_as_date=True),
    "reset": Fault(reset=True, skip=2),
    "cut": Fault(cut_body=100, skip=2),
    "HTML": Fault(rewrite=corruptions.html, skip=2),
    "no JSON": Fault(rewrite=corruptions.not_json, skip=2),
}


@pytest.mark.parametrize("fault", TO_THE_END.values(), ids=TO_THE_END.keys())
def test_retries_are_bounded_in_number_and_time(serving: Callable[..., Emulator], tmp_path: Path, fault: Fault) -> None:
    """75 within retry_seconds and with few requests, whatever it is that does not end."""
    emulator = serving()
    struck = emulator.service.faults.add(fault)
    clock = Clock(frozen=True)
    client = connected(emulator.base_url, clock)
    error = fails(ServiceUnavailable, 75, client, tmp_path, connections=1)
    assert clock.slept <= 300
    assert 5 <= struck.hits <= 100
    assert 0 < client.retries < struck.hits
    assert emulator.base_url.removeprefix("http://") in str(error)


def test_a_retry_after_beyond_what_is_left_ends_at_once(serving: Callable[..., Emulator], tmp_path: Path) -> None:
    """75 and told how long to wait: nobody sleeps for an answer that comes too late."""
    emulator = serving()
    for as_date in (False, True):
        emulator.service.faults.clear()
        fault = Fault(status=503, skip=2, retry_after=301, retry_after_as_date=as_date)
        struck = emulator.service.faults.add(fault)
        clock = Clock(frozen=True)
        error = fails(ServiceUnavailable, 75, connected(emulator.base_url, clock), tmp_path, connections=1)
        assert "301 s" in str(error)
        assert (struck.hits, clock.slept) == (1, 0.0)


def test_nothing_of_a_patient_is_logged(
    serving: Callable[..., Emulator], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither values nor UIDs, paths, queries or tokens, in logs or in the error."""
    canaries = ["Canary^Cora", "987654321", "4.4.4.4", "AHDS", "startTime", "2024-05-01", "secret-token", "<html"]
    metadata = (
        b'{"00100010":{"vr":"PN","Value":[{"Alphabetic":"Canary^Cora"}]},"00100020":{"vr":"LO","Value":["987654321"]}}'
    )
    emulator = serving(0, tokens={"secret-token": READER})
    service = emulator.service
    for number in range(1, 31):
        service.create(instance_key("4.4.4.4", "4.4.4.4.5", f"4.4.4.4.{number}"), metadata, at_ticks=START + number)
    for fault in (
        Fault(status=500, body="Canary^Cora 4.4.4.4", times=2),
        Fault(rewrite=corruptions.html, times=2),
        Fault(reset=True, times=1),
        Fault(sequences=(3,)),
    ):
        service.faults.add(fault)
    caplog.set_level(logging.DEBUG, "dicom_etl")
    clock = Clock()
    with connected(emulator.base_url, clock, lambda _: "secret-token") as client:
        result = land(client, tmp_path, batch_size=10, connections=1)
    assert result.reasons == {3: "metadata-unavailable"}
    assert len(result.rows) == 30
    service.faults.add(Fault(rewrite=corruptions.with_more({"00100010": "Canary^Cora", "sequence": "4.4.4.4"})))
    error = fails(ProtocolError, 70, connected(emulator.base_url, clock, lambda _: "secret-token"), tmp_path / "failed")
    records = [record for record in caplog.records if record.name.startswith("dicom_etl")]
    assert len(records) > client.retries >= 5
    said = [repr(record.__dict__ | {"args": None, "exc_info": None}) for record in records]
    for text in (*said, str(error)):
        assert [canary for canary in canaries if canary in text] == []
