"""What a cluster's session says otherwise: another calendar, file system and codec, and auto compaction."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from delta.tables import DeltaMergeBuilder
from pyspark.sql import SparkSession

from dicom_etl.commands.query import answer
from dicom_etl.commands.verify.verify import verify
from dicom_etl.core.errors import StorageError
from dicom_etl.tables import merge as tables
from dicom_etl.tables.compact import MaintenancePlan, maintain_table, purge_changes
from dicom_etl.tables.engine import location, session
from dicom_etl.tables.engine.location import sql_name
from dicom_etl.tables.merge import Fence, MergeResult, create_table, merge_instance, read_table
from dicom_etl.tables.schema import INSTANCE, TableDesign
from support.broken import Mutant, assert_caught
from support.frames import instance, source_frame
from support.site import TABLES, Site, at, table_rows, text_at

# The first and the last date that DICOM can write, and the days between which the calendars part.
DATES = {"1.1": date(1, 1, 1), "1.2": date(1582, 10, 4), "1.3": date(1582, 10, 15), "1.4": date(9999, 12, 31)}
LEGACY = {
    f"spark.sql.parquet.{kind}RebaseModeIn{way}": "LEGACY"
    for kind in ("datetime", "int96")
    for way in ("Read", "Write")
}
CLUSTER = {
    **LEGACY,
    "spark.sql.legacy.timeParserPolicy": "LEGACY",
    "spark.sql.parquet.outputTimestampType": "INT96",
    "spark.sql.parquet.compression.codec": "snappy",
}
# Two files are enough for it.
EAGER = {"spark.databricks.delta.autoCompact.minNumFiles": "2"}
# All that a folder may be called; an encoded character is refused (test_settings).
ODD = "Müller's [x] {y,z} #1? 100% a=b;c,d:e*$+&~@\""


@contextmanager
def saying(settings: dict[str, str]) -> Iterator[None]:
    """Let the cluster say so: each session that is made meanwhile begins with it."""
    made = SparkSession.newSession

    def new(session: SparkSession) -> SparkSession:
        fresh = made(session)
        for name, value in settings.items():
            fresh.conf.set(name, value)
        return fresh

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SparkSession, "newSession", new)
        yield


@contextmanager
def another_file_system(spark: SparkSession) -> Iterator[None]:
    """Let a path without a scheme lie where nothing can be opened, as on a cluster with a file system of its own."""
    hadoop: Any = spark.sparkContext._jsc.hadoopConfiguration()
    before = hadoop.get("fs.defaultFS")
    hadoop.set("fs.defaultFS", "nowhere://cluster")
    try:
        yield
    finally:
        hadoop.set("fs.defaultFS", before)


@pytest.fixture
def cluster(spark: SparkSession) -> Iterator[SparkSession]:
    """What a cluster hands in that says everything otherwise."""
    with saying(CLUSTER), another_file_system(spark):
        given = spark.newSession()
        assert {name: given.conf.get(name) for name in CLUSTER} == CLUSTER
        yield given


def dates(site: Site, table: str) -> dict[str, date]:
    """The date of each row's study, as delta-rs reads it."""
    return {row["studyInstanceUid"]: row["studyDate"] for row in site.rows(table)}


def bounds(site: Site, table: str) -> tuple[date, date]:
    """The least and the greatest date, by what the log says of the files: readers skip files by it."""
    files = pa.table(site.opened(table).get_add_actions(flatten=True))
    return min(files["min.studyDate"].to_pylist()), max(files["max.studyDate"].to_pylist())


def entries_as_written(site: Site) -> set[tuple[str, str]]:
    """How the files of ``change`` hold times and headers: physical type of the one, compression of the other."""
    found = set()
    for uri in site.files("change"):
        group = pq.ParquetFile(unquote(uri)).metadata.row_group(0)
        columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
        found.add((columns["timestamp"].physical_type, columns["metadata"].compression))
    return found


@pytest.mark.soak
def test_dates_and_files_are_ours_whatever_the_cluster_says(site: Site, cluster: SparkSession) -> None:
    """Through sync, roll-up, purge, compaction, verify and query, in a folder that may be called anything."""
    odd = replace(site, folder=site.folder / ODD)
    odd.folder.mkdir()
    for hour, studies in ((9, ("1.1", "1.2")), (10, ("1.3", "1.4"))):
        for study in studies:
            odd.create(study, f"{study}.1", f"{study}.1.1", date=f"{DATES[study].year:04}{DATES[study]:%m%d}", name="A")
        if hour == 10:  # rows that are read and written again
            odd.update("1.1", "1.1.1", "1.1.1.1", date="00010101", name="B")
        odd.clock(hour + 0.5)
        odd.sync(until=text_at(hour + 0.25), spark=cluster)
    assert [run["entriesRead"] for run in odd.ledger()] == [2, 3]

    # A file of which one entry stays is written by Spark.
    assert purge_changes(cluster, odd.place("change"), up_to_run=2, kept_sequence=5) == 4
    assert [(row["sequence"], row["studyDate"]) for row in odd.rows("change")] == [(5, date(1, 1, 1))]
    assert entries_as_written(odd) == {("INT64", "ZSTD")}
    for table in TABLES:
        work = MaintenancePlan(0, 1_000_000, retention=False, vacuum=False)
        done = maintain_table(cluster, table, odd.place(table), 720, work)
        assert done.files_compacted > 0
        assert (len(odd.rows(table)), dates(odd, table)) == (4, DATES)
        assert bounds(odd, table) == (date(1, 1, 1), date(9999, 12, 31))
    assert verify(odd.settings, metadata=True, spark=cluster, clock=lambda: at(11)).equal
    early = "SELECT studyInstanceUid, studyDate FROM study WHERE studyDate < DATE '1582-10-15'"
    with answer(odd.settings, early, spark=cluster) as rows:
        assert {row[0]: row[1] for row in rows.collect()} == {"1.1": date(1, 1, 1), "1.2": date(1582, 10, 4)}


# -- each guard alone ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """A cluster, and a folder to write into."""

    cluster: SparkSession
    folder: Path

    def instance(self, **properties: str) -> str:
        """The place of an empty table."""
        path = str(self.folder / ODD / "instance")
        given = session.cluster_session(self.cluster)
        create_table(given, INSTANCE, path, TableDesign((), 720, False, properties))
        return path

    def merge(self, path: str, run_id: int) -> MergeResult:
        """One MERGE of an instance that is new."""
        rows = [instance(f"{run_id}", run_id, effect="upsert")]
        return merge_instance(
            self.cluster, path, lambda s: source_frame(s, rows), [("1.1", "1.1")], Fence("app", run_id)
        )


@pytest.fixture
def stage(cluster: SparkSession, tmp_path: Path) -> Stage:
    return Stage(cluster, tmp_path)


def check_dates(stage: Stage) -> None:
    """What pyarrow wrote, as it writes `change`, is read as it is, and what Spark writes is for every reader."""
    given, written = stage.folder / "given.parquet", stage.folder / "written"
    pq.write_table(pa.table({"day": [*DATES.values()]}), given)
    ours = session.cluster_session(stage.cluster)
    read = ours.read.parquet(location.location(str(given)))
    assert [row["day"] for row in read.collect()] == [*DATES.values()], "dates are read as they are"
    days = ours.sql(" UNION ALL ".join(f"SELECT DATE '{day.isoformat()}' AS day" for day in DATES.values()))
    days.write.parquet(location.location(str(written)))
    stored = [day for file in written.glob("*.parquet") for day in pq.read_table(file)["day"].cast("int32").to_pylist()]
    # In days, since a date that is shifted may be none that Python has.
    assert sorted(stored) == [(day - date(1970, 1, 1)).days for day in DATES.values()], "dates are written as they are"


def _without(setting: str) -> dict[str, str]:
    return {name: value for name, value in session._SESSION.items() if name != setting}


MUTANTS = [
    Mutant("read by the cluster's calendar", check_dates, session, "_SESSION",
           _without("spark.sql.parquet.datetimeRebaseModeInRead"), "dates are read as they are"),
    Mutant("written by the cluster's calendar", check_dates, session, "_SESSION",
           _without("spark.sql.parquet.datetimeRebaseModeInWrite"), "dates are written as they are"),
]  # fmt: skip


def test_dates_are_what_the_files_say(stage: Stage) -> None:
    """The check below is the one that the product meets."""
    check_dates(stage)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.rule)
def test_the_broken_twin_is_caught(stage: Stage, mutant: Mutant) -> None:
    """With the guard broken the very same check fails, by its own assertion."""
    assert_caught(mutant, stage)


def test_every_calendar_is_named() -> None:
    """Dates and both kinds of times, read and written."""
    assert {name: session._SESSION[name] for name in LEGACY} == dict.fromkeys(LEGACY, "CORRECTED")


def operations(path: str) -> list[str]:
    """What each version of a table did. (delta-rs finds no history in such a folder.)"""
    commits = [file.read_text().splitlines() for file in sorted(Path(path, "_delta_log").glob("*.json"))]
    return [json.loads(line)["commitInfo"]["operation"] for lines in commits for line in lines if "commitInfo" in line]


def _compacting(spark: SparkSession, fence: Fence, real: Any = tables.fenced_session) -> SparkSession:
    """As a platform may have it that heeds its own setting only."""
    made: SparkSession = real(spark, fence)
    made.conf.set("spark.databricks.delta.autoCompact.enabled", "true")
    return made


@pytest.mark.soak
def test_nothing_is_compacted_between_the_commits_of_a_run(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the table asks for it. Where a platform does it all the same (the twin), counts are those of the MERGE.

    The twin's MERGEs return nothing, as those of Delta 3.2.
    """
    with saying(EAGER):
        path = stage.instance(**{"delta.autoOptimize.autoCompact": "true"})
        assert [stage.merge(path, run_id) for run_id in (1, 2)] == [MergeResult(1, 0, 0, 1), MergeResult(1, 0, 0, 2)]
        assert operations(path) == ["CREATE TABLE", "MERGE", "MERGE"]

        monkeypatch.setattr(tables, "fenced_session", _compacting)
        execute = DeltaMergeBuilder.execute
        monkeypatch.setattr(DeltaMergeBuilder, "execute", lambda merge: execute(merge) and None)
        merged = stage.merge(path, 3)
    assert operations(path)[3:] == ["MERGE", "OPTIMIZE"]
    assert merged == MergeResult(1, 0, 0, 3)


def test_a_local_folder_is_named_with_its_file_system(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spark opens the very folder that delta-rs opens; a plain path lies in the cluster's file system (the twin)."""
    path = stage.instance()
    stage.merge(path, 1)
    assert [row["sequence"] for row in table_rows(path)] == [1]
    assert read_table(stage.cluster, path).count() == 1
    assert sql_name("/a`b") == "delta.`file:/a``b`"
    assert location.location("abfss://c@a.dfs.core.windows.net/x") == "abfss://c@a.dfs.core.windows.net/x"
    monkeypatch.setattr(tables, "location", lambda place: place)
    with pytest.raises(StorageError, match="instance"):
        stage.merge(path, 2)


def test_work_on_whole_tables_is_not_tuned_for_a_few_rows(stage: Stage) -> None:
    """A session of ours may be tuned for a small window; what a cluster has set is left as it is."""
    tuned = session.cluster_session(stage.cluster)
    for key, value in session._QUICK.items():
        tuned.conf.set(key, value)
    whole = session.whole_tables_session(tuned)
    assert (tuned.conf.get("spark.sql.adaptive.enabled"), whole.conf.get("spark.sql.adaptive.enabled")) == (
        "false", "true",
    )  # fmt: skip
    assert int(whole.conf.get("spark.sql.shuffle.partitions") or 0) > 1
    tuned.conf.set("spark.sql.codegen.factoryMode", "FALLBACK")
    tuned.conf.set("spark.sql.shuffle.partitions", "7")
    assert session.whole_tables_session(tuned).conf.get("spark.sql.shuffle.partitions") == "7"
