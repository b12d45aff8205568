"""Whole syncs against the local service: the tables equal what it holds, and the ledger tells the truth."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from dicom_emulator.serve import serve_in_thread
from dicom_emulator.testing.faults import Fault
from dicom_etl.commands.sync import planned
from dicom_etl.commands.sync_request import request
from dicom_etl.core.errors import ConfigurationError, DataError, StorageError, Superseded
from dicom_etl.lake.claims.claim import claim
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.status import status
from dicom_etl.run import merge, roll_up
from dicom_etl.tables.merge import Fence, MergeResult
from support.oracle import COLUMNS, moment
from support.site import HOUR, SECOND, Site, at, table_rows, text_at, ticks_at
from support.story import NoSpark, Story

CHAPTERS = ("first", "second", "nothing due", "old range again", "empty window")
SIZES = {"first": {"instance": 33, "series": 15, "study": 13}}
SIZES |= {chapter: {"instance": 26, "series": 13, "study": 13} for chapter in CHAPTERS[1:]}
TABLES = ("instance", "series", "study")


# -- the story: creates, then changes, then old windows again ------------------------------------------------


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_the_tables_equal_the_service(story: Story, chapter: str, table: str) -> None:
    """After each sync every column of every row is what an independent reading of the service gives."""
    told = story.chapters[chapter]
    assert len(told.expected[table]) == SIZES[chapter][table]
    assert told.tables[table] == told.expected[table]
    assert [list(row) for row in told.tables[table]] == [COLUMNS[table]] * SIZES[chapter][table]


def test_attributes_are_read_as_the_tables_say(story: Story) -> None:
    """Literal values of odd attributes, so that the oracle's own reading is checked too."""
    rows = {row["sopInstanceUid"]: row for row in story.chapters["first"].tables["instance"]}
    odd = rows["1.2.1.1"]
    assert {name: odd[name] for name in COLUMNS["instance"][5:12]} == {
        "studyDate": None,
        "studyDescription": "padded",
        "issuerOfPatientId": None,
        "patientId": "1.50",
        "patientName": None,
        "modality": None,
        "sopClassUid": None,
    }
    assert rows["1.2.1.3"]["studyInstanceUid"] == "1.2"
    assert (rows["1.2.1.3"]["patientName"], rows["1.2.1.3"]["studyDate"]) == ("Pädded^Ünïcode", None)
    assert rows["1.3.1.7"]["lastModifiedTimestamp"] == datetime(2024, 5, 1, 9, 0, 0, 123456, UTC)
    paths = [row["filePath"] for row in rows.values()]
    assert all(path.startswith("AHDS/emulator/dicom/dicom/") for path in paths)
    assert len({path for path in paths if (story.site.folder / "files" / path).is_file()}) == 6


def test_each_run_reads_what_is_due(story: Story) -> None:
    """Whole windows that ended by now - delay, in one run; a repeated sync has nothing to do; a range as asked."""
    assert {
        name: [(run.window_start, run.window_end, run.covered_until) for run in told.runs]
        for name, told in story.chapters.items()
    } == {
        "first": [(ticks_at(0), ticks_at(11), ticks_at(11))],
        "second": [(ticks_at(11), ticks_at(13), ticks_at(13))],
        "nothing due": [],
        "old range again": [(ticks_at(0), ticks_at(11), ticks_at(11))],
        "empty window": [(ticks_at(13), ticks_at(14), ticks_at(14))],
    }


@pytest.mark.parametrize("chapter", ["first", "second", "old range again", "empty window"])
def test_the_counts_are_those_of_each_entry(story: Story, chapter: str) -> None:
    """read = inserted + updated + deleted + superseded + rejected, each classified here entry by entry."""
    told = story.chapters[chapter]
    (run,) = told.runs
    names = ("inserted", "updated", "deleted", "superseded", "rejected")
    assert {name: getattr(run, name) for name in names} == {name: told.fates[name] for name in names}
    assert run.entries_read == told.fates.total() == {"first": 35, "second": 22, "old range again": 35}.get(chapter, 0)


def test_reading_an_old_range_again_changes_no_row(story: Story) -> None:
    """Old entries are Replaced and Deleted by now; refused or repeated, they leave the tables as they were."""
    assert story.chapters["old range again"].tables == story.chapters["second"].tables
    assert story.chapters["old range again"].fates["superseded"] > 0


def test_a_repeated_sync_writes_nothing(story: Story) -> None:
    """Nothing is due: no run, no row of the ledger, no file."""
    assert story.chapters["nothing due"].runs == []
    assert story.chapters["nothing due"].files == story.chapters["second"].files


def test_the_ledger_holds_every_run(story: Story) -> None:
    """One row a run, as it was given back, with who wrote it."""
    rows = story.site.ledger()
    assert [row["runId"] for row in rows] == [1, 2, 4, 5]  # 3 was the claim of a sync that found nothing due
    runs = [run for told in story.chapters.values() for run in told.runs]
    assert [Run.from_row(row) for row in rows] == runs
    assert {(row["verb"], row["status"], row["writerVersion"]) for row in rows} == {("sync", "succeeded", "0.1.0")}
    assert [row["entriesRead"] for row in rows] == [35, 22, 35, 0]


@pytest.mark.parametrize("chapter", ["first", "second", "old range again", "empty window"])
def test_the_versions_of_the_ledger_give_the_tables_of_that_run(story: Story, chapter: str) -> None:
    """A reader who takes the versions of a succeeded row sees three tables that fit each other."""
    told = story.chapters[chapter]
    (run,) = told.runs
    versions = {"instance": run.instance_version, "series": run.series_version, "study": run.study_version}
    for table, version in versions.items():
        rows = story.site.rows(table, version)
        assert len(rows) == SIZES[chapter][table]
        assert sorted(map(str, rows)) == sorted(map(str, told.tables[table]))


def test_an_empty_window_needs_no_spark(story: Story) -> None:
    """It ends with its row of the ledger; the session that was given would have failed the test."""
    (run,) = story.chapters["empty window"].runs
    assert (run.status, run.entries_read, run.start_seconds) == ("succeeded", 0, 0.0)
    assert (run.instance_version, run.change_version) == (
        story.site.version("instance"),
        story.site.version("change"),
    )


def test_change_keeps_every_header_verbatim(story: Story) -> None:
    """What the run read, byte for byte, also of what is gone or replaced by now; and times to 100 ns."""
    rows = [row for row in story.site.rows("change") if row["runId"] in (2, 4)]
    live = {one.sequence: one for one in story.site.service.live_instances()}
    current = [row for row in rows if row["sequence"] in live]
    assert len(current) == 26
    for row in current:
        assert row["metadata"].encode() == live[row["sequence"]].metadata
        assert (row["timestampTicks"], row["timestamp"]) == (live[row["sequence"]].ticks, moment(row["timestampTicks"]))
    gone = [row for row in rows if row["state"] == "Deleted"]
    assert len(gone) == 22
    assert {row["metadata"] for row in gone} == {None}


def test_the_headers_of_real_files_are_kept(story: Story) -> None:
    """All elements that the service served, not only the columns."""
    rows = {row["sopInstanceUid"]: row for row in story.site.rows("change") if row["runId"] == 1}
    for live in story.site.service.live_instances():
        if live.key.sop in rows and rows[live.key.sop]["filePath"] == live.file_path:
            assert rows[live.key.sop]["metadata"].encode() == live.metadata
    assert max(len(json.loads(row["metadata"] or "{}")) for row in rows.values()) > 50


def test_run_ids_are_markers_in_every_table(story: Story) -> None:
    """The last run that wrote rows has left its id in each table, for the next to be fenced by."""
    lake_id = story.site.opened("run").metadata().configuration["dicomEtl.lakeId"]
    markers = {
        name: story.site.opened(name).transaction_version(f"{lake_id}/{name}")
        for name in ("instance", "series", "study", "change", "run")
    }
    assert markers == {"instance": 4, "series": 4, "study": 4, "change": 4, "run": 5}


# -- windows and coverage ------------------------------------------------------------------------------------


@pytest.mark.soak
def test_windows_are_cut_by_the_number_of_entries(make_site: Callable[..., Site]) -> None:
    """A run takes contiguous due windows up to max_entries_per_run, at least one, and stops at an edge."""
    site = make_site("feed.max_entries_per_run=10", "feed.batch_size=7")
    per_hour = {0: 6, 1: 3, 2: 5, 3: 20}
    for hour, count in per_hour.items():
        for number in range(count):
            ticks = ticks_at(hour) + number * SECOND
            site.create(f"1.{hour}", f"1.{hour}.1", f"1.{hour}.1.{number}", at_ticks=ticks, name=f"N{number}")
    site.clock(6.5)

    first = site.sync(max_runs=1)
    assert [(run.window_start, run.window_end) for run in first] == [(ticks_at(0), ticks_at(2))]
    assert len(site.rows("instance")) == 9
    rest = site.sync()
    assert [(run.window_start, run.window_end, run.entries_read) for run in rest] == [
        (ticks_at(2), ticks_at(3), 5),
        (ticks_at(3), ticks_at(4), 20),
        (ticks_at(4), ticks_at(6), 0),
    ]
    assert site.tables() == site.expected()
    assert [row["entriesRead"] for row in site.ledger()] == [9, 5, 20, 0]
    # What was read beyond a cut is not kept.
    assert len(site.rows("change")) == 34


@pytest.mark.soak
def test_coverage_ends_at_now_minus_delay(make_site: Callable[..., Site]) -> None:
    """--until reads an open range, but only what was closed by the slower of both clocks counts as covered."""
    site = make_site()
    site.create("1.1", "1.1.1", "1.1.1.1", name="Closed", at_ticks=ticks_at(9))
    site.create("1.1", "1.1.1", "1.1.1.2", name="Open", at_ticks=ticks_at(9.9))
    site.clock(10)
    # Our clock is three hours ahead of the service's, and the end lies in the future of both.
    (run,) = site.sync(until=text_at(20), now=at(13))
    assert (run.window_start, run.window_end, run.covered_until) == (ticks_at(0), ticks_at(20), ticks_at(9.75))
    assert run.inserted == 2

    site.create("1.1", "1.1.1", "1.1.1.3", name="Late", at_ticks=ticks_at(9.8))
    site.clock(12)
    # Ours is behind now: nothing is due yet by it.
    assert [
        (w.start, w.end) for w in planned(site.settings, request(None, None, None, None), clock=lambda: at(10.2))
    ] == []
    (run,) = site.sync(now=at(12.1))
    assert (run.window_start, run.window_end, run.covered_until) == (ticks_at(9.75), ticks_at(11), ticks_at(11))
    assert (run.entries_read, run.inserted, run.updated, run.superseded) == (2, 1, 0, 1)
    assert site.tables() == site.expected()

    # Other windows later on, and ranges by hand, leave no hole and repeat nothing.
    site.clock(13)
    assert [
        (w.start, w.end)
        for w in planned(site.having("feed.window=30m").settings, request(None, None, None, None), clock=lambda: at(13))
    ] == [(ticks_at(11), ticks_at(12.5))]
    site.sync(start=text_at(11.25), end=text_at(11.5), spark=NoSpark())
    assert [
        (w.start, w.end) for w in planned(site.settings, request(None, None, None, None), clock=lambda: at(13))
    ] == [(ticks_at(11), ticks_at(11.25)), (ticks_at(11.5), ticks_at(12))]
    assert len(site.sync(spark=NoSpark())) == 2
    assert status(site.settings, clock=lambda: at(13)).covered_until == ticks_at(12)


def test_an_empty_feed_makes_empty_tables_once(make_site: Callable[..., Site]) -> None:
    """The first run of a lake makes the three tables; later empty windows start no JVM."""
    site = make_site()
    (run,) = site.sync()
    assert (run.entries_read, run.window_end) == (0, ticks_at(7))
    assert site.tables() == {"instance": [], "series": [], "study": []}
    site.service.clock.advance(2 * HOUR)
    (run,) = site.sync(spark=NoSpark())
    assert (run.window_start, run.window_end) == (ticks_at(7), ticks_at(9))
    assert [row["status"] for row in site.ledger()] == ["succeeded", "succeeded"]


@pytest.mark.soak
def test_a_range_that_is_read_again_rewrites_nothing(make_site: Callable[..., Site]) -> None:
    """`--until` four times: what is equal counts as superseded, and no file changes; what differs is still merged."""
    site = make_site()
    for sop in ("1", "2"):
        site.create("1.1", "1.1.1", f"1.1.1.{sop}", name=f"N{sop}", modality="CT")
    site.create("1.2", "1.2.1", "1.2.1.1")
    site.service.delete("Microsoft.Default", "1.2")
    (run,) = site.sync(until=text_at(8.2))
    assert (run.entries_read, run.inserted, run.superseded) == (4, 2, 2)
    files = {name: site.files(name) for name in ("instance", "series", "study")}
    for _ in range(3):
        (run,) = site.sync(until=text_at(8.2))
        assert (run.entries_read, run.inserted, run.updated, run.deleted, run.superseded) == (4, 0, 0, 0, 4)
        assert {name: site.files(name) for name in files} == files
    # The same entry, whose instance was deleted and whose path was taken away since.
    site.service.history.of_key(("Microsoft.Default", "1.1", "1.1.1", "1.1.1.2"))[0].file_path = "elsewhere"
    site.service.delete("Microsoft.Default", "1.1", "1.1.1", "1.1.1.1", at_ticks=ticks_at(8.1))
    (run,) = site.sync(until=text_at(8.2))
    assert (run.entries_read, run.updated, run.deleted, run.superseded) == (5, 1, 1, 3)
    rows = [(row["sopInstanceUid"], row["filePath"]) for row in site.rows("instance")]
    assert rows == [("1.1.1.2", "elsewhere")]
    assert [row["instanceCount"] for row in site.rows("study")] == [1]


# -- rejects -------------------------------------------------------------------------------------------------


def test_a_bad_entry_is_rejected_and_heals(make_site: Callable[..., Site]) -> None:
    """The rest converges, the row that stands is not overwritten, and the reject is resolved when it heals."""
    site = make_site()
    for number in range(5):
        site.create("1.1", "1.1.1", f"1.1.1.{number}", name=f"Old^{number}", modality="CT")
    site.clock(9.5)
    assert site.sync()[0].inserted == 5
    before = site.tables()

    site.update("1.1", "1.1.1", "1.1.1.0", name="New^0")  # sequence 6
    site.create("1.2", "1.2.1", "1.2.1.7", name="Bad^7")  # 7
    site.create("1.2", "1.2.1", "1.2.1.8", name="Good^8")  # 8
    site.service.faults.add(Fault(sequences=(6, 7)))
    site.clock(11)
    (run,) = site.sync()
    assert (run.entries_read, run.inserted, run.updated, run.rejected) == (3, 1, 0, 2)
    rows = {row["sopInstanceUid"]: row for row in site.rows("instance")}
    assert len(rows) == 6
    assert rows["1.1.1.0"] == next(row for row in before["instance"] if row["sopInstanceUid"] == "1.1.1.0")
    assert [(r["sequence"], r["reason"], r["status"], r["studyInstanceUid"]) for r in _rejects(site)] == [
        (6, "metadata-unavailable", "open", "1.1"),
        (7, "metadata-unavailable", "open", "1.2"),
    ]
    assert status(site.settings).open_rejects == 2

    # Still bad at the next run, which finds an empty window: still open, no second row, and no JVM for it.
    site.clock(12)
    (run,) = site.sync(spark=NoSpark())
    assert (run.entries_read, run.rejected, run.status) == (0, 0, "succeeded")
    assert len(_rejects(site)) == 2
    assert status(site.settings).open_rejects == 2

    site.service.faults.clear()
    site.clock(13)
    (run,) = site.sync()
    assert (run.entries_read, run.inserted, run.updated, run.rejected) == (2, 1, 1, 0)
    assert site.tables() == site.expected()
    assert [(r["sequence"], r["status"]) for r in _rejects(site)] == [
        (6, "open"),
        (6, "resolved"),
        (7, "open"),
        (7, "resolved"),
    ]
    assert status(site.settings).open_rejects == 0


def test_every_kind_of_bad_entry_has_its_reason(make_site: Callable[..., Site]) -> None:
    """Unknown words, missing UIDs, metadata of a wrong type or absent: a reason each, and the good ones go in."""
    site = make_site()
    documents = {"1": b"[1]", "2": b'"text"', "3": b"17", "4": {}, "5": {}, "6": {}}
    events = {sop: site.create("1.1", "1.1.1", f"1.1.1.{sop}", document=d) for sop, d in documents.items()}
    events["4"].action = "Merge"
    events["5"].action = "create"
    events["6"].uids = ("1.1", " ", "1.1.1.6")
    site.create("1.1", "1.1.1", "1.1.1.7", name="Good")
    fates = site.fates(site.feed(8, 9), unusable=(1, 2, 3))
    site.clock(10)
    (run,) = site.sync()
    assert {r["sequence"]: r["reason"] for r in _rejects(site)} == {
        1: "metadata-not-object",
        2: "metadata-not-object",
        3: "metadata-not-object",
        4: "action-unknown",
        6: "uid-missing",
    }
    assert (run.entries_read, run.inserted, run.rejected) == (7, 2, 5)
    assert fates["rejected"] == 4
    assert {row["sopInstanceUid"] for row in site.rows("instance")} == {"1.1.1.5", "1.1.1.7"}
    assert [row["instanceCount"] for row in site.rows("study")] == [2]


@pytest.mark.soak
def test_the_state_decides_whatever_the_action_is_called(make_site: Callable[..., Site]) -> None:
    """Expired is removed, replaced waits; only what is Current by an unknown action is a reject, until it is not."""
    site = make_site()
    for sop in ("1", "2", "3"):
        site.create("1.1", "1.1.1", f"1.1.1.{sop}", name=f"Old^{sop}")  # sequences 1 to 3
    site.clock(9.5)
    site.sync()
    (expired,) = site.service.delete("Microsoft.Default", "1.1", "1.1.1", "1.1.1.1")  # 4
    expired.action = "Expire"
    site.update("1.1", "1.1.1", "1.1.1.2", name="Moved^2").action = "Move"  # 5
    site.update("1.1", "1.1.1", "1.1.1.3", name="Moved^3").action = "Move"  # 6
    site.clock(11)
    (run,) = site.sync()
    assert (run.entries_read, run.deleted, run.updated, run.rejected) == (3, 1, 0, 2)
    assert {row["patientName"] for row in site.rows("instance")} == {"Old^2", "Old^3"}
    rejects = _rejects(site)
    assert [(r["sequence"], r["reason"], r["status"]) for r in rejects] == [
        (5, "action-unknown", "open"), (6, "action-unknown", "open"),
    ]  # fmt: skip
    assert [r["sopInstanceUid"] for r in rejects] == ["1.1.1.2", "1.1.1.3"]

    # Both are overtaken by entries that are known: neither is Current any more.
    site.update("1.1", "1.1.1", "1.1.1.2", name="New^2")  # 7
    site.service.delete("Microsoft.Default", "1.1", "1.1.1", "1.1.1.3")  # 8
    site.clock(12.5)
    (run,) = site.sync()
    assert (run.entries_read, run.updated, run.deleted, run.superseded, run.rejected) == (4, 1, 1, 2, 0)
    assert site.tables() == site.expected()
    assert [(r["sequence"], r["status"]) for r in _rejects(site)] == [
        (5, "open"), (5, "resolved"), (6, "open"), (6, "void"),
    ]  # fmt: skip
    assert status(site.settings).open_rejects == 0


def _rejects(site: Site) -> list[dict[str, Any]]:
    return sorted(site.rows("rejected"), key=lambda row: (row["sequence"], row["runId"]))


# -- lakes that are not ours ---------------------------------------------------------------------------------


def test_a_lake_of_another_service_is_refused(story: Story) -> None:
    """78, before anything is asked or written."""
    before = story.site.ledger()
    other = story.site.having(f"dicom.base_url={story.site.emulator.base_url}/other")
    with pytest.raises(ConfigurationError, match="holds another service"):
        other.sync(spark=NoSpark())
    assert story.site.ledger() == before


def test_a_table_that_is_not_ours_is_refused(make_site: Callable[..., Site]) -> None:
    """65; the stranger's rows stay and nothing of ours is made beside them."""
    site = make_site()
    site.create("1.1", "1.1.1", "1.1.1.1", name="A")
    site.clock(12)
    write_deltalake(site.root / "series", pa.table({"a": [1]}))
    with pytest.raises(DataError, match="series was not made by dicom-etl"):
        site.sync(spark=NoSpark())
    assert table_rows(site.root / "series") == [{"a": 1}]
    assert sorted(path.name for path in site.root.iterdir() if not path.name.startswith("_")) == ["series"]


def test_a_service_made_anew_is_refused(copy: Site) -> None:
    """65: its sequences start again, and the guard would ignore them for ever."""
    tables = copy.tables()
    with serve_in_thread() as anew:
        site = replace(copy, emulator=anew)
        site.clock(16)
        site.create("1.9", "1.9.1", "1.9.1.1", name="Anew")
        site.clock(18)
        with pytest.raises(DataError, match="the feed has gone back"):
            site.sync(spark=NoSpark())
    assert copy.tables() == tables


def test_a_vanished_table_is_not_made_anew(copy: Site) -> None:
    """65: an empty table in its place would look like an empty archive."""
    (copy.root / "study").rename(copy.folder / "study")
    with pytest.raises(DataError, match="study has vanished"):
        copy.sync(start=text_at(13), end=text_at(14), spark=NoSpark())
    assert not (copy.root / "study").exists()


# -- failures ------------------------------------------------------------------------------------------------


class Broken(Exception):
    """What a bug might raise."""


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Iterator[None]:
    """Roll-ups fail, after the MERGE of instance."""

    def fail(*_: Any, **__: Any) -> MergeResult:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(roll_up, "merge_rollup", fail)
        yield


@pytest.mark.soak
def test_a_run_that_dies_between_the_merges_heals(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It leaves a failed row that counts its MERGE and covers nothing; the next run heals, also one without entries."""
    site = make_site()
    site.create("1.1", "1.1.1", "1.1.1.1", name="First", modality="CT")
    site.clock(9.5)
    site.sync()
    site.update("1.1", "1.1.1", "1.1.1.1", name="Second", modality="MR")
    site.create("1.2", "1.2.1", "1.2.1.1", name="New", modality="CT")
    site.clock(11)

    with failing(monkeypatch, StorageError("study: it broke")), pytest.raises(StorageError, match="it broke"):
        site.sync()
    failed = site.ledger()[-1]
    assert (failed["status"], failed["errorClass"]) == ("failed", "StorageError")
    assert (failed["entriesRead"], failed["inserted"], failed["updated"], failed["superseded"]) == (2, 1, 1, 0)
    assert failed["coveredUntil"] == failed["windowStart"]
    assert status(site.settings, clock=lambda: at(11)).covered_until == ticks_at(9)
    assert {row["patientName"] for row in site.rows("instance")} == {"Second", "New"}
    assert [row["patientName"] for row in site.rows("study")] == ["First"]

    # A range by hand without a single entry rolls up what the dead run has touched.
    (run,) = site.sync(start=text_at(1), end=text_at(2))
    assert (run.entries_read, run.status, run.completes) == (0, "succeeded", failed["runId"])
    assert site.tables() == site.expected()
    # Its windows are still due, and are read for good.
    (run,) = site.sync()
    assert (run.window_start, run.window_end, run.entries_read, run.superseded) == (ticks_at(9), ticks_at(10), 2, 2)
    assert site.tables() == site.expected()

    # A bug of ours is recorded by its class too, and no claim stays behind.
    site.update("1.1", "1.1.1", "1.1.1.1", name="Third")
    site.clock(13)
    with failing(monkeypatch, Broken("1.1.1.1 of Third")), pytest.raises(Broken):
        site.sync()
    assert [row["errorClass"] for row in site.ledger()] == [None, "StorageError", None, None, "Broken"]
    (run,) = site.sync()
    assert run.run_id == 6
    assert site.tables() == site.expected()


@pytest.mark.soak
def test_a_skipped_merge_is_noticed(make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch) -> None:
    """When a newer run has reached the table, this one stops, covers nothing and says so: superseded."""
    site = make_site()
    site.create("1.1", "1.1.1", "1.1.1.1", name="A")
    site.clock(9.5)
    real = merge.merge_instance

    def overtaken(spark: Any, path: str, source: Any, ranges: Any, fence: Fence, **how: Any) -> MergeResult:
        ahead = real(spark, path, lambda session: source(session).limit(0), ranges, Fence(fence.app_id, 7))
        assert ahead.version is not None
        return real(spark, path, source, ranges, fence, **how)

    with monkeypatch.context() as patched:
        patched.setattr(merge, "merge_instance", overtaken)
        with pytest.raises(Superseded, match="a newer run has written"):
            site.sync()
    assert site.rows("instance") == []
    assert [(row["runId"], row["status"], row["errorClass"]) for row in site.ledger()] == [
        (1, "superseded", "Superseded")
    ]
    # The next id is above every marker, or its MERGE would be skipped as well.
    (run,) = site.sync()
    assert (run.run_id, run.inserted) == (8, 1)
    assert site.tables() == site.expected()


# -- settings of the lake ------------------------------------------------------------------------------------


@pytest.mark.soak
def test_the_templates_layout_without_headers_and_with_other_paths(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    """Partitioned by partitionName, no metadata kept, private tables elsewhere and for this user only."""
    private = tmp_path / "private"
    site = make_site(
        "lake.layout=partitioned", "lake.keep_metadata=false", f"lake.private_root={private}",
        "lake.instance_path=dicom/instances", "lake.series_path=dicom/series", "lake.study_path=dicom/studies",
    )  # fmt: skip
    site.create("1.1", "1.1.1", "1.1.1.1", name="A", modality="CT")
    site.create("1.1", "1.1.1", "1.1.1.1", "clinic 2/ä", name="B", modality="MR")
    site.create("1.2", "1.2.1", "1.2.1.1", name="C")
    site.clock(9.5)
    site.sync()
    site.clock(10)
    site.service.delete("Microsoft.Default", "1.2")
    site.update("1.1", "1.1.1", "1.1.1.1", "clinic 2/ä", name="B2")
    site.clock(12)
    site.sync()

    names = {"instance": "dicom/instances", "series": "dicom/series", "study": "dicom/studies"}
    assert {DeltaTable(site.root / path).metadata().partition_columns[0] for path in names.values()} == {
        "partitionName"
    }
    expected = site.expected()
    assert [len(expected[name]) for name in TABLES] == [2, 2, 2]
    for name, path in names.items():
        rows = table_rows(site.root / path)
        assert sorted(rows, key=lambda row: row["partitionName"]) == expected[name]
    assert len(table_rows(private / "change")) == 5
    assert {row["metadata"] for row in table_rows(private / "change")} == {None}
    assert {row["patientName"] for row in table_rows(private / "change")} == {"A", "B", "B2", "C", None}
    modes = {stat.S_IMODE(path.stat().st_mode) for path in private.rglob("*")}
    assert modes == {0o700, 0o600}
    assert sorted(path.name for path in site.root.iterdir()) == ["_claims", "dicom", "run"]


def test_a_second_writer_is_told_at_once(copy: Site) -> None:
    """75: who writes and since when; nothing is changed."""
    from dicom_etl.core.errors import AnotherWriter

    tables, ledger = copy.tables(), copy.ledger()
    other = claim(
        *copy.storage.filesystem(copy.place("_claims")), verb="repair", last_known_run_id=0,
        clock=lambda: at(17), sleep=lambda _: None,
    )  # fmt: skip
    with other, pytest.raises(AnotherWriter, match="repair"):
        copy.sync(spark=NoSpark())
    assert (copy.tables(), copy.ledger()) == (tables, ledger)


def test_a_start_that_is_still_to_come_is_refused(copy: Site, command: Callable[..., tuple[int, str, str]]) -> None:
    """78: a mistyped year would look as if nothing were due and nothing lagged, for ever."""
    later = copy.having("feed.start=2124-05-01T00:00:00Z")
    for words in (["sync"], ["sync", "--dry-run"], ["status"], ["status", "--max-lag", "1h"]):
        code, out, err = command(later, *words)
        assert (code, out) == (78, ""), words
        said = err.splitlines()[-1].removeprefix("dicom-etl: ")
        assert said == "feed.start: 2124-05-01T00:00:00Z is still to come; name a time that is past"


@pytest.mark.soak
def test_a_range_that_is_not_over_says_what_it_covers(site: Site, command: Callable[..., tuple[int, str, str]]) -> None:
    """Rows may still come there until feed.delay has passed: whoever typed the wrong day sees it."""
    site.create("1.1", "1.1.1", "1.1.1.1", name="A")
    site.init().clock(9)
    said = []
    for start, end in ((7, 8.5), (8, 9), (32, 33)):
        code, out, err = command(site, "sync", "--start", text_at(start), "--end", text_at(end))
        assert code == 0, err
        said.append(out.splitlines()[-1].partition(" rejected")[2])
    assert said == ["", "; covers what is before 2024-05-01T08:45:00Z", "; covers nothing yet"]
    assert status(site.settings, clock=lambda: at(9)).covered_until == ticks_at(0)
