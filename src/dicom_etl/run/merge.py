"""Merges what a run has landed into ``instance``, then rolls up what it touched.

design/architecture.md: Fold, Merge and roll-up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from py4j.protocol import Py4JError
from pyspark.sql import DataFrame, SparkSession

from dicom_etl.core.errors import DataError
from dicom_etl.core.reasons import BEFORE_FOLD
from dicom_etl.lake.delta.table import remove_empty_log
from dicom_etl.lake.open import missing_tables, refuse_other_columns
from dicom_etl.lake.rejected import closed_among
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.lake.statistics import may_hold, most_files
from dicom_etl.lake.voids import read_voids, void_until
from dicom_etl.landing.landing import Landed
from dicom_etl.run.roll_up import roll_up, unfinished_rollups, version_of
from dicom_etl.run.write_session import WriteSession
from dicom_etl.tables import fold
from dicom_etl.tables.engine.errors import named_errors
from dicom_etl.tables.file_skipping import MOST_RANGES, study_ranges
from dicom_etl.tables.merge import Fence, MergeResult, Ranges, Source, create_table, merge_instance, read_table
from dicom_etl.tables.rollup import SeriesKey
from dicom_etl.tables.schema import INSTANCE, TABLES, table_design

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunResult:
    """What the three MERGEs of a run did, and the sequences that are rejected, closed ones left out.

    ``doubled`` counts the rows that the MERGE of ``instance`` changed beyond one for each key: somebody else has
    written keys that stand in several rows. ``removed`` counts the rows that a repair removed without an entry.
    """

    instance: MergeResult
    series_version: int
    study_version: int
    rejected: frozenset[int]
    merge_seconds: float
    rollup_seconds: float
    doubled: int = 0
    removed: int = 0


@dataclass(frozen=True, slots=True)
class Removed:
    """The keys of rows that a repair removes although the feed has no entry for them, in any session.

    ``series`` are those that they leave.
    """

    keys: Source
    rows: int
    series: frozenset[SeriesKey]


@dataclass(frozen=True, slots=True)
class RepairWork:
    """What a repair does beyond the entries that it has landed.

    ``series`` and ``studies`` are keys to roll up again. ``voids`` are all that hold from now on: new ones included,
    lifted ones not.
    """

    removed: Removed | None = None
    series: tuple[fold.Key, ...] = ()
    studies: tuple[fold.Key, ...] = ()
    voids: fold.Voids = field(default_factory=dict)

    @property
    def touched(self) -> frozenset[SeriesKey]:
        """The keys that these removals and roll-ups touch."""
        series: set[SeriesKey] = {(key[0], key[1], key[2]) for key in self.series}
        removed = self.removed.series if self.removed else frozenset()
        return frozenset(series | removed | {(key[0], key[1], None) for key in self.studies})

    @property
    def study_uids(self) -> frozenset[str]:
        return frozenset(key[1] for key in self.touched)


def check_shared_tables(snapshot: LakeSnapshot) -> list[str]:
    """Those of the three shared tables that must still be made.

    Before anything is read or landed. Raises DataError when one has vanished, or has not the columns that we write.
    """
    stored = snapshot.shared()
    for table in (t for t in TABLES if t.name in stored):
        wanted = {f.name: f.dataType.simpleString().replace("bigint", "long") for f in table.columns.fields}
        refuse_other_columns(snapshot.lake, table.name, stored[table.name], wanted)
    return missing_tables(snapshot)


def make_shared_tables(spark: SparkSession, session: WriteSession) -> None:
    """Create those of the three shared tables that are not there by now: the feed may have been read for long."""
    lake, snapshot, settings = session.lake, session.snapshot, session.settings
    design = table_design(settings, lake.identity.properties)
    missing = missing_tables(snapshot.refresh(*lake.paths.shared))
    for table in (t for t in TABLES if t.name in missing):
        remove_empty_log(lake.path(table.name))
        create_table(spark, table, lake.path(table.name), design)
        snapshot.refresh(table.name)


def merge_landed(
    spark: SparkSession, session: WriteSession, landed: Landed, repair: RepairWork | None = None
) -> RunResult:
    """Bring the three tables up to what this run has landed, and what dead runs left.

    The session's snapshot has the shared tables as they are now: reading the feed may have taken long. A ``repair`` has
    compared every row with the service, so that no stored sequence guards it.
    Raises Superseded when a newer run has committed to one of them.
    """
    lake, snapshot, run_id = session.lake, session.snapshot, session.run_id
    touched = unfinished_rollups(spark, snapshot, run_id, landed.version) | landed.series
    # A repair that was overtaken may have written its voids since this run landed.
    work = repair or RepairWork(voids=void_until(read_voids(snapshot.refresh("rejected").table("rejected"))))
    removed = work.removed.rows if work.removed else 0
    # More ranges than files skip nothing more, and each costs the planner.
    most = min(most_files(snapshot), MOST_RANGES)

    session.progress.step("merge instance")
    began = time.monotonic()
    with folded(spark, snapshot, run_id, landed, work.voids) as effects:
        ranges = study_ranges(landed.studies | work.study_uids, most)
        instance = _merge_effects(spark, session, effects, work, ranges, guarded=repair is None)
    version = version_of(instance, INSTANCE)
    merge_seconds = time.monotonic() - began
    log.info("instance merged, series and study not yet", extra=_counts(run_id, instance, merge_seconds))

    session.progress.step("roll up series and study")
    began = time.monotonic()
    series_version, study_version = roll_up(spark, lake, run_id, touched | work.touched, version, most)
    return RunResult(
        instance,
        series_version,
        study_version,
        effects.rejected,
        merge_seconds,
        time.monotonic() - began,
        doubled=max(0, instance.changed - effects.changing - removed),
        removed=removed,
    )


def _merge_effects(
    spark: SparkSession, session: WriteSession, effects: Fold, work: RepairWork, ranges: Ranges, *, guarded: bool
) -> MergeResult:
    """The fenced MERGE into ``instance`` of what was folded, and of the removals of a repair."""
    lake, snapshot = session.lake, session.snapshot
    may_stand = effects.upserts and may_hold(snapshot.table("instance"), effects.upserts[0])
    return merge_instance(
        spark,
        lake.path("instance"),
        lambda session: _and_removals(session, fold.changing(effects.rows(session)), work.removed),
        ranges,
        Fence(lake.app_id("instance"), session.run_id),
        guarded=guarded,
        stored=effects.upserts if may_stand else None,
    )


def _and_removals(session: SparkSession, folded: DataFrame, removed: Removed | None) -> DataFrame:
    return folded if removed is None else folded.unionByName(fold.removals(removed.keys(session)))


@dataclass(frozen=True, slots=True)
class Fold:
    """What a landing means: one row per instance, in any session, and what ``fold.summary`` says of all of them.

    ``rejected`` are the sequences of all rejects: of the fold and before it, without those that are closed.
    """

    rows: Source
    changing: int
    rejected: frozenset[int]
    upserts: tuple[int, int] | None


@contextmanager
def folded(
    spark: SparkSession, snapshot: LakeSnapshot, run_id: int, landed: Landed, voids: fold.Voids
) -> Iterator[Fold]:
    """The fold of what a run has landed, as the version of ``change`` holds it that its commit made.

    Raises DataError when Spark does not see every entry that was landed. An older version would else count as
    entries that change nothing, and the run would cover what it has not merged.
    """
    invalid_before_fold = {u.sequence for u in landed.unusable if u.reason in BEFORE_FOLD}
    unusable = {u.sequence for u in landed.unusable} - invalid_before_fold

    def rows(session: SparkSession) -> DataFrame:
        change = read_table(session, snapshot.lake.path("change"), landed.version)
        return fold.folded(change, run_id, unusable, invalid_before_fold, voids)

    with named_errors("change"):
        # Spark knows an equal plan by its parts, in other sessions too: what is computed here once is not again.
        kept = rows(spark).cache()
    try:
        with named_errors("change"):
            summary = fold.summary(kept)
        _refuse_unseen(summary.entries + len(invalid_before_fold), landed.entries)
        closed = closed_among(snapshot.table("rejected"), landed.unusable)
        yield Fold(rows, summary.changing, (summary.rejected | invalid_before_fold) - closed, summary.upserts)
    finally:
        with suppress(Py4JError, OSError):  # a JVM that has ended keeps nothing, and what ended the run says more
            kept.unpersist()


def _refuse_unseen(seen: int, landed: int) -> None:
    if seen != landed:
        raise DataError(
            f"change: Spark sees {seen} of the {landed} entries that this run has landed; nothing is merged. Run "
            "again; if it says so again, see to the storage of this table"
        )


def _counts(run_id: int, merged: MergeResult, seconds: float) -> dict[str, object]:
    return {
        "run_id": run_id,
        "inserted": merged.inserted,
        "updated": merged.updated,
        "deleted": merged.deleted,
        "seconds": round(seconds, 2),
    }
