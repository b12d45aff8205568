"""Repairs what `verify` finds, or rebuilds the three tables, as the lake's only writer.

design/architecture.md: Comparison and repair.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dicom_etl.commands.repair.rebuild import rebuild_tables
from dicom_etl.commands.repair.removals import check_removals, planned_removals
from dicom_etl.commands.repair.reread import Repaired, Reread, Wanted, commit, repair_row, reread
from dicom_etl.commands.verify.compare import (
    Comparer,
    Comparison,
    Snapshot,
    compare,
    comparison_start,
    gone_entries,
    snapshot,
    voids_from_now,
)
from dicom_etl.commands.verify.inventory import Service, ServiceInventory, take_inventory
from dicom_etl.commands.verify.scratch import scratch
from dicom_etl.commands.verify.search_result import KeyFile, SearchResult, proven_gone
from dicom_etl.core.attributes import INSTANCE_KEY, SERIES_KEY, STUDY_KEY
from dicom_etl.core.clock import utc_now
from dicom_etl.core.progress import NullProgress, Progress
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import Window, from_datetime
from dicom_etl.dicomweb.connect import connect
from dicom_etl.dicomweb.feed.reader import service_now
from dicom_etl.lake.lake_id import service_fingerprint
from dicom_etl.lake.open import existing_lake, make_private_tables
from dicom_etl.lake.rejected import Reject, closed_rejects
from dicom_etl.lake.statistics import shared_rows
from dicom_etl.lake.voids import Key, new_voids
from dicom_etl.remote.identity import dicom_tokens
from dicom_etl.run.feed_continuity import feed_went_back, went_back_error
from dicom_etl.run.merge import Removed, RepairWork, RunResult, merge_landed
from dicom_etl.run.plan import RunPlan
from dicom_etl.run.rejects import record_rejects
from dicom_etl.run.write_session import Resources, WriteSession, failure_recorded, write_session
from dicom_etl.tables import differences
from dicom_etl.tables.engine.session import Engine
from dicom_etl.tables.merge import read_table

log = logging.getLogger(__name__)

# A repair does not touch the rows of these: it cannot know what the service holds of them, or read it.
_LEFT_ALONE = ("missingInFeed", "unknown", "overtaken")


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be repaired: entries to read again, rows without an entry to remove, and voids.

    ``differing`` counts the differences by table, ``kinds`` those of instances by kind.
    """

    wanted: Wanted
    beyond: RepairWork
    gone: list[tuple[Key, int, int]]
    restored: tuple[Reject, ...]
    differing: dict[str, int]
    kinds: dict[str, int]
    search: SearchResult

    @property
    def empty(self) -> bool:
        rolled_up = self.beyond.series or self.beyond.studies
        return not (len(self.wanted) or self.beyond.removed or rolled_up or self.gone or self.restored)


@dataclass(frozen=True, slots=True)
class _Repair:
    """What every step of a repair works with."""

    session: WriteSession
    plan: RunPlan
    one: Comparer
    allowed: int | None


def repair(
    settings: Settings,
    *,
    rebuild: bool = False,
    metadata: bool = False,
    allow_removals: int | None = None,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
) -> Repaired:
    """What was repaired; the ledger gets a row of the verb ``repair``.

    A repair compares as `verify` does (with ``metadata`` every attribute), reads again what differs, and merges it
    like any landing; it covers no window. A rebuild reads the whole feed and covers it. Keys that are pending are
    left to the next `sync`. Neither removes a row that the service's search holds, nor, unless ``allow_removals``
    says so, more than 1 000 rows and 1 % of a table.
    Raises DataError when there is no lake, or when it would remove too much; AnotherWriter when somebody else writes.
    """
    progress = progress or NullProgress()
    opened = existing_lake(settings, service_fingerprint(settings.dicom.base_url))
    paths = opened.lake.paths
    with (
        connect(settings.dicom, dicom_tokens(settings.dicom), sleep=sleep) as client,
        scratch(paths, spark) as folder,
        Engine(settings.spark, spark, paths) as engine,
        write_session(Resources(settings, client, engine, progress, clock, sleep), "repair", opened) as session,
    ):
        make_private_tables(opened)
        went_back = _went_back(session, rebuild)
        plan = _run_plan(session)
        service = Service(client, settings, clock, progress, metadata)
        with failure_recorded(session, [plan.stretch]):
            if rebuild:
                return rebuild_tables(session, plan, service, folder, allowed=allow_removals, went_back=went_back)
            before = snapshot(opened)
            inventory = take_inventory(service, folder, plan.stretch.start)
            progress.step("compare")
            one = Comparer(engine.session(shared_rows(opened)), service, folder)
            return _repaired(_Repair(session, plan, one, allow_removals), before, inventory)


def _went_back(session: WriteSession, rebuild: bool) -> bool:
    """Whether the service was restored to an earlier point. Raises DataError when it was, unless the tables follow."""
    unserved = feed_went_back(session.client, session.snapshot)
    if unserved is None:
        return False
    if not rebuild:
        raise went_back_error(unserved)
    log.warning("the service was restored to an earlier point, the tables follow it", extra={"run_id": session.run_id})
    return True


def _run_plan(session: WriteSession) -> RunPlan:
    """From where the lake is compared up to now, by the slower clock.

    design/architecture.md: Coverage and the ledger.
    """
    started = session.now()
    ours = from_datetime(started)
    now = min(ours, service_now(session.client) or ours)
    start = min(comparison_start(session.snapshot, session.settings), now)
    return RunPlan(Window(start, now), True, now, started)


def _repaired(work: _Repair, before: Snapshot, inventory: ServiceInventory) -> Repaired:
    session, retries = work.session, work.session.client.retries
    comparison = compare(work.one, before, inventory)
    removed = _removed(work, comparison)
    # Before any key comes to this process: of a wrong service they are all.
    _check_removals(work, before, comparison, removed)
    plan = _plan(comparison, before, removed)
    read = outcome = None
    left, kinds = plan.differing, plan.kinds
    if not plan.empty:
        read, outcome = _merged(work, plan)
        session.progress.step("compare again")
        left, kinds = _left(work, replace(inventory, search=plan.search))
    row = repair_row(
        session,
        work.plan,
        read,
        outcome,
        covered_until=work.plan.stretch.start,
        retries=session.client.retries - retries,
    )
    return Repaired(
        run=row,
        found=plan.differing,
        left=left,
        kinds_left=kinds,
        voided=len(plan.gone),
        restored=len(plan.restored),
        unlisted=comparison.missing_in_feed(),
        search_refused=plan.search.refused,
        unread=comparison.unread,
    )


def _merged(work: _Repair, plan: _Plan) -> tuple[Reread, RunResult]:
    session, started_at = work.session, work.plan.started_at
    session.progress.step("read again what differs")
    read = commit(session, reread(session, work.plan, plan.wanted))
    session.snapshot.refresh(*session.lake.paths.shared)
    outcome = merge_landed(work.one.spark, session, read.landed, plan.beyond)
    voids = [
        *new_voids(plan.gone, run_id=session.run_id, recorded_at=started_at),
        *closed_rejects(plan.restored, run_id=session.run_id, recorded_at=started_at),
    ]
    record_rejects(session, read.landed, read.rejects_seen, outcome.rejected, started_at, voids)
    return read, outcome


def _plan(comparison: Comparison, before: Snapshot, removed: KeyFile) -> _Plan:
    """What the comparison leaves to be done."""
    different = comparison.different.where("not pending")
    repairable = different.where(~F.col("difference").isin(*_LEFT_ALONE))
    entries = comparison.last.select(*INSTANCE_KEY, "sequence", "timestampTicks")
    known = repairable.select(*INSTANCE_KEY).join(entries, on=list(INSTANCE_KEY))
    gone = gone_entries(comparison.gone)
    # A row of another writer without a whole key: no MERGE matches it.
    series = _rows(comparison.series.select(*SERIES_KEY).dropna())
    studies = _rows(comparison.study.select(*STUDY_KEY).dropna())
    differing, kinds = _counted(comparison)
    return _Plan(
        wanted=Wanted.of(known),
        beyond=RepairWork(
            removed=_with_series(comparison, removed),
            series=series,
            studies=studies,
            voids=voids_from_now(before, comparison, gone),
        ),
        gone=gone,
        restored=comparison.restored,
        differing=differing,
        kinds=kinds,
        search=comparison.search,
    )


def _removed(work: _Repair, comparison: Comparison) -> KeyFile:
    """The rows without an entry that the service proves not to have."""
    strange = differences.without(_extra(comparison), comparison.last)
    if strange.isEmpty():
        return KeyFile()
    service = work.one.service
    return proven_gone(service.client, work.one.folder, comparison.search, strange, connections=service.connections)


def _extra(comparison: Comparison) -> DataFrame:
    """The keys of the lake's rows that the service does not have."""
    return comparison.different.where("difference = 'extra' AND NOT pending").select(*INSTANCE_KEY)


def _with_series(comparison: Comparison, removed: KeyFile) -> Removed | None:
    """The rows to remove, with their series; None when there is none."""
    if not removed.rows:
        return None
    rows = removed.keys(comparison.last.sparkSession).select(*SERIES_KEY).distinct().toLocalIterator()
    return Removed(removed.keys, removed.rows, frozenset((row[0], row[1], row[2]) for row in rows))


def _rows(keys: DataFrame) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(row) for row in keys.toLocalIterator())


def _check_removals(work: _Repair, before: Snapshot, comparison: Comparison, removed: KeyFile) -> None:
    """Say how many rows each table will lose, if any. Raises DataError when that is too much."""
    if all(frame.isEmpty() for frame in (comparison.different, comparison.series, comparison.study)):
        return
    spark = work.one.spark
    lost = work.one.keep(differences.among(_extra(comparison), comparison.last).unionByName(removed.keys(spark)))
    # What is pending is left to the next sync.
    to_come = differences.without(comparison.live.select(*INSTANCE_KEY), comparison.different.where("pending"))
    after = differences.without(comparison.instances.select(*INSTANCE_KEY), lost).unionByName(to_come)
    tables = {name: rows(spark) for name, rows in before.tables.items()}
    check_removals(planned_removals(tables, lost, after), work.allowed, run_id=work.session.run_id)


def _left(work: _Repair, inventory: ServiceInventory) -> tuple[dict[str, int], dict[str, int]]:
    """How many rows of each table still differ, and instances by kind, by what was listed and read again.

    The lake as it is now, with what this repair has written.
    """
    change = read_table(work.one.spark, work.session.lake.path("change"))
    again = change.where(F.col("runId") == work.session.run_id)
    return _counted(compare(work.one, snapshot(work.session.snapshot.refresh()), inventory, again))


def _counted(comparison: Comparison) -> tuple[dict[str, int], dict[str, int]]:
    """How many rows of each table differ and are not pending, and instances by kind."""
    kinds = differences.counts_by_kind(comparison.different.where("not pending"))
    return {
        "instance": sum(kinds.values()),
        "series": comparison.series.count(),
        "study": comparison.study.count(),
    }, kinds
