"""Broken twins of the rules of the MERGEs, on tables of a few rows.

As in test_mutants: a check passes the real code, and with one rule broken it fails by the assertion about that rule.
Each works on a copy of a table, or of a lake, that is made once.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from dicom_etl.core.errors import DataError, StorageError
from dicom_etl.run import merge as merging
from dicom_etl.run import roll_up
from dicom_etl.tables import file_skipping
from dicom_etl.tables import merge as tables
from dicom_etl.tables.merge import Fence, MergeResult
from dicom_etl.tables.schema import INSTANCE, Table, TableDesign
from support.broken import Mutant, assert_caught, checks
from support.frames import instance, instances_frame, source_frame
from support.site import SECOND, Site, at, table_rows, ticks_at

P = "Microsoft.Default"
APP = "00000000-0000-0000-0000-000000000001/instance"


@dataclass(frozen=True)
class Stage:
    """What is there before a check, and a folder for its copy."""

    table: Path
    site: Site
    folder: Path

    @property
    def spark(self) -> SparkSession:
        assert self.site.spark is not None
        return self.site.spark

    def instance(self) -> str:
        return str(shutil.copytree(self.table, self.folder / "instance"))

    def lake(self) -> Site:
        return self.site.copied(self.folder)


@pytest.fixture(scope="module")
def table(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows at sequence 10 and, as adoption leaves them, without one; and three studies more."""
    path = tmp_path_factory.mktemp("mutants") / "instance"
    tables.create_table(spark, INSTANCE, str(path), TableDesign((), 720, False, {}))
    rows = [instance(sop, 10) for sop in ("newer", "older", "equal", "remove older", "remove newer")]
    rows += [instance("adopted", None), instance("adopted, removed", None)]
    rows += [instance("1", 10, studyInstanceUid=study) for study in ("2.1", "2.2", "2.3")]
    instances_frame(spark, rows).coalesce(1).write.format("delta").mode("append").save(str(path))
    return path


@pytest.fixture(scope="module")
def died(make_shared_site: Callable[..., Site]) -> Site:
    """A run has merged a deletion into `instance`, and died; then there was one more update."""
    site = make_shared_site()
    site.create("1.1", "1.1.1", "1.1.1.1", name="First", modality="CT")
    site.create("1.2", "1.2.1", "1.2.1.1", name="Gone", modality="MR")
    site.clock(9.5)
    site.sync()
    site.service.delete(P, "1.2", at_ticks=ticks_at(9.6))
    site.clock(10.5)

    def died(*_: Any, **__: Any) -> MergeResult:
        raise StorageError("series: it broke")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(roll_up, "merge_rollup", died)
        with pytest.raises(StorageError, match="it broke"):
            site.sync()
    site.service.clock.freeze(at(10.6), step=SECOND)
    site.update("1.1", "1.1.1", "1.1.1.1", name="New", modality="US")
    site.clock(12)
    return site


# -- what is checked -----------------------------------------------------------------------------------------


def check_the_merge(stage: Stage) -> None:
    """The newer wins, an equal one refreshes, rows without a sequence give way, and nothing is there twice."""
    path = stage.instance()
    rows = [
        instance(sop, sequence, effect="upsert", filePath="merged")
        for sop, sequence in (("newer", 11), ("older", 9), ("equal", 10), ("adopted", 3), ("new", 1))
    ]
    rows += [
        instance(sop, sequence, effect="remove")
        for sop, sequence in (("remove older", 9), ("remove newer", 11), ("adopted, removed", 3), ("never there", 3))
    ]
    studies = ("2.1", "2.2", "2.3")
    rows += [instance("1", 11, studyInstanceUid=study, effect="upsert") for study in studies]
    ranges = file_skipping.study_ranges(["1.1", *studies], most=2)
    merged = tables.merge_instance(stage.spark, path, lambda s: source_frame(s, rows), ranges, Fence(APP, 2))
    assert merged.version == 2
    stored = table_rows(path)
    elsewhere = sorted(row["studyInstanceUid"] for row in stored if row["studyInstanceUid"] != "1.1")
    assert elsewhere == [*studies], "every key of the source lies in a range"
    found = sorted(row["sopInstanceUid"] for row in stored if row["studyInstanceUid"] == "1.1")
    assert len(found) == len(set(found)), "what the guard refuses is not inserted"
    assert "never there" not in found, "only what is current is inserted"
    mine = {row["sopInstanceUid"]: (row["sequence"], row["filePath"]) for row in stored}
    assert mine["newer"] == (11, "merged"), "a newer entry wins"
    assert (mine["older"], mine.get("remove older")) == ((10, None), (10, None)), "an older entry is refused"
    assert mine["adopted"] == (3, "merged"), "a row without a sequence gives way"
    assert "adopted, removed" not in mine, "a row without a sequence gives way"
    assert mine["equal"] == (10, "merged"), "what is read again is refreshed"
    assert mine.keys() == {"1", "newer", "older", "equal", "adopted", "new", "remove older"}, "nothing else is there"


def check_equal_rows(stage: Stage) -> None:
    """What is read again and stands just so is left alone; what differs, and what is gone, is not."""
    path = stage.instance()
    rows = [
        instance("equal", 10, effect="upsert"),
        instance("newer", 10, effect="upsert", filePath="rewritten"),
        instance("older", 10, effect="upsert", patientName="Named"),
        instance("adopted", 10, effect="upsert"),
        instance("new", 10, effect="upsert"),
        instance("remove older", 10, effect="remove"),
    ]
    before = {row["sopInstanceUid"] for row in table_rows(path)}
    assert {row["sopInstanceUid"] for row in rows} - before == {"new"}
    merged = tables.merge_instance(
        stage.spark, path, lambda s: source_frame(s, rows), [("1.1", "1.1")], Fence(APP, 2), stored=(10, 10)
    )
    stored = {row["sopInstanceUid"]: row for row in table_rows(path)}
    assert "remove older" not in stored, "a removal is no equal row, whatever it looks like"
    found = stored["newer"]["filePath"], stored["older"]["patientName"], stored["adopted"]["sequence"]
    assert found == ("rewritten", "Named", 10), "a row that differs in any column is written"
    assert (merged.inserted, merged.updated, merged.deleted) == (1, 3, 1), "a row that is equal is left alone"


def check_the_entries_seen(stage: Stage) -> None:
    """Spark shows an older version of `change`: the run ends, and what it has read is not covered."""
    site = stage.lake()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(merging, "read_table", _older_version)
        patched.setattr(Site, "accountable", False)  # which would see it by itself
        with suppress(DataError):
            site.sync()
    assert {row["sequence"] for row in site.rows("change") if row["runId"] == 3} == {3, 4}
    row = site.ledger()[-1]
    assert (row["runId"], row["status"]) == (3, "failed"), "a run that does not see its entries covers nothing"
    (run,) = site.sync()
    assert (run.entries_read, site.tables()) == (2, site.expected())


def check_the_run_after_a_dead_one(stage: Stage) -> None:
    """It rolls up what the dead run's MERGE has taken away, and its own update as its own MERGE wrote it."""
    site = stage.lake()
    assert [row["studyInstanceUid"] for row in site.rows("instance")] == ["1.1"]
    assert {row["patientName"] for row in site.rows("study")} == {"First", "Gone"}
    (run,) = site.sync()
    assert (run.entries_read, run.updated, run.deleted) == (2, 1, 0)
    studies = {row["studyInstanceUid"]: row["patientName"] for row in site.rows("study")}
    assert "1.2" not in studies, "what a dead run has touched is rolled up"
    assert studies == {"1.1": "New"}, "it is rolled up from what this run's MERGE wrote"
    assert site.tables() == site.expected(), "the tables equal the service"


# -- what is broken ------------------------------------------------------------------------------------------


def _newer() -> Column:
    return F.col("t.sequence").isNull() | (F.col("t.sequence") <= F.col("s.sequence"))


def _merging(
    newer: Callable[[], Column], *, in_on: bool = False, insert_all: bool = False
) -> Callable[..., MergeResult]:
    """The MERGE with another guard, with the guard in ON, or with an INSERT of whatever is not there."""

    def merge_instance(
        spark: SparkSession, path: str, source: Any, ranges: Any, fence: Fence, *, guarded: bool = True
    ) -> MergeResult:
        assert guarded
        upsert = F.col("s.effect") == "upsert"
        guard, on = newer(), tables._on(INSTANCE, ranges)
        if in_on:
            guard, on = F.lit(True), on & guard
        values = {name: F.col(f"s.{name}") for name in INSTANCE.columns.names}

        def merge(target: Any, rows: DataFrame) -> DataFrame:
            return (
                target.alias("t")
                .merge(rows.alias("s"), on)
                .whenMatchedDelete((F.col("s.effect") == "remove") & guard)
                .whenMatchedUpdate(upsert & guard, set=values)
                .whenNotMatchedInsert(F.lit(True) if insert_all else upsert, values=values)
                .execute()
            )

        return tables._merge(spark, INSTANCE, path, source, fence, merge)

    return merge_instance


def _ranges_without_their_ends(studies: Any, most: int = 64) -> list[tuple[str, str]]:
    """As if they were half-open: the last key of each range of several lies outside."""
    ordered = sorted(set(studies))
    size = -(-len(ordered) // most) or 1
    chunks = [ordered[i : i + size] for i in range(0, len(ordered), size)]
    return [(chunk[0], chunk[-2] if len(chunk) > 1 else chunk[0]) for chunk in chunks]


def _of_changed_rows_only(
    spark: SparkSession, table: Table, path: str, rows: Any, *rest: Any, real: Any = tables.merge_rollup
) -> MergeResult:
    """Only series and studies are rolled up in which this run's MERGE has changed a row of `instance`."""
    instance = f"{path.rpartition('/')[0]}/instance"
    version = spark.sql(f"DESCRIBE HISTORY delta.`{instance}` LIMIT 1").collect()[0]["version"]
    frames = (spark.read.format("delta").option("versionAsOf", v).load(instance) for v in (version, version - 1))
    after, before = ({tuple(row.asDict().items()) for row in frame.collect()} for frame in frames)
    changed = {tuple(dict(row)[name] for name in table.key) for row in after ^ before}
    keys = spark.createDataFrame(sorted(changed), ", ".join(f"{name} string" for name in table.key))
    return real(spark, table, path, rows.join(keys, on=list(table.key), how="left_semi"), *rest)


def _older_version(
    spark: SparkSession, path: str, version: int | None = None, real: Any = tables.read_table
) -> DataFrame:
    """The snapshot that was read before the MERGE."""
    return real(spark, path, None if version is None else version - 1)


def _equal_by_sequence(
    rows: DataFrame, stored: DataFrame, _table: Table, ranges: Any, _may_be: Any = None
) -> DataFrame:
    """An entry that was merged once is not merged again."""
    same = tables._on(INSTANCE, ranges) & (F.col("t.sequence") == F.col("s.sequence"))
    return rows.alias("s").join(stored.alias("t"), on=same & (F.col("s.effect") == "upsert"), how="left_anti")


def _equal_whatever_the_effect(
    rows: DataFrame, stored: DataFrame, table: Table, ranges: Any, _may_be: Any = None, real: Any = tables._not_stored
) -> DataFrame:
    return real(rows, stored, table, ranges)


MUTANTS = [
    Mutant("equal by its sequence", check_equal_rows, tables, "_not_stored", _equal_by_sequence,
           "a row that differs in any column is written"),
    Mutant("equal whatever the effect", check_equal_rows, tables, "_not_stored", _equal_whatever_the_effect,
           "a removal is no equal row, whatever it looks like"),
    Mutant("equal rows written", check_equal_rows, tables, "_not_merged_before", lambda rows, *_: rows,
           "a row that is equal is left alone"),
    Mutant("entries that nobody counts", check_the_entries_seen, merging, "_refuse_unseen", lambda *_: None,
           "a run that does not see its entries covers nothing"),
    Mutant("stale row not guarded", check_the_merge, tables, "merge_instance", _merging(lambda: F.lit(True)),
           "an older entry is refused"),
    Mutant("guard in ON", check_the_merge, tables, "merge_instance", _merging(_newer, in_on=True),
           "what the guard refuses is not inserted"),
    Mutant("< with a null stored sequence", check_the_merge, tables, "merge_instance",
           _merging(lambda: F.col("t.sequence") <= F.col("s.sequence")), "a row without a sequence gives way"),
    Mutant("< for <=", check_the_merge, tables, "merge_instance",
           _merging(lambda: F.col("t.sequence").isNull() | (F.col("t.sequence") < F.col("s.sequence"))),
           "what is read again is refreshed"),
    Mutant("insert not only for Current", check_the_merge, tables, "merge_instance", _merging(_newer, insert_all=True),
           "only what is current is inserted"),
    Mutant("ranges that miss a key", check_the_merge, file_skipping, "study_ranges", _ranges_without_their_ends,
           "every key of the source lies in a range"),
    Mutant("touched keys from changed rows only", check_the_run_after_a_dead_one, roll_up, "merge_rollup",
           _of_changed_rows_only, "what a dead run has touched is rolled up"),
    Mutant("roll-up from the old snapshot", check_the_run_after_a_dead_one, roll_up, "read_table", _older_version,
           "it is rolled up from what this run's MERGE wrote"),
]  # fmt: skip


@pytest.fixture
def stage(table: Path, died: Site, tmp_path: Path) -> Stage:
    return Stage(table, died, tmp_path)


@pytest.mark.parametrize("check", checks(MUTANTS), ids=lambda check: check.__name__)
def test_the_real_code_passes(stage: Stage, check: Callable[[Stage], None]) -> None:
    """The checks below are those that the product meets."""
    check(stage)


@pytest.mark.soak
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.rule)
def test_the_broken_twin_is_caught(stage: Stage, mutant: Mutant) -> None:
    """With the guard broken the very same check fails, by its own assertion."""
    assert_caught(mutant, stage)


@pytest.mark.soak
def test_broken_merges_are_right_but_for_their_rule(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin of the MERGE with the right guard passes."""
    monkeypatch.setattr(tables, "merge_instance", _merging(_newer))
    check_the_merge(stage)
