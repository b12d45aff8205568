"""Mends what `verify` finds, or builds the three tables anew, as the lake's only writer (architecture §5, §6)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dicom_etl.attributes import INSTANCE_KEY, SERIES_KEY, STUDY_KEY
from dicom_etl.azure import dicom_tokens
from dicom_etl.clock import utc_now
from dicom_etl.comparing import Comparison, Snapshot, compared, compared_from, gone_entries, listed_entries, snapshot
from dicom_etl.dicomweb.changefeed import service_now
from dicom_etl.dicomweb.client import DicomClient, connect
from dicom_etl.lake.session import Engine
from dicom_etl.lake.tables import read_table
from dicom_etl.landing.rejects import Reject, settled
from dicom_etl.landing.voids import new_voids, void_until
from dicom_etl.listing import Found, Key, Listing, read_listing
from dicom_etl.merging import Beyond, merge_landed
from dicom_etl.one_run import record_rejects, refuse_a_feed_that_went_back
from dicom_etl.open_lake import Lake, existing_lake, highest_run_id, make_private_tables
from dicom_etl.progress import Progress, Silent
from dicom_etl.rebuild import rebuild_tables
from dicom_etl.repairing import Repaired, repair_row, reread
from dicom_etl.runs.identity import service_fingerprint
from dicom_etl.settings import Settings
from dicom_etl.stretches import stretches_around
from dicom_etl.task import Task
from dicom_etl.window import Window, from_datetime
from dicom_etl.writer import failure_recorded, writing


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be mended: entries to read again (sequence to ticks), and what no entry speaks of."""

    wanted: dict[int, int]
    beyond: Beyond
    gone: list[tuple[Key, int, int]]
    served_again: tuple[Reject, ...]
    differing: dict[str, int]
    unlisted: int
    found: Found

    @property
    def empty(self) -> bool:
        return not (any(self.differing.values()) or self.gone or self.served_again)


def repair(
    settings: Settings,
    *,
    rebuild: bool = False,
    metadata: bool = False,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
) -> Repaired:
    """What was mended; the ledger gets a row of the verb ``repair``.

    A repair compares as `verify` does (with ``metadata`` every attribute), reads again what differs, and merges it
    like any landing; it covers no window. A rebuild reads the whole feed and covers it. Keys that are pending are
    left to the next `sync`.
    Raises DataError when there is no lake, AnotherWriter when somebody else writes it.
    """
    progress = progress or Silent()
    lake = existing_lake(settings, service_fingerprint(settings.dicom.base_url))
    with (
        connect(settings.dicom, dicom_tokens(settings.dicom), sleep=sleep) as client,
        Engine(settings.spark, spark, lake.places) as engine,
        writing(lake.places, "repair", highest_run_id(lake), client, engine, clock, sleep) as held,
    ):
        make_private_tables(lake)
        refuse_a_feed_that_went_back(client, lake)
        task = _task(settings, lake, client, held.run_id, clock())
        failures = failure_recorded(task.run_id, task.verb, [task.stretch], settings, lake, clock)
        with failures, tempfile.TemporaryDirectory(prefix="dicom-etl-") as folder:
            if rebuild:
                return rebuild_tables(
                    task, settings, lake, client, engine, Path(folder), clock=clock, progress=progress
                )
            return _mend(
                task, settings, lake, client, engine, Path(folder), metadata=metadata, clock=clock, progress=progress
            )


def _task(settings: Settings, lake: Lake, client: DicomClient, run_id: int, started: datetime) -> Task:
    """From where the lake is compared up to now, by the slower clock (architecture §5.3)."""
    ours = from_datetime(started)
    now = min(ours, service_now(client) or ours)
    return Task(run_id, "repair", Window(min(compared_from(lake, settings), now), now), True, now, started)


def _mend(
    task: Task,
    settings: Settings,
    lake: Lake,
    client: DicomClient,
    engine: Engine,
    folder: Path,
    *,
    metadata: bool,
    clock: Callable[[], datetime],
    progress: Progress,
) -> Repaired:
    retries = client.retries
    before = snapshot(lake)
    listing = read_listing(
        settings, client, folder, start=task.stretch.start, include_metadata=metadata, clock=clock, progress=progress
    )
    progress.step("compare")
    spark = engine.session(lake.rows())
    entries = listed_entries(spark, lake, listing)
    with compared(
        spark, before, listing, entries, client, folder, since=settings.feed.start, attributes=metadata
    ) as found:
        plan = _plan(found, before)
    read = outcome = None
    left = dict.fromkeys(plan.differing, 0)
    if not plan.empty:
        progress.step("read again what differs")
        windows = stretches_around(plan.wanted.values())
        read = reread(task, settings, lake, client, windows, progress, only=plan.wanted.keys())
        outcome = merge_landed(spark, lake, task.run_id, read.landed, progress, plan.beyond)
        record_rejects(task, lake, read.landed, read.met, outcome.rejected, task.started_at, _voids(plan, task))
        progress.step("compare again")
        left = _left(spark, task, settings, lake, replace(listing, found=plan.found), client, folder, metadata)
    row = repair_row(
        task,
        settings,
        lake,
        read,
        outcome,
        removed=len(plan.beyond.removed),
        covered_until=task.stretch.start,
        retries=client.retries - retries,
        finished_at=clock(),
    )
    return Repaired(
        run=row,
        found=plan.differing,
        left=left,
        voided=len(plan.gone),
        served_again=len(plan.served_again),
        unlisted=plan.unlisted,
        search_refused=plan.found.refused,
    )


def _plan(found: Comparison, before: Snapshot) -> _Plan:
    """What the comparison leaves to be done; keys without an entry, and of series and studies, are few."""
    different = found.different.where("not pending").select(*INSTANCE_KEY)
    entries = found.last.select(*INSTANCE_KEY, "sequence", "timestampTicks")
    known = different.join(entries, on=list(INSTANCE_KEY))
    strange = different.join(entries, on=list(INSTANCE_KEY), how="left_anti")
    removed = _rows(strange)
    series, studies = _rows(found.series.select(*SERIES_KEY)), _rows(found.study.select(*STUDY_KEY))
    gone = gone_entries(found.gone)
    kept = [void for void in before.voids if void not in found.served_again]
    wanted = {row[0]: row[1] for row in known.select("sequence", "timestampTicks").toLocalIterator()}
    return _Plan(
        wanted=wanted,
        beyond=Beyond(removed, series, studies, {**void_until(kept), **{key: sequence for key, sequence, _ in gone}}),
        gone=gone,
        served_again=found.served_again,
        differing={"instance": len(wanted) + len(removed), "series": len(series), "study": len(studies)},
        unlisted=found.unlisted.count() if found.unlisted is not None else 0,
        found=found.found,
    )


def _rows(keys: DataFrame) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(row) for row in keys.toLocalIterator())


def _voids(plan: _Plan, task: Task) -> list[Reject]:
    """What this repair has learned of keys whose UIDs were changed."""
    return [
        *new_voids(plan.gone, run_id=task.run_id, recorded_at=task.started_at),
        *settled(plan.served_again, run_id=task.run_id, recorded_at=task.started_at),
    ]


def _left(
    spark: SparkSession,
    task: Task,
    settings: Settings,
    lake: Lake,
    listing: Listing,
    client: DicomClient,
    folder: Path,
    metadata: bool,
) -> dict[str, int]:
    """How many rows still differ, by what was listed and read again."""
    again = read_table(spark, lake.path("change")).where(F.col("runId") == task.run_id)
    older = listed_entries(spark, lake, listing).join(again.select("sequence"), on="sequence", how="left_anti")
    entries = older.unionByName(again)
    with compared(
        spark, snapshot(lake), listing, entries, client, folder, since=settings.feed.start, attributes=metadata
    ) as after:
        return {
            "instance": after.different.where("not pending").count(),
            "series": after.series.count(),
            "study": after.study.count(),
        }
