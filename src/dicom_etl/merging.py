"""Merges what a run has landed into ``instance``, then into ``series`` and ``study`` (architecture §5.6, §5.7)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from pyspark.sql import DataFrame, SparkSession

from dicom_etl.attributes import SERIES_KEY, STUDY_KEY
from dicom_etl.deltalog import remove_unborn
from dicom_etl.errors import Superseded
from dicom_etl.lake import changes, rollup
from dicom_etl.lake.failures import named_errors
from dicom_etl.lake.pruning import MOST_RANGES, study_ranges
from dicom_etl.lake.schema import INSTANCE, SERIES, STUDY, TABLES, Table, table_properties
from dicom_etl.lake.tables import Fence, Merged, create_table, merge_instance, merge_rollup, read_table
from dicom_etl.landing.files import Landed
from dicom_etl.landing.rows import BEFORE_FOLD
from dicom_etl.landing.voids import read_voids, void_until
from dicom_etl.open_lake import Lake, missing_tables, refuse_other_columns
from dicom_etl.progress import Progress
from dicom_etl.settings import Settings

log = logging.getLogger(__name__)

Rollup = Callable[[DataFrame, DataFrame], DataFrame]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the three MERGEs of a run did, and the sequences that the fold rejected."""

    instance: Merged
    series_version: int
    study_version: int
    rejected: frozenset[int]
    merge_seconds: float
    rollup_seconds: float


@dataclass(frozen=True, slots=True)
class Beyond:
    """What a repair mends beyond the entries that it has landed.

    ``removed`` are keys of instances of which no entry speaks, ``series`` and ``studies`` keys to roll up anew.
    ``voids`` are all that hold from now on: new ones included, lifted ones not.
    """

    removed: tuple[changes.Key, ...] = ()
    series: tuple[changes.Key, ...] = ()
    studies: tuple[changes.Key, ...] = ()
    voids: changes.Voids = field(default_factory=dict)

    @property
    def study_uids(self) -> frozenset[str]:
        return frozenset(key[1] for key in (*self.removed, *self.series, *self.studies))


def check_shared_tables(lake: Lake) -> list[str]:
    """Those of the three shared tables that must still be made.

    Before anything is read or landed. Raises DataError when one has vanished, or has not the columns that we write.
    """
    stored = lake.shared()
    for table in (t for t in TABLES if t.name in stored):
        wanted = {f.name: f.dataType.simpleString().replace("bigint", "long") for f in table.columns.fields}
        refuse_other_columns(lake, table.name, stored[table.name], wanted)
    return missing_tables(lake)


def make_shared_tables(spark: SparkSession, lake: Lake, settings: Settings) -> None:
    """Create those of the three shared tables that are not there yet."""
    partitioned = settings.lake.layout == "partitioned"
    missing = missing_tables(lake)
    for table in (t for t in TABLES if t.name in missing):
        properties = table_properties(
            table,
            partitioned=partitioned,
            retention_hours=settings.maintenance.retention_hours,
            deletion_vectors=settings.lake.deletion_vectors,
            identity=lake.identity.properties,
        )
        remove_unborn(lake.path(table.name))
        create_table(spark, table, lake.path(table.name), partitioned=partitioned, properties=properties)


def rollups_outstanding(lake: Lake) -> bool:
    """Whether a run landed entries and died before ``series`` and ``study`` had taken them."""
    return lake.marker("change") > _rolled_up(lake)


def merge_landed(
    spark: SparkSession, lake: Lake, run_id: int, landed: Landed, progress: Progress, repair: Beyond | None = None
) -> Outcome:
    """Bring the three tables up to what this run has landed, and what dead runs left.

    A ``repair`` has compared every row with the service, so that no stored sequence guards it.
    Raises Superseded when a newer run has committed to one of them.
    """
    floor = _rolled_up(lake)
    left_behind = _studies_left_behind(spark, lake, floor, run_id)
    beyond = repair or Beyond(voids=void_until(read_voids(lake.table("rejected"))))
    # More ranges than files skip nothing more, and each costs the planner.
    most = min(lake.files(), MOST_RANGES)
    ranges = study_ranges(landed.studies | beyond.study_uids, most)
    unfit = {u.sequence for u in landed.unusable if u.reason in BEFORE_FOLD}
    unusable = {u.sequence for u in landed.unusable} - unfit

    progress.step("merge instance")
    began = time.monotonic()
    instance = merge_instance(
        spark,
        lake.path("instance"),
        lambda session: _and_removals(
            changes.instance_changes(_changes(session, lake), run_id, unusable, unfit, beyond.voids), beyond
        ),
        ranges,
        Fence(lake.app_id("instance"), run_id),
        guarded=repair is None,
    )
    version = _version_of(instance, INSTANCE)
    rejected = rejected_of(spark, lake, run_id, unusable, unfit, beyond.voids)
    merge_seconds = time.monotonic() - began
    log.info("instance merged, series and study not yet", extra=_counts(run_id, instance, merge_seconds))

    progress.step("roll up series and study")
    began = time.monotonic()
    ranges = study_ranges(landed.studies | beyond.study_uids | left_behind, most)

    def roll_up(table: Table, rows: Rollup) -> int:
        merged = merge_rollup(
            spark,
            table,
            lake.path(table.name),
            lambda session: rows(
                _touched(table, rollup.touched_series(_changes(session, lake), floor, run_id), beyond),
                rollup.instances_within(read_table(session, lake.path("instance"), version), ranges),
            ),
            ranges,
            Fence(lake.app_id(table.name), run_id),
        )
        return _version_of(merged, table)

    with _two_threads() as pool:
        series = pool.submit(roll_up, SERIES, rollup.series_rows)
        study = pool.submit(roll_up, STUDY, rollup.study_rows)
        series_version, study_version = series.result(), study.result()
    rollup_seconds = time.monotonic() - began
    log.info("series and study merged", extra={"run_id": run_id, "seconds": round(rollup_seconds, 2)})
    return Outcome(instance, series_version, study_version, rejected, merge_seconds, rollup_seconds)


@contextmanager
def _two_threads() -> Iterator[ThreadPoolExecutor]:
    """Threads that are waited for, but not by a signal: a scheduler's patience is shorter than a MERGE.

    What a MERGE still commits then is fenced, and the next run heals it.
    """
    pool = ThreadPoolExecutor(2)
    try:
        yield pool
    except Exception:
        pool.shutdown()
        raise
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _and_removals(folded: DataFrame, beyond: Beyond) -> DataFrame:
    return folded.unionByName(changes.removals(folded.sparkSession, beyond.removed)) if beyond.removed else folded


def _touched(table: Table, series: DataFrame, beyond: Beyond) -> DataFrame:
    """The keys to roll up: of ``series`` what the entries touched; those of a repair besides."""
    names, more = (SERIES_KEY, beyond.series) if table is SERIES else (STUDY_KEY, beyond.studies)
    keys = {*more, *(key[: len(names)] for key in beyond.removed)}
    if not keys:
        return series
    listed = series.sparkSession.createDataFrame(sorted(keys), ", ".join(f"{name} string" for name in names))
    return series.select(*names).union(listed).distinct()


def _changes(spark: SparkSession, lake: Lake) -> DataFrame:
    return read_table(spark, lake.path("change"))


def _rolled_up(lake: Lake) -> int:
    """The last run whose entries both roll-ups have taken."""
    return min(lake.marker("series"), lake.marker("study"))


def _studies_left_behind(spark: SparkSession, lake: Lake, floor: int, run_id: int) -> frozenset[str]:
    """The studies of what dead runs landed; none, and no job, when every landing was rolled up."""
    if not lake.landed_between(floor, run_id):
        return frozenset()
    with named_errors("change"):
        touched = rollup.touched_series(_changes(spark, lake), floor, run_id - 1)
        return frozenset(row[0] for row in touched.select("studyInstanceUid").distinct().collect())


def rejected_of(
    spark: SparkSession, lake: Lake, run_id: int, unusable: Set[int], unfit: Set[int], voids: changes.Voids
) -> frozenset[int]:
    """The rejects: entries that are unfit for the fold, and last entries of a key without usable metadata."""
    if not unusable:
        return frozenset(unfit)
    with named_errors("change"):
        found = changes.rejected_sequences(_changes(spark, lake), run_id, unusable, unfit, voids).collect()
    return frozenset(unfit | {row["sequence"] for row in found})


def _version_of(merged: Merged, table: Table) -> int:
    """The version that a MERGE wrote; a skipped one means that a newer run has been there."""
    if merged.version is None:
        raise Superseded(f"{table.name}: a newer run has written; this one stops and covers nothing")
    return merged.version


def _counts(run_id: int, merged: Merged, seconds: float) -> dict[str, object]:
    return {
        "run_id": run_id,
        "inserted": merged.inserted,
        "updated": merged.updated,
        "deleted": merged.deleted,
        "seconds": round(seconds, 2),
    }
