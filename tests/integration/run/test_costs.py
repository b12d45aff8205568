"""What a run costs, by counts and not by times: requests, jobs, files rewritten, snapshots (issues 5, 15)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyspark
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from dicom_emulator.state.timestamps import TICKS_PER_SECOND
from dicom_etl.commands.maintain import maintain
from dicom_etl.lake.open import existing_lake
from dicom_etl.lake.snapshot import LakeSnapshot, opened
from dicom_etl.lake.statistics import rows_within, shared_rows
from dicom_etl.run import merge
from dicom_etl.tables import compact
from dicom_etl.tables.engine.session import Engine
from dicom_etl.tables.file_skipping import study_ranges
from support.site import Site, at, text_at, ticks_at

INSTANCES = 20
SHARED = ("instance", "series", "study")
# Counted: 31; on Spark 3.5 six more, since each MERGE is looked up in its table's history.
MOST_JOBS = 34 if pyspark.__version__ >= "4" else 40
FIRST, LAST = 1, 6


def hour_of_one_study(site: Site, hour: int) -> None:
    for number in range(INSTANCES):
        site.create(f"1.{hour}", f"1.{hour}.1", f"1.{hour}.1.{number}", modality="CT", at_ticks=ticks_at(hour) + number)
    site.clock(hour + 1.5)


@pytest.fixture(scope="module")
def lake(make_shared_site: Callable[..., Site]) -> tuple[Site, list[int]]:
    """Six hours, a study each, a run each; and how many jobs each run took."""
    site = make_shared_site()
    jobs = []
    for hour in range(FIRST, LAST + 1):
        hour_of_one_study(site, hour)
        before = _jobs(site)
        (run,) = site.sync()
        assert run.inserted == INSTANCES
        jobs.append(_jobs(site) - before - 1)
    return site, jobs


def _jobs(site: Site) -> int:
    """How many jobs Spark has had, this one included."""
    assert site.spark is not None
    site.spark.range(1).count()
    return max(site.spark.sparkContext.statusTracker().getJobIdsForGroup(None)) + 1


@dataclass
class Snapshots:
    """How many snapshots of tables delta-rs has opened, and how many it has brought up to date."""

    opened: int = 0
    refreshed: int = 0


@contextmanager
def counted_snapshots() -> Iterator[Snapshots]:
    """Count them in the block."""
    counts = Snapshots()
    real_open, real_refresh = DeltaTable.__init__, DeltaTable.update_incremental

    def opened(table: DeltaTable, *given: Any, **named: Any) -> None:
        counts.opened += 1
        real_open(table, *given, **named)

    def refreshed(table: DeltaTable) -> None:
        counts.refreshed += 1
        real_refresh(table)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(DeltaTable, "__init__", opened)
        patched.setattr(DeltaTable, "update_incremental", refreshed)
        yield counts


def metrics(site: Site, table: str) -> dict[str, Any]:
    """Of the newest commit."""
    return dict(site.opened(table).history(1)[0]["operationMetrics"])


def test_a_run_takes_no_more_jobs_as_the_tables_grow(lake: tuple[Site, list[int]]) -> None:
    """The sixth run as many as the second, and not more than were counted when this was written."""
    _, jobs = lake
    assert len(jobs) == LAST
    assert jobs[0] > 10, "they are counted"
    assert max(jobs[1:]) <= MOST_JOBS
    assert jobs[-1] <= jobs[1] + 2


def test_the_entries_of_a_run_are_folded_once(lake: tuple[Site, list[int]], tmp_path: Path) -> None:
    """Its MERGE opens no file of `change`: what was counted is what is merged; Spark is tuned for them alone."""
    site = lake[0].copied(tmp_path)
    real, change = merge.merge_instance, site.root / "change"
    real_session = Engine.session
    tuned_for: list[int] = []

    def session(engine: Engine, rows: int) -> SparkSession:
        tuned_for.append(rows)
        return real_session(engine, rows)

    def without_change(*given: Any, **named: Any) -> Any:
        files = list(change.glob("*.parquet"))
        for file in files:
            file.rename(file.with_suffix(".away"))
        done = real(*given, **named)
        for file in files:
            file.with_suffix(".away").rename(file)
        return done

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(merge, "merge_instance", without_change)
        patched.setattr(Engine, "session", session)
        (run,) = site.sync(start=text_at(3), end=text_at(4))
    assert (run.entries_read, run.superseded) == (INSTANCES, INSTANCES)
    assert tuned_for == [INSTANCES]


def test_a_window_of_new_studies_rewrites_nothing(lake: tuple[Site, list[int]]) -> None:
    """Each run has added a file to each table, and removed none."""
    site, _ = lake
    for table in SHARED:
        commits = [c for c in site.opened(table).history() if c["operation"] == "MERGE"]
        assert len(commits) == LAST, table
        for commit in commits:
            assert int(commit["operationMetrics"]["numTargetFilesRemoved"]) == 0, table
        assert len(site.files(table)) == LAST, table


def test_only_the_files_of_a_study_are_in_reach(lake: tuple[Site, list[int]]) -> None:
    """By the bounds of the files: one study of six means the rows of one file of each table."""
    site, _ = lake
    snapshot = existing_lake(site.settings)
    assert shared_rows(snapshot) == LAST * (INSTANCES + 1 + 1)
    assert rows_within(snapshot, study_ranges(["1.3"])) == INSTANCES + 1 + 1
    assert rows_within(snapshot, study_ranges(["1.3", "1.5"])) == 2 * (INSTANCES + 1 + 1)
    assert rows_within(snapshot, []) == 0


def test_an_update_rewrites_the_files_of_its_study_alone(lake: tuple[Site, list[int]]) -> None:
    """One instance of one study of six: one file of six is written anew in each table."""
    site, _ = lake
    site.service.clock.freeze(at(LAST + 1.6), step=TICKS_PER_SECOND)
    site.update("1.3", "1.3.1", "1.3.1.7", modality="CT", name="Late")
    site.clock(LAST + 2.5)
    (run,) = site.sync()
    assert run.updated == 1
    for table, copied in (("instance", INSTANCES - 1), ("series", 0), ("study", 0)):
        found = metrics(site, table)
        assert int(found["numTargetFilesRemoved"]) == 1, table
        assert int(found["numTargetRowsCopied"]) == copied, table


def snapshots_of_a_run(site: Site) -> tuple[Any, Snapshots]:
    """One sync of a lake that is there, and what it opened."""
    with counted_snapshots() as counts:
        (run,) = site.sync(init=False, accounted=False)
    return run, counts


def test_a_run_opens_each_table_once(lake: tuple[Site, list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its claim; after it, and where it asks what is there by now, it reads the commits that are new.

    Opening a table costs several requests on Azure, each of them tens of milliseconds.
    """
    site, _ = lake
    hour_of_one_study(site, LAST + 3)
    run, with_entries = snapshots_of_a_run(site)
    assert run.inserted == INSTANCES
    assert (with_entries.opened, with_entries.refreshed) == (6, 13)
    site.clock(LAST + 5.5)
    run, empty = snapshots_of_a_run(site)
    assert run.entries_read == 0
    assert (empty.opened, empty.refreshed) == (6, 9)

    monkeypatch.setattr(LakeSnapshot, "get", lambda snapshot, name: opened(snapshot.lake.paths, name))
    site.clock(LAST + 6.5)
    _, broken = snapshots_of_a_run(site)
    assert broken.opened > 20, "a snapshot that opens its tables for each answer is noticed"


def test_requests_grow_with_the_entries_alone(make_site: Callable[..., Site]) -> None:
    """1 000 entries are five pages; a run asks for at most a tenth more, two for each connection, and a few besides."""
    site = make_site("dicom.connections=4")
    for number in range(1_000):
        site.create("1.1", "1.1.1", f"1.1.1.{number}", at_ticks=ticks_at(1) + number * TICKS_PER_SECOND)
    site.clock(2.5)
    site.service.requests.clear()
    (run,) = site.sync()
    assert run.entries_read == 1_000
    asked = site.service.requests.all()
    pages = [one for one in asked if one.path == "/v2/changefeed" and one.query["includeMetadata"] != "false"]
    assert 5 <= run.pages == len(pages) <= 5 * 1.1 + 2 * 4
    assert len(asked) - len(pages) <= 8, "the clock, the feed's age, and late rows"
    assert max(int(one.query["offset"] or 0) for one in pages) <= 1, "no deep offset"


@pytest.mark.soak
def test_many_runs_do_not_become_many_files(make_site: Callable[..., Site]) -> None:
    """Maintenance joins what the runs have written, the private tables included; again, it has nothing to do."""
    site = make_site()
    for hour in range(1, 5):
        hour_of_one_study(site, hour)
        site.sync()
    before = site.tables()
    names = ("run", "change", *SHARED)
    assert {name: len(site.files(name)) for name in names} == dict.fromkeys(names, 4)
    done = {one.table: one for one in maintain(site.settings, spark=site.spark, clock=lambda: at(6))}
    assert {name: (done[name].files_compacted, done[name].files_written) for name in names} == dict.fromkeys(
        names, (4, 1)
    )
    assert site.tables() == before
    versions = {name: site.version(name) for name in (*SHARED, "change")}
    again = list(maintain(site.settings, spark=site.spark, clock=lambda: at(7)))
    assert [(one.files_compacted, one.files_freed) for one in again] == [(0, 0)] * 6
    assert {name: site.version(name) for name in versions} == versions, "nothing to do is nothing done"


@pytest.mark.soak
@pytest.mark.parametrize(("cube", "rewritten"), [(1_000, 3), (10**9, 4)], ids=["as it is", "broken: one cube for all"])
def test_what_was_clustered_is_left_alone(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch, cube: int, rewritten: int
) -> None:
    """Beyond the size of a cube only what is new is rewritten; within it everything is, as Delta would by itself."""
    monkeypatch.setattr(compact, "cube_bytes", lambda _table_bytes: cube)
    site = make_site()
    compacted = []
    for first in (1, 4):
        for hour in range(first, first + 3):
            hour_of_one_study(site, hour)
            site.sync()
        done = {one.table: one for one in maintain(site.settings, spark=site.spark, clock=lambda: at(8))}
        compacted.append(done["instance"].files_compacted)
    assert compacted == [3, rewritten]
    assert site.tables() == site.expected()
