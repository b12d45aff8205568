"""Brings ``series`` and ``study`` up to what runs have touched in ``instance``.

design/architecture.md: Merge and roll-up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from dicom_etl.core.errors import Superseded
from dicom_etl.lake.ledger import last_succeeded
from dicom_etl.lake.snapshot import Lake, LakeSnapshot
from dicom_etl.lake.statistics import landed_between
from dicom_etl.tables import differences, rollup
from dicom_etl.tables.engine.errors import named_errors
from dicom_etl.tables.engine.session import cluster_session, whole_tables_session
from dicom_etl.tables.file_skipping import study_ranges
from dicom_etl.tables.merge import Fence, MergeResult, merge_rollup, read_table
from dicom_etl.tables.rollup import SeriesKey
from dicom_etl.tables.schema import SERIES, STUDY, Table

log = logging.getLogger(__name__)


def rollups_outstanding(snapshot: LakeSnapshot) -> bool:
    """Whether a run landed entries, or changed ``instance``, and died before ``series`` and ``study`` had taken it."""
    return unfinished_run(snapshot) is not None


def unfinished_run(snapshot: LakeSnapshot) -> int | None:
    """The newest such run, or None where there is none.

    A repair may remove rows without landing an entry. As of the claim: what a run that was overtaken writes after it
    is covered by none, and read again.
    """
    newest = max(snapshot.txn_version("change"), snapshot.txn_version("instance"))
    return newest if newest > rolled_up_to(snapshot) else None


def rolled_up_to(snapshot: LakeSnapshot) -> int:
    """The last run whose entries both roll-ups have taken."""
    return min(snapshot.txn_version("series"), snapshot.txn_version("study"))


def fitting_versions(snapshot: LakeSnapshot) -> dict[str, Any]:
    """For a row of the ledger whose verb changes no row of the shared tables: versions that fit each other.

    They are those of now, what this verb has written included, or those of the last run that succeeded while `series`
    and `study` lack what a dead run has merged into `instance`.
    """
    names = ("instance", "series", "study")
    if rollups_outstanding(snapshot.refresh()):
        last = last_succeeded(snapshot.runs())
        versions = {f"{name}_version": last and getattr(last, f"{name}_version") for name in names}
    else:
        versions = {f"{name}_version": snapshot.version(name) for name in names}
    return {"change_version": snapshot.version("change"), **versions}


def unfinished_rollups(
    spark: SparkSession, snapshot: LakeSnapshot, run_id: int, change_version: int | None
) -> frozenset[SeriesKey]:
    """The series of what dead runs landed or removed; none, and no job, when every landing was rolled up.

    ``change_version`` is that of the run's own landing, which holds theirs too. ``change`` is asked as it
    was when this run committed to it, which no other commit came between.
    """
    lake = snapshot.lake
    taken = rolled_up_to(snapshot)
    removed = _differing(whole_tables_session(spark), lake) if snapshot.txn_version("instance") > taken else frozenset()
    if not landed_between(snapshot.table("change"), taken, run_id):
        return removed
    with named_errors("change"):
        touched = rollup.touched_series(read_table(spark, lake.path("change"), change_version), taken, run_id - 1)
        return removed | {(row[0], row[1], row[2]) for row in touched.collect()}


def _differing(spark: SparkSession, lake: Lake) -> frozenset[SeriesKey]:
    """The keys of ``series`` and ``study`` that are not what ``instance`` gives.

    After a run that died behind its MERGE of ``instance``: a repair may have removed rows that no entry names.
    """
    with named_errors("instance"):
        summaries = rollup.summaries(read_table(spark, lake.path("instance")))
        series, study = (
            differences.rollup_differences(table, read_table(spark, lake.path(table.name)), summaries)
            .select(*table.key)
            .dropna()
            .collect()
            for table in (SERIES, STUDY)
        )
    return frozenset([*((row[0], row[1], row[2]) for row in series), *((row[0], row[1], None) for row in study)])


def roll_up(
    spark: SparkSession, lake: Lake, run_id: int, touched: frozenset[SeriesKey], instance_version: int, most_ranges: int
) -> tuple[int, int]:
    """The versions of ``series`` and ``study`` that hold the touched keys as that version of ``instance`` has them.

    Raises Superseded when a newer run has committed to one of them.
    """
    began = time.monotonic()
    studies = {key[1] for key in touched}
    ranges = study_ranges(studies, most_ranges)
    session = cluster_session(spark)

    def merged(table: Table, rows: DataFrame) -> int:
        fence = Fence(lake.app_id(table.name), run_id)
        return version_of(merge_rollup(spark, table, lake.path(table.name), rows, ranges, fence), table)

    with named_errors("instance"):
        keys = rollup.listed_series(session, touched)
        within = rollup.instances_within(read_table(session, lake.path("instance"), instance_version), ranges, studies)
        # Both tables are made of it, and each MERGE reads its source more than once.
        summaries = rollup.summaries(rollup.instances_of(within, keys), keys).localCheckpoint()
    with _two_threads() as pool:
        series = pool.submit(merged, SERIES, rollup.series_rows(summaries))
        study = pool.submit(merged, STUDY, rollup.study_rows(summaries))
        versions = series.result(), study.result()
    log.info("series and study merged", extra={"run_id": run_id, "seconds": round(time.monotonic() - began, 2)})
    return versions


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


def version_of(merged: MergeResult, table: Table) -> int:
    """The version that a MERGE wrote; a skipped one means that a newer run has been there."""
    if merged.version is None:
        raise Superseded(f"{table.name}: a newer run has written; this one stops and covers nothing")
    return merged.version
