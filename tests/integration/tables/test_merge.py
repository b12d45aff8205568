"""The MERGEs on small tables: the guard, the marker, the ranges, what is rewritten, and what a new table is."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import delta.exceptions
import pytest
from deltalake import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.errors.exceptions.captured import CapturedException
from pyspark.sql import SparkSession

from dicom_etl.core.errors import DataError, StorageError, Superseded
from dicom_etl.tables.engine.errors import named_errors
from dicom_etl.tables.file_skipping import study_ranges
from dicom_etl.tables.merge import Fence, MergeResult, create_table, merge_instance, merge_rollup
from dicom_etl.tables.schema import INSTANCE, PARTITION_COLUMN, SERIES, TABLES, Table, TableDesign
from support.frames import NOON, instance, instances_frame, series_frame, source_frame
from support.oracle import COLUMNS
from support.site import table_rows

APP = "00000000-0000-0000-0000-000000000001"
IDENTITY = {"dicomEtl.lakeId": APP, "dicomEtl.service": "localhost", "dicomEtl.schemaVersion": "1"}


def make(spark: SparkSession, table: Table, path: Path, *, partitioned: bool = False) -> str:
    columns = (PARTITION_COLUMN,) if partitioned else ()
    create_table(spark, table, str(path), TableDesign(columns, 720, False, IDENTITY))
    return str(path)


def merge(spark: SparkSession, path: str, run_id: int, rows: list[dict[str, Any]]) -> MergeResult:
    """One MERGE of rows with their effect, with ranges made from them."""
    ranges = study_ranges(row["studyInstanceUid"] for row in rows)
    fence = Fence(f"{APP}/instance", run_id)
    return merge_instance(spark, path, lambda session: source_frame(session, rows), ranges, fence)


def upsert(sop: str, sequence: int, **given: Any) -> dict[str, Any]:
    return instance(sop, sequence, effect="upsert", patientName=f"run at {sequence}", **given)


def remove(sop: str, sequence: int, **given: Any) -> dict[str, Any]:
    return instance(sop, sequence, effect="remove", **given)


def stored(path: str) -> dict[tuple[str, ...], tuple[int | None, str | None]]:
    """Sequence and name of each row by (partition, study, series, sop); fails when a key is there twice."""
    rows = table_rows(path)
    found = {
        tuple(row[name] for name in COLUMNS["instance"][:4]): (row["sequence"], row["patientName"]) for row in rows
    }
    assert len(found) == len(rows)
    return found


@pytest.fixture(scope="module")
def guarded(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, MergeResult, MergeResult]:
    """A table with rows at sequence 10 and one without, then a MERGE of older, equal and newer entries."""
    path = make(spark, INSTANCE, tmp_path_factory.mktemp("guard") / "instance")
    keys = ("older", "equal", "newer", "remove older", "remove equal", "remove newer", "untouched")
    first = merge(spark, path, 1, [upsert(key, 10) for key in keys] + [remove("not there", 10)])
    # An adopted table has rows without a sequence.
    rows = instances_frame(spark, [instance("adopted", None), instance("adopted, removed", None)])
    rows.write.format("delta").mode("append").save(path)
    second = merge(
        spark, path, 2,
        [
            upsert("older", 9), upsert("equal", 10, filePath="again"), upsert("newer", 11), upsert("new", 1),
            upsert("adopted", 3), remove("remove older", 9), remove("remove equal", 10), remove("remove newer", 11),
            remove("adopted, removed", 3), remove("never there", 12),
            upsert("newer", 4, partitionName="q"), upsert("newer", 5, seriesInstanceUid="1.1.2"),
        ],
    )  # fmt: skip
    return path, first, second


def test_the_guard_lets_the_newer_win(guarded: tuple[str, MergeResult, MergeResult]) -> None:
    """Older entries are refused, equal ones refresh, rows without a sequence give way; nothing is there twice."""
    path, _, _ = guarded
    found = stored(path)
    mine = {key[3]: value for key, value in found.items() if key[:3] == ("p", "1.1", "1.1.1")}
    assert mine == {
        "older": (10, "run at 10"),
        "equal": (10, "run at 10"),
        "newer": (11, "run at 11"),
        "new": (1, "run at 1"),
        "adopted": (3, "run at 3"),
        "remove older": (10, "run at 10"),
        "untouched": (10, "run at 10"),
    }
    assert [row["filePath"] for row in table_rows(path) if row["sopInstanceUid"] == "equal"] == ["again"]
    assert {key: value for key, value in found.items() if key[3] == "newer" and key[:3] != ("p", "1.1", "1.1.1")} == {
        ("q", "1.1", "1.1.1", "newer"): (4, "run at 4"),
        ("p", "1.1", "1.1.2", "newer"): (5, "run at 5"),
    }


def test_a_merge_says_what_it_did(guarded: tuple[str, MergeResult, MergeResult]) -> None:
    """Rows inserted, updated and deleted, and the version it wrote."""
    path, first, second = guarded
    assert (first.inserted, first.updated, first.deleted, first.version) == (7, 0, 0, 1)
    assert (second.inserted, second.updated, second.deleted, second.version) == (3, 3, 3, 3)
    assert DeltaTable(path).version() == 3


@pytest.mark.parametrize("run_id", [1, 2])
def test_a_merge_below_the_marker_is_skipped(
    spark: SparkSession, guarded: tuple[str, MergeResult, MergeResult], run_id: int
) -> None:
    """The marker of run 2 stands in the table: run 2 again, or run 1, changes nothing, and that is told."""
    path, _, _ = guarded
    before = stored(path)
    skipped = merge(spark, path, run_id, [upsert("skipped", 99)])
    assert (skipped.version, skipped.inserted) == (None, 0)
    assert stored(path) == before
    assert DeltaTable(path).transaction_version(f"{APP}/instance") == 2


def test_ranges_hold_every_key_of_the_source(spark: SparkSession, tmp_path: Path) -> None:
    """Two hundred studies in at most 64 ranges, merged twice: every row matches itself, none is inserted again."""
    path = make(spark, INSTANCE, tmp_path / "instance")
    # As Delta orders strings: by bytes, where "Z" comes before "a" and both before what is not ASCII.
    studies = [f"1.2.{number * 7919}" for number in range(200)] + ["Z", "a", "ä", "🩻", "\uffee"]
    rows = [upsert("1", 1, studyInstanceUid=study) for study in studies]
    assert merge(spark, path, 1, rows).inserted == 205
    again = merge(spark, path, 2, rows)
    assert (again.inserted, again.updated) == (0, 205)
    assert len(stored(path)) == 205
    # An empty source still leaves its marker.
    assert merge(spark, path, 3, []).version == 3
    assert DeltaTable(path).transaction_version(f"{APP}/instance") == 3


def test_unchanged_rollups_rewrite_no_file(spark: SparkSession, tmp_path: Path) -> None:
    """The same rows again leave the same files, nulls included; 0 instances remove a row, and insert none."""
    path = make(spark, SERIES, tmp_path / "series")
    key = {"partitionName": "p", "studyInstanceUid": "1.1"}
    rows = [
        {**key, "seriesInstanceUid": "1.1.1", "instanceCount": 2, "lastModifiedTimestamp": NOON, "modality": None},
        {**key, "seriesInstanceUid": "1.1.2", "instanceCount": 1, "lastModifiedTimestamp": NOON, "modality": "CT"},
        {**key, "seriesInstanceUid": "1.1.3", "instanceCount": 0},
    ]

    def roll_up(run_id: int, rows: list[dict[str, Any]]) -> MergeResult:
        fence = Fence(f"{APP}/series", run_id)
        return merge_rollup(spark, SERIES, path, series_frame(spark, rows), [("1.1", "1.1")], fence)

    first = roll_up(1, rows)
    assert (first.inserted, first.updated, first.deleted) == (2, 0, 0)
    files = DeltaTable(path).file_uris()
    same = roll_up(2, rows)
    assert (same.inserted, same.updated, same.deleted, same.version) == (0, 0, 0, 2)
    assert DeltaTable(path).file_uris() == files
    assert DeltaTable(path).transaction_version(f"{APP}/series") == 2

    changed = roll_up(3, [{**rows[0], "modality": "MR"}, {**rows[1], "instanceCount": 0}, rows[2]])
    assert (changed.inserted, changed.updated, changed.deleted) == (0, 1, 1)
    assert [(row["seriesInstanceUid"], row["modality"]) for row in table_rows(path)] == [("1.1.1", "MR")]


@pytest.mark.parametrize("partitioned", [False, True], ids=["clustered", "partitioned"])
def test_equal_instances_rewrite_no_file(spark: SparkSession, tmp_path: Path, partitioned: bool) -> None:
    """The same entries again leave the same files and say so, nulls and more columns than ours included."""
    path = make(spark, INSTANCE, tmp_path / "instance", partitioned=partitioned)
    spark.sql(f"ALTER TABLE delta.`{path}` ADD COLUMNS (theirs string)")
    rows = [upsert("1", 1, modality="CT"), upsert("2", 2, partitionName="q"), upsert("3", 3, studyInstanceUid="1.2")]

    def again(run_id: int, rows: list[dict[str, Any]], stored: tuple[int, int] | None) -> tuple[int, ...]:
        ranges, fence = [("1.1", "1.2")], Fence(f"{APP}/instance", run_id)
        done = merge_instance(spark, path, lambda s: source_frame(s, rows), ranges, fence, stored=stored)
        return done.inserted, done.updated, done.deleted

    assert again(1, rows, None) == (3, 0, 0)
    files = DeltaTable(path).file_uris()
    assert again(2, [*rows, remove("never there", 4)], (1, 3)) == (0, 0, 0)
    assert DeltaTable(path).file_uris() == files
    assert DeltaTable(path).transaction_version(f"{APP}/instance") == 2
    # Without the look at what is stored, they are written again: that is what it is for.
    assert again(3, rows, None) == (0, 3, 0)
    assert DeltaTable(path).file_uris() != files


TYPES = {"lastModifiedTimestamp": "timestamp", "studyDate": "date"}
TYPES |= dict.fromkeys(("sequence", "instanceCount", "seriesCount"), "long")


@pytest.mark.parametrize("partitioned", [False, True], ids=["clustered", "partitioned"])
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_new_table_is_what_readers_rely_on(
    spark: SparkSession, tmp_path: Path, table: Table, partitioned: bool
) -> None:
    """Columns, types and order (design/architecture.md: Tables); reader version 1; statistics that name no patient."""
    opened = DeltaTable(make(spark, table, tmp_path / table.name, partitioned=partitioned))
    fields = json.loads(opened.schema().to_json())["fields"]
    assert [(field["name"], field["type"], field["nullable"]) for field in fields] == [
        (name, TYPES.get(name, "string"), True) for name in COLUMNS[table.name]
    ]
    assert (opened.protocol().min_reader_version, opened.protocol().reader_features) == (1, None)
    assert opened.metadata().partition_columns == (["partitionName"] if partitioned else [])

    properties = opened.metadata().configuration
    statistics = {
        "instance": "studyInstanceUid,seriesInstanceUid,sopInstanceUid,sequence,lastModifiedTimestamp,studyDate",
        "series": "studyInstanceUid,seriesInstanceUid,lastModifiedTimestamp,studyDate",
        "study": "studyInstanceUid,lastModifiedTimestamp,studyDate",
    }[table.name]
    assert properties.pop("delta.dataSkippingStatsColumns") == ("" if partitioned else "partitionName,") + statistics
    assert properties == {
        **IDENTITY,
        "delta.dataSkippingStringPrefixLength": "64",
        "delta.enableDeletionVectors": "false",
        "delta.deletedFileRetentionDuration": "interval 720 hours",
        "delta.logRetentionDuration": "interval 720 hours",
    }
    first = next((Path(tmp_path) / table.name / "_delta_log").glob("*0.json")).read_text()
    assert ("studyInstanceUid" in first.split('"delta.clustering"')[-1]) is True
    assert ('"delta.clustering"' in first) is not partitioned


def test_statistics_in_the_log_name_no_patient(guarded: tuple[str, MergeResult, MergeResult]) -> None:
    """Bounds of key columns, sequence and times; nothing of names."""
    path, _, _ = guarded
    bounds: set[str] = set()
    for file in Path(path, "_delta_log").glob("*.json"):
        for line in file.read_text().splitlines():
            action = json.loads(line)
            if "add" in action:
                bounds |= set(json.loads(action["add"]["stats"])["minValues"])
    assert bounds == {
        "partitionName", "studyInstanceUid", "seriesInstanceUid", "sopInstanceUid", "sequence", "lastModifiedTimestamp",
    }  # fmt: skip


def test_bounds_of_a_long_uid_are_whole(spark: SparkSession, tmp_path: Path) -> None:
    """UIDs of one scanner share more than the 32 characters that Delta keeps by itself."""
    path = make(spark, INSTANCE, tmp_path / "instance")
    study = f"1.2.840.{'7' * 56}"
    merge(spark, path, 1, [upsert("1", 1, studyInstanceUid=study)])
    added = DeltaTable(path).get_add_actions(flatten=True)
    assert [added[f"{end}.studyInstanceUid"].to_pylist() for end in ("min", "max")] == [[study], [study]]


CONFLICTS = [name for name, kind in vars(delta.exceptions).items() if str(kind).startswith("<class 'delta.exceptions")]


def test_every_conflict_of_delta_is_known() -> None:
    assert len(CONFLICTS) == 8


@pytest.mark.usefixtures("spark")
@pytest.mark.parametrize("name", CONFLICTS)
def test_a_conflict_means_that_another_run_has_written(name: str) -> None:
    """Whatever Delta calls it: Superseded, without the predicate that Delta quotes."""
    conflict = getattr(delta.exceptions, name)
    with pytest.raises(Superseded, match=r"^series: another run has written; this one stops$"), named_errors("series"):
        # Before Spark 4 they take what the JVM says besides.
        raise conflict("WHERE studyInstanceUid = '1.2.3'", *([""] if issubclass(conflict, CapturedException) else []))


def test_other_errors_of_spark_are_named_and_their_text_is_dropped() -> None:
    """StorageError; paths and rows of the message go nowhere."""
    with pytest.raises(StorageError, match=r"^series: ") as caught, named_errors("series"):
        raise AnalysisException("path /secret/1.2.3")
    assert "1.2.3" not in str(caught.value)


@pytest.mark.parametrize("gone", ["a data file", "the log"])
def test_a_spoiled_table_is_a_named_error(
    spark: SparkSession, tmp_path: Path, gone: str, spoil: Callable[[Path, str], None]
) -> None:
    """A file that is missing ends as DataError, never as a bug of Spark's gateway."""
    path = make(spark, INSTANCE, tmp_path / "instance")
    merge(spark, path, 1, [upsert("1", 1)])
    spoil(Path(path), gone)
    with pytest.raises(DataError, match=r"^instance: (a file of this table|its _delta_log)"):
        merge(spark, path, 2, [upsert("1", 2)])


@pytest.fixture
def spoil() -> Callable[[Path, str], None]:
    def spoil(table: Path, what: str) -> None:
        if what == "a data file":
            for file in table.rglob("*.parquet"):
                file.unlink()
        else:
            for file in (table / "_delta_log").glob("*.json"):
                file.write_text("{cut")

    return spoil


def test_times_are_kept_to_the_microsecond(spark: SparkSession, tmp_path: Path) -> None:
    """In UTC, whatever the process's own zone is."""
    path = make(spark, INSTANCE, tmp_path / "instance")
    odd = NOON + timedelta(microseconds=1)
    merge(spark, path, 1, [upsert("1", 1, lastModifiedTimestamp=odd)])
    assert [row["lastModifiedTimestamp"] for row in table_rows(path)] == [odd]
