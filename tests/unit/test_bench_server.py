"""The benchmark's feed, its server, and the parts of the template's algorithm and of the report that need no Spark."""

from __future__ import annotations

import json
import socket
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bench import template
from bench.archive import archive_rows, whole_rounds
from bench.compare import Line, table
from bench.entries import page
from bench.feed import HOUR, KINDS, START, Feed, instances_of_study, instant, series_and_image, study_uid
from bench.feedserver import State
from bench.processes import Server, StepFailed, feed_server, run_process
from bench.report import Machine, markdown
from bench.results import Results
from bench.targets import verdicts
from dicom_etl.core.entry import Entry
from dicom_etl.core.settings.load import load_settings
from dicom_etl.core.timerange import Window
from dicom_etl.dicomweb.connect import connect
from dicom_etl.dicomweb.feed.reader import FeedReader, read_feed, service_now
from dicom_etl.dicomweb.retrieve import gone_instances
from dicom_etl.dicomweb.search import partitions
from dicom_etl.dicomweb.study_search import StudyCounts, instances_of_studies, study_counts

ROUND = 720  # four studies of 180
_FOLDER = "AHDS/bench/dicom/bench/Microsoft.Default"
_UID_TAGS = {"studyInstanceUid": "0020000D", "seriesInstanceUid": "0020000E", "sopInstanceUid": "00080018"}


def rows(feed: Feed, places: range, *, metadata: bool = True) -> list[dict[str, Any]]:
    return list(json.loads(page(feed, places, metadata=metadata)))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with feed_server() as running:
        yield running


def test_the_feed_is_ordered_and_every_row_is_found_by_its_time() -> None:
    """Times never step back, and the place of a time is the first row that is not before it."""
    feed = Feed(5_000, KINDS)
    ticks = [feed.event(place).ticks for place in range(len(feed))]
    assert len(ticks) == 5_000 + 4 * 1_000 + 333
    assert ticks == sorted(ticks)
    assert all(ticks[feed.place(moment)] == moment for moment in ticks)
    assert all(feed.place(moment) == ticks.index(moment) for moment in ticks[::97])
    assert [feed.place(START), feed.place(feed.base_end), feed.place(feed.now)] == [0, 5_000, len(feed)]


def test_an_hour_holds_five_thousand_creates_and_a_window_one_thousand_rows() -> None:
    """Whatever the size of the archive, its windows are of one size."""
    for entries in (5_000, 100_000, 1_000_000):
        feed = Feed(entries, ["create", "updates"])
        assert feed.base_end == START + entries // 5_000 * HOUR
        assert [len(feed.window(number)) for number in (0, 1)] == [1_000, 1_000]
        # Four studies are continued, eight are new: the same at 10^5, 10^6 and 10^7.
        assert entries == 5_000 or len(feed.studies(feed.window(0))) == 12


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("create", {("Create", "Current"): 1_000}),
        ("updates", {("Update", "Current"): 900, ("Create", "Current"): 100}),
        ("deletes", {("Delete", "Deleted"): 800, ("Create", "Current"): 200}),
        ("scattered", {("Update", "Current"): 1_000}),
        ("empty", {}),
    ],
)
def test_a_window_holds_what_its_kind_says(kind: str, expected: dict[tuple[str, str], int]) -> None:
    """Actions and states, and no instance twice."""
    feed = Feed(20_000, [kind])
    window = rows(feed, feed.window(0), metadata=False)
    assert Counter((row["action"], row["state"]) for row in window) == expected
    assert len({row["sopInstanceUid"] for row in window}) == len(window)


def test_older_rows_show_what_became_of_their_instance() -> None:
    """After an update the new metadata and path; after a delete no metadata, the old path.

    design/service-protocol.md: Rows that change.
    """
    updated, deleted = Feed(5_000, ["updates"]), Feed(5_000, ["deletes"])
    change = next(row for row in rows(updated, updated.window(0)) if row["action"] == "Update")
    older = _row_of(updated, change["sopInstanceUid"])
    assert (older["action"], older["state"]) == ("Create", "Replaced")
    assert older["metadata"] == change["metadata"]
    assert older["metadata"]["00081030"]["Value"][0].startswith("Updated")
    assert (
        older["filePath"] == change["filePath"] == f"AHDS/bench/dicom/bench/Microsoft.Default/{change['sequence']}.dcm"
    )
    removal = next(row for row in rows(deleted, deleted.window(0)) if row["action"] == "Delete")
    gone = _row_of(deleted, removal["sopInstanceUid"])
    assert ("metadata" in removal, "filePath" in removal) == (False, False)
    assert (gone["state"], "metadata" in gone) == ("Deleted", False)
    assert gone["filePath"] == f"{_FOLDER}/{gone['sequence']}.dcm"


def _row_of(feed: Feed, sop: str) -> dict[str, Any]:
    every = rows(feed, range(feed.entries), metadata=False)
    (found,) = (row["sequence"] for row in every if row["sopInstanceUid"] == sop)
    return rows(feed, range(found - 1, found))[0]


@pytest.mark.parametrize("header_bytes", [10_000, 300_000])
def test_entries_are_real_headers_of_a_length(header_bytes: int) -> None:
    """On average; each with its own UIDs in entry and metadata, and a distinct sequence."""
    feed = Feed(20_000, header_bytes=header_bytes)
    found = range(0, 20_000, 37 if header_bytes == 10_000 else 371)
    sizes = [len(page(feed, range(place, place + 1))) for place in found]
    assert 0.95 * header_bytes < sum(sizes) / len(sizes) < 1.05 * header_bytes
    for place in found[:20]:
        (row,) = rows(feed, range(place, place + 1))
        assert row["sequence"] == place + 1
        for field, tag in (
            ("studyInstanceUid", "0020000D"),
            ("seriesInstanceUid", "0020000E"),
            ("sopInstanceUid", "00080018"),
        ):
            assert row["metadata"][tag]["Value"] == [row[field]]


def test_a_study_has_three_series_of_sixty() -> None:
    """By the numbers of instances, from four scanners at once."""
    series = [series_and_image(instance) for instance in instances_of_study(6)]
    assert Counter(number for number, _ in series) == {18: 60, 19: 60, 20: 60}
    assert [image for _, image in series[:3]] == [1, 2, 3]


def test_the_server_answers_as_the_protocol_says() -> None:
    """Pages by time, refusals; requests are counted."""
    state = State(Feed(5_000, ["create"]), 0.0)
    start, end = instant(START), instant(START + HOUR)
    status, body = state.answer(f"/v2/changefeed?startTime={start}&endTime={end}&offset=4999&limit=200")
    assert (status, [row["sequence"] for row in json.loads(body)]) == (200, [5_000])
    status, body = state.answer("/v2/changefeed?limit=3&includeMetadata=false")
    assert (status, [row["sequence"] for row in json.loads(body)]) == (200, [1, 2, 3])
    assert b"metadata" not in body
    assert state.answer(f"/v2/changefeed?startTime={end}&endTime={start}") == (400, b"")
    assert state.answer("/v2/changefeed?limit=201") == (400, b"")
    assert state.answer("/v2/workitems") == (404, b"")
    assert state.answer("/v2/partitions") == (400, b"")
    assert state.counters.requests["/v2/changefeed"] == 4
    assert state.counters.largest_offset == 4_999


def test_our_client_reads_the_feed_once_without_a_deep_offset(server: Server) -> None:
    """Through the process, on eight connections: every sequence, few requests, the feed's own clock."""
    server.show(5_000, ["create"])
    feed = Feed(5_000, ["create"])
    settings = load_settings(None, [f"dicom.base_url={server.base_url}"], {}, Path("/nonexistent"))
    entries: list[Entry] = []
    with connect(settings.dicom) as client:
        assert service_now(client) == feed.now
        whole = Window(START, feed.end)
        reading = read_feed(FeedReader(client, 200, 8), whole, entries.extend)
    assert sorted(entry.sequence for entry in entries) == list(range(1, 6_001))
    counters = server.counters()
    assert counters["requests"] == {"/v2/changefeed": reading.pages + 1}
    assert reading.pages <= 6_000 / 200 * 1.1 + reading.slices
    assert counters["largestOffset"] <= 1


def test_our_client_searches_what_the_server_holds(server: Server) -> None:
    """Studies with their counts by ranges of dates, instances of a study, what is gone, after deletions too.

    So that `verify` and `repair` can be measured: more studies than one search may hold.
    """
    server.show(400_000, ["deletes"])
    feed = Feed(400_000, ["deletes"])
    live = set(range(400_000)) | {
        e.instance for e in map(feed.event, range(400_000, len(feed))) if e.action == "Create"
    }
    live -= {event.instance for event in map(feed.event, range(400_000, len(feed))) if event.action == "Delete"}
    expected = Counter(study_uid(series_and_image(instance)[0] // 3) for instance in live)
    settings = load_settings(None, [f"dicom.base_url={server.base_url}"], {}, Path("/nonexistent"))
    batches: list[pa.RecordBatch] = []
    with connect(settings.dicom) as client:
        assert partitions(client) is None
        counts = study_counts(client, None, connections=4, sink=batches.append)
        found = {row["studyInstanceUid"]: row["instances"] for batch in batches for row in batch.to_pylist()}
        assert len(expected) > 2_200
        assert found == dict(expected)
        assert counts == StudyCounts(complete=False)
        half = next(uid for uid, number in expected.items() if number == 100)
        (instances,) = instances_of_studies(client, None, [half], connections=4)
        assert instances.num_rows == 100
        held = [tuple(row.values())[1:] for row in instances.to_pylist()]
        gone = [(*held[0][:2], f"{held[0][1]}.61"), ("1.2", "1.2.3", "1.2.3.4")]
        assert sorted(gone_instances(client, None, [*held[:3], *gone], connections=4)) == sorted(gone)
    counters = server.counters()
    assert counters["largestSearchOffset"] == 2_000
    assert counters["requests"]["/v2/studies/*/series/*/instances/*/metadata"] == 5


def test_the_server_waits_as_long_as_it_is_told(server: Server) -> None:
    """Eight answers of 50 ms each are under way at once."""
    server.show(5_000, latency_ms=50)
    settings = load_settings(None, [f"dicom.base_url={server.base_url}"], {}, Path("/nonexistent"))
    with connect(settings.dicom) as client:
        read_feed(FeedReader(client, 100, 8), Window(START, START + HOUR), lambda _: None)
    assert 4 <= server.counters()["mostUnderWay"] <= 8


def test_rows_made_directly_are_those_that_the_feed_serves() -> None:
    """The archive of 10^7 and the template's tables begin with rows that no sync wrote."""
    entries = whole_rounds(5_000)
    assert entries == 6 * ROUND
    served = {row["sopInstanceUid"]: row for row in json.loads(page(Feed(5_000), range(entries), metadata=False))}
    made = [row for part in archive_rows("instance", entries) for row in part.to_pylist()]
    assert len(made) == len(served) == entries
    for row in made:
        for name in ("sequence", "filePath", "studyInstanceUid", "seriesInstanceUid"):
            assert row[name] == served[row["sopInstanceUid"]][name]
    series = [row for part in archive_rows("series", entries) for row in part.to_pylist()]
    studies = [row for part in archive_rows("study", entries) for row in part.to_pylist()]
    assert (len(series), len(studies)) == (72, 24)
    assert sum(row["instanceCount"] for row in series) == sum(row["instanceCount"] for row in studies) == entries
    newest = {
        uid: max(r["lastModifiedTimestamp"] for r in made if r["seriesInstanceUid"] == uid)
        for uid in (row["seriesInstanceUid"] for row in series[:9])
    }
    assert newest == {row["seriesInstanceUid"]: row["lastModifiedTimestamp"] for row in series[:9]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-05-01T08:00:00.1234567+00:00", datetime(2024, 5, 1, 8, 0, 0, 123_000, UTC)),
        ("2024-05-01T08:00:00.999+00:00", datetime(2024, 5, 1, 8, 0, 0, 999_000, UTC)),
        ("2024-05-01T08:00:00.12+00:00", None),
        ("2024-05-01T08:00:00+00:00", None),
    ],
)
def test_the_template_reads_times_of_three_digits_only(text: str, expected: datetime | None) -> None:
    """Defect 6: the first 23 characters; whole seconds and short fractions become null."""
    assert template.timestamp(text) == expected


def test_the_template_takes_first_values() -> None:
    """The Alphabetic name, a date of eight digits, and no sequence or state.

    design/service-protocol.md: Data Factory template.
    """
    metadata = {
        "00080020": {"vr": "DA", "Value": ["20240501"]},
        "00080060": {"vr": "CS", "Value": ["CT", "MR"]},
        "00100010": {"vr": "PN", "Value": [{"Ideographic": "X", "Alphabetic": "A^B"}]},
    }
    entry = {
        "sequence": 40_000, "partitionName": "P", "studyInstanceUid": "1", "seriesInstanceUid": "2",
        "sopInstanceUid": "3", "action": "Create", "timestamp": "2024-05-01T08:00:00.1234567+00:00",
        "state": "Replaced", "metadata": metadata,
    }  # fmt: skip
    row = dict(zip((*template.COLUMNS["instance"], "action"), template.row_of(entry), strict=True))
    assert row == {
        "partitionName": "P", "studyInstanceUid": "1", "seriesInstanceUid": "2", "sopInstanceUid": "3",
        "lastModifiedTimestamp": datetime(2024, 5, 1, 8, 0, 0, 123_000, UTC), "studyDate": date(2024, 5, 1),
        "studyDescription": None, "issuerOfPatientId": None, "patientId": None, "patientName": "A^B",
        "modality": "CT", "sopClassUid": None, "filePath": None, "action": "Create",
    }  # fmt: skip
    assert template.study_date("20240501 ") is None
    assert [template.goes_on(written) for written in (200, 1, 0)] == [True, True, False]


def test_a_step_that_fails_is_a_row_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    """Its reason stands in the report."""
    results = Results()

    def fails() -> None:
        raise StepFailed("no room")

    assert not results.attempt("one", "the first", fails)
    assert results.attempt("two", "the second", lambda: results.add("two", "the second", 2.0, 100) and None)
    assert [(row.key, row.failed) for row in results.rows] == [("one", "StepFailed: no room"), ("two", None)]
    assert results.get("one") is None
    assert "FAILED" in capsys.readouterr().err


def test_targets_are_met_or_missed_or_not_measured() -> None:
    """By ratios of this run's own figures."""
    results = Results()
    results.add("sync/100000", "sync", 10.0, 100_000, pythonBytes=600 << 20, requests=560, largestOffset=3)
    results.add("landing1/100000", "landing", 5.0, 100_000, slices=8)
    results.add("landing2/100000", "landing", 4.0, 100_000)
    results.add("template/0", "template", 4.0, 200)
    results.add("cold/100000", "cold", 9.0, 1_000)
    results.add("session", "session", 4.0)
    results.add("verify/100000", "verify", 9.0, pythonBytes=900 << 20, searches=7, largestSearchOffset=2_200)
    results.add("headers/300", "headers", 9.0, pythonBytes=701 << 20)
    found = {verdict.what: verdict for verdict in verdicts(results, [100_000])}
    figures = {name.replace("\u202f", " "): (verdict.figure, verdict.met) for name, verdict in found.items()}
    assert figures["sync of 100 000 into empty tables, start included"] == ("2.50 x (10.0 s : 4.0 s)", True)
    assert figures["against the template's algorithm, per change (its pages into empty tables)"][1] is True
    assert figures["hourly window of 1 000 on 100 000, cold"] == ("2.25 x (9.0 s : 4.0 s)", False)
    assert figures["Python memory, sync of 100 000"] == ("600 MiB", False)
    assert figures["service cost, sync of 100 000"][1] is False
    assert figures["Python memory, verify of 100 000"] == ("900 MiB", True)
    assert figures["Python memory, sync with headers of 300 KB"] == ("701 MiB", False)
    assert figures["service cost, search of 100 000"] == ("7 requests, largest offset 2\u202f200", False)
    assert figures["hourly window of 1 000 on 100 000, warm"] == (None, None)


def test_the_report_names_the_machine_but_not_the_host() -> None:
    """Cores, memory, versions, every row, and why one failed."""
    results = Results()
    results.add("sync/1", "a sync", 12.5, 1_000, start=1.0, pythonBytes=1 << 20)
    results.attempt("bad", "a bad step", lambda: (_ for _ in ()).throw(StepFailed("no room")))
    machine = Machine(2, 8 << 30, "A Processor", "Linux", 0.5, {"Python": "3.11"})
    text = markdown(machine, results.rows, verdicts(results, [1]), "python -m bench")
    assert "2 cores of A Processor, 8 GiB" in text
    assert "| a sync | 12.5 | 80 | start 1.0 s, Python 1 MiB |" in text
    assert "| a bad step | - |  | **failed**: StepFailed: no room |" in text
    assert socket.gethostname() not in text


def test_the_comparison_marks_where_the_template_is_wrong() -> None:
    """One line each, defects by number."""
    text = table([Line(1, "ghosts", 4, 0, 0), Line(6, "times", 0, 0, 0), Line(100, "rows in all", 5, 5, 5)])
    assert [line.endswith("<") for line in text.splitlines()] == [False, True, False, False]
    assert text.splitlines()[1].split() == ["1", "ghosts", "4", "0", "0", "<"]


def test_a_process_is_measured_from_outside(tmp_path: Path) -> None:
    """Its lines, its memory; one that fails says the end of its errors."""
    program = "import time; data = b'x' * (64 << 20); print('{\"a\": 1}', flush=True); time.sleep(0.6)"
    ended = run_process(["-c", program], tmp_path)
    assert ended.objects == [{"a": 1}]
    assert (ended.python_bytes > 60 << 20, ended.jvm_bytes) == (True, 0)
    with pytest.raises(StepFailed, match="exit 3: sorry"):
        run_process(["-c", "import sys; sys.stderr.write('sorry'); sys.exit(3)"], tmp_path)
