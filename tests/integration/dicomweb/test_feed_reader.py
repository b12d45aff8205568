"""The client against the local DICOM service, over a real socket."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from io import BytesIO

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from dicom_emulator.options import EmulatorOptions
from dicom_emulator.serve import Emulator, serve_in_thread
from dicom_emulator.state.uids import instance_key
from dicom_emulator.testing.faults import Fault
from dicom_etl.core.entry import Entry
from dicom_etl.core.errors import ConfigurationError, ServiceUnavailable
from dicom_etl.core.settings.model import Dicom
from dicom_etl.core.timerange import Window, parse_instant
from dicom_etl.dicomweb.connect import connect
from dicom_etl.dicomweb.feed.bad_entries import Budget
from dicom_etl.dicomweb.feed.reader import FeedReadResult, refetch, service_now
from dicom_etl.dicomweb.retrieve import retrieve_instance
from dicom_etl.dicomweb.search import partitions, search
from dicom_etl.dicomweb.store import store
from dicom_etl.remote.http.client import HttpClient
from support.reading import read_with

START = parse_instant("2026-03-01T10:00:00Z")
HOUR = 36_000_000_000
DAY = Window(START, START + 24 * HOUR)
METADATA = b'{"00080060":{"vr":"CS","Value":["CT"]}}'


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    with serve_in_thread(EmulatorOptions()) as running:
        running.service.clock.freeze("2026-03-02T12:00:00Z")
        yield running


@pytest.fixture
def client(emulator: Emulator) -> Iterator[HttpClient]:
    with connect(dicom(emulator.base_url), sleep=lambda seconds: time.sleep(min(seconds, 0.01))) as connected:
        yield connected


def dicom(base_url: str, **changes: object) -> Dicom:
    values = {
        "base_url": base_url,
        "api_version": 2,
        "auth": "none",
        "token_env": "T",
        "connections": 4,
        "timeout_seconds": 20.0,
        "retry_seconds": 60.0,
    }
    return Dicom(**{**values, **changes})


def fill(emulator: Emulator, count: int, tie: int = 7) -> list[tuple[int, int]]:
    """Creates over 20 hours, in ties, odd to 100 ns, sequences against time; the rows in the feed's order."""
    rows = []
    for number in range(count):
        ticks = START + (number // tie * tie) * (20 * HOUR // count) + 3
        sequence = count - number
        key = instance_key("1.2.3", f"1.2.3.{number % 10}", f"1.2.4.{number}")
        emulator.service.create(key, METADATA, at_ticks=ticks, sequence=sequence)
        rows.append((ticks, sequence))
    return sorted(rows)


def read(client: HttpClient, window: Window = DAY, **options: object) -> tuple[FeedReadResult, list[Entry]]:
    got: list[Entry] = []
    chosen = {"batch_size": 200, "connections": 4, **options}
    return read_with(client, window, got.extend, **chosen), got


def rows_of(entries: list[Entry]) -> list[tuple[int, int]]:
    return sorted((entry.ticks, entry.sequence) for entry in entries)


@pytest.mark.parametrize("batch_size", [200, 3])
def test_a_feed_with_ties_is_read_completely(emulator: Emulator, client: HttpClient, batch_size: int) -> None:
    """Some thousand entries in ties of seven, each once, with their metadata, in few requests."""
    rows = fill(emulator, 3000 if batch_size == 200 else 400)
    reading, got = read(client, batch_size=batch_size)
    assert rows_of(got) == rows
    assert all(bytes(entry.metadata) == METADATA for entry in got)
    assert {(e.action, e.state, e.partition_name) for e in got} == {("Create", "Current", "Microsoft.Default")}
    assert (reading.window, reading.entries, reading.repeated) == (DAY, len(rows), 0)
    assert client.requests == reading.pages <= len(rows) / batch_size + reading.slices
    assert client.retries == 0


def test_a_reading_is_cut_at_an_edge_of_the_grid(emulator: Emulator, client: HttpClient) -> None:
    """Of 3 000 entries at most 1 000, in whole hours, and then the rest."""
    rows = fill(emulator, 3000)
    first, _ = read(client, max_entries=1000, grid_ticks=HOUR)
    assert (first.window.end - START) % HOUR == 0
    assert first.entries == sum(1 for ticks, _ in rows if ticks < first.window.end) <= 1000
    assert sum(1 for ticks, _ in rows if ticks < first.window.end + HOUR) > 1000
    rest, got = read(client, Window(first.window.end, DAY.end))
    assert first.entries + rest.entries == 3000
    assert rows_of(got) == [row for row in rows if row[0] >= first.window.end]


def test_a_poisoned_entry_is_alone_without_metadata(emulator: Emulator, client: HttpClient) -> None:
    """Bad for good: the entry comes with its reason, the others whole, at a bounded number of requests."""
    rows = fill(emulator, 1200)
    emulator.service.faults.add(Fault(sequences=(17, 18, 600)))
    reading, got = read(client)
    assert rows_of(got) == rows
    assert {e.sequence: e.unreadable for e in got if e.unreadable} == dict.fromkeys(
        (17, 18, 600), "metadata-unavailable"
    )
    assert sum(1 for e in got if e.has_metadata) == 1197
    assert client.requests <= reading.pages + 3 * 30


def test_poison_that_heals_leaves_no_trace(emulator: Emulator, client: HttpClient) -> None:
    """Bad for a while: everything is read whole; and an entry read again later is whole when it has healed."""
    fill(emulator, 1200)
    passing = emulator.service.faults.add(Fault(sequences=(17,), times=2))
    _, got = read(client)
    assert passing.hits == 2
    assert not [e for e in got if e.unreadable]

    lasting = emulator.service.faults.add(Fault(sequences=(18,), times=2))
    ticks = next(e.ticks for e in got if e.sequence == 18)
    *failed, healed = [refetch(client, ticks, [18], Budget()) for _ in range(3)]
    assert lasting.hits == 2
    assert failed == [[], []]
    assert [(e.sequence, e.unreadable, bytes(e.metadata)) for e in healed] == [(18, None, METADATA)]


@pytest.mark.parametrize("as_date", [False, True])
def test_a_busy_service_is_waited_for(emulator: Emulator, caplog: pytest.LogCaptureFixture, as_date: bool) -> None:
    """503 and 429 with Retry-After, in seconds and as a date by the service's own clock, cost only their time."""
    rows = fill(emulator, 1000)
    for status in (503, 429):
        emulator.service.faults.add(Fault(status=status, times=1, retry_after=1, retry_after_as_date=as_date))
    caplog.set_level(logging.DEBUG, "dicom_etl")
    with connect(dicom(emulator.base_url), sleep=lambda _: None) as client:
        _, got = read(client)
    assert rows_of(got) == rows
    retries = [vars(record) for record in caplog.records if record.message == "retrying request"]
    assert [(retry["reason"], retry["attempt"]) for retry in retries] == [("status 503", 1), ("status 429", 2)]
    assert all(1.0 <= retry["wait_seconds"] <= 1.05 for retry in retries)


def test_a_service_that_is_down_to_the_end_is_unavailable(emulator: Emulator) -> None:
    """Failing with and without metadata is an outage: the reading ends with 75 and names the host only."""
    fill(emulator, 10)
    emulator.service.faults.add(Fault(status=503))
    began = time.monotonic()
    settings = dicom(emulator.base_url, retry_seconds=0.5)
    with connect(settings) as hasty, pytest.raises(ServiceUnavailable, match=r"127.0.0.1:\d+ .*status 503"):
        read(hasty)
    assert time.monotonic() - began < 5


def test_nobody_listens_at_that_address() -> None:
    """A refused connection is 75, soon."""
    with serve_in_thread(EmulatorOptions()) as gone:
        address = gone.base_url
    settings = dicom(address, retry_seconds=0.5)
    with connect(settings) as client, pytest.raises(ServiceUnavailable, match="cannot be reached"):
        read(client)


def test_a_wrong_path_is_a_wrong_address(emulator: Emulator) -> None:
    """404 on the feed is a configuration error."""
    with connect(dicom(emulator.base_url + "/elsewhere")) as client, pytest.raises(ConfigurationError):
        read(client)


def test_the_service_tells_the_time(emulator: Emulator, client: HttpClient) -> None:
    """The Date header is by the service's clock, to the second."""
    assert emulator.service.clock.now_ticks() == parse_instant("2026-03-02T12:00:00Z")
    assert service_now(client) == parse_instant("2026-03-02T12:00:00Z")


@pytest.mark.parametrize("digits", range(8))
def test_timestamps_of_any_number_of_digits(emulator: Emulator, client: HttpClient, digits: int) -> None:
    """0 to 7 fraction digits page without loss."""
    emulator.service.clock.freeze("2026-03-01T10:00:00.1234567Z", step=1_234_567)
    emulator.service.clock.set_digits(digits)
    for number in range(60):
        emulator.service.create(instance_key("1.2.3", "1.2.3.4", f"1.2.4.{number}"), METADATA)
    reading, got = read(client, batch_size=4)
    assert [e.sequence for e in sorted(got, key=lambda e: (e.ticks, e.sequence))] == list(range(1, 61))
    assert reading.entries == 60
    assert all(e.ticks % 10 ** (7 - digits) == 0 for e in got)


def test_real_files_go_in_and_come_back(client: HttpClient) -> None:
    """pydicom's files are stored, found, retrieved byte for byte and stand in the feed."""
    names = ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "JPEG2000.dcm")
    files = {}
    for name in names:
        path = get_testdata_file(name)
        with open(path, "rb") as file:
            files[name] = file.read()
    outcomes = {name: store(client, content) for name, content in files.items()}
    assert {name: outcome.kind.split()[0] for name, outcome in outcomes.items()} == dict.fromkeys(names, "stored")
    assert store(client, files["CT_small.dcm"]).kind == "already there"
    assert store(client, b"this is no DICOM file").refused

    dataset = pydicom.dcmread(BytesIO(files["CT_small.dcm"]))
    uids = (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID)
    retrieved = retrieve_instance(client, *uids)
    assert retrieved is not None
    assert retrieved[128:] == files["CT_small.dcm"][128:]
    assert retrieve_instance(client, *uids[:2], generate_uid()) is None

    found = [match["00080018"]["Value"][0] for match in search(client, "instances", limit=3)]
    assert len(found) == 4
    assert dataset.SOPInstanceUID in found
    assert list(search(client, "studies", filters={"StudyInstanceUID": generate_uid()})) == []
    _, entries = read(client, Window(0, parse_instant("2100-01-01T00:00:00Z")))
    assert sorted(e.sop_instance_uid.strip() for e in entries) == sorted(found)
    assert partitions(client) is None


def test_partitions_are_served() -> None:
    """Where partitions are on, a file goes into one and is found only there."""
    with open(get_testdata_file("CT_small.dcm"), "rb") as file:
        content = file.read()
    dataset = pydicom.dcmread(BytesIO(content))
    uids = (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID)
    with serve_in_thread(EmulatorOptions(partitions=True)) as emulator, connect(dicom(emulator.base_url)) as client:
        assert store(client, content, partition="clinic").kind.startswith("stored")
        assert store(client, content, partition="other").kind.startswith("stored")
        assert store(client, content).refused
        assert {"clinic", "other"} <= set(partitions(client) or [])
        assert len(list(search(client, "instances", partition="clinic"))) == 1
        assert retrieve_instance(client, *uids, partition="clinic") is not None
        _, entries = read(client, Window(0, parse_instant("2100-01-01T00:00:00Z")))
        assert sorted(str(e.partition_name) for e in entries) == ["clinic", "other"]
