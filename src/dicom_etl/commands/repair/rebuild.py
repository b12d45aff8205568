"""Rebuilds the three tables from the service, and swaps each in by one commit (design/architecture.md: Fencing)."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TypedDict

from pyspark.sql import DataFrame, SparkSession

from dicom_etl.commands.repair.old_tables import old_tables
from dicom_etl.commands.repair.removals import check_removals, planned_removals
from dicom_etl.commands.repair.reread import Repaired, Reread, commit, discard, repair_row, reread
from dicom_etl.commands.verify.compare import Comparer, Comparison, Snapshot, compare, gone_entries, voids_from_now
from dicom_etl.commands.verify.inventory import Service, ServiceInventory
from dicom_etl.commands.verify.scratch import Scratch
from dicom_etl.commands.verify.search_result import proven_gone, search_studies
from dicom_etl.core.attributes import INSTANCE_KEY
from dicom_etl.core.errors import DataError
from dicom_etl.core.timerange import Window, from_datetime
from dicom_etl.dicomweb.feed.reader import any_entry
from dicom_etl.lake.coverage import coverage_end
from dicom_etl.lake.rejected import Reject, closed_rejects, read_open
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.lake.voids import Key, new_voids, read_voids
from dicom_etl.run.merge import RunResult, folded
from dicom_etl.run.plan import RunPlan
from dicom_etl.run.rejects import record_rejects
from dicom_etl.run.replace import replace_with, rolled_up
from dicom_etl.run.write_session import WriteSession
from dicom_etl.tables import differences, fold
from dicom_etl.tables.engine.location import location, read_parquet
from dicom_etl.tables.merge import MergeResult, read_table
from dicom_etl.tables.schema import INSTANCE, SERIES, STUDY

log = logging.getLogger(__name__)


class _ByUs(TypedDict):
    """By which run a reject ends, and when."""

    run_id: int
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class _Rebuild:
    """What every step of a rebuild works with."""

    session: WriteSession
    plan: RunPlan
    service: Service
    covered_until: int
    retries: int
    went_back: bool


def rebuild_tables(
    session: WriteSession,
    plan: RunPlan,
    service: Service,
    folder: Scratch,
    *,
    allowed: int | None,
    went_back: bool = False,
) -> Repaired:
    """What the new tables hold, as counts; the ledger's row covers all that was read.

    Readers have the old tables meanwhile, or none where one had vanished. A row of which the feed shows no usable last
    entry stays as it was, unless the service proves that it does not have the instance. Raises DataError, with nothing
    written, when rows would go that cannot be judged, or more than ``allowed``; Superseded when a newer run wrote.
    """
    covered_until = coverage_end(plan.stretch, plan.now, session.settings.feed.delay)
    work = _Rebuild(session, plan, service, covered_until, service.client.retries, went_back)
    service.progress.step("read")
    read = reread(session, plan)
    with _discarded_on_failure(read):
        one = Comparer(session.engine.session(read.landed.entries), service, folder)
        inventory = _inventory(work, read, folder)
        before = _snapshot(work, old_tables(one.spark, session.snapshot, folder))
        service.progress.step("compare")
        comparison = compare(one, before, inventory)
        lost = _losses(one, comparison)
        _check(work, before, comparison, lost, allowed)
    return _rebuilt(work, one, commit(session, read), before, comparison, lost)


@contextmanager
def _discarded_on_failure(read: Reread) -> Iterator[None]:
    """Remove what was landed when the block fails; after an unclear commit nobody may, so it is not part of it."""
    try:
        yield
    except BaseException:
        discard(read)
        raise


def _inventory(work: _Rebuild, read: Reread, folder: Scratch) -> ServiceInventory:
    """What was landed, as a comparison takes it, and what the search holds."""
    window, client, settings = work.plan.stretch, work.service.client, work.service.settings
    work.service.progress.step("ask the search")
    return ServiceInventory(
        start=window.start,
        as_of=window.end,
        complete=window.start <= 0 or not any_entry(client, Window(0, window.start)),
        files=tuple(f"{work.session.lake.path('change')}/{file.path}" for file in read.landed.files),
        next_reading=work.session.run_id + 1,
        unreadable=frozenset(),
        search=search_studies(client, folder, settings.dicom.connections),
    )


def _snapshot(work: _Rebuild, tables: dict[str, DataFrame]) -> Snapshot:
    """The old tables, as if all that was read were covered: what came too late to be judged is pending.

    A service that went back gives sequences again: no void of before holds, what is gone is proven again.
    """
    rejected = work.session.snapshot.table("rejected")
    return Snapshot(
        work.session.lake,
        {name: partial(_given, rows) for name, rows in tables.items()},
        (Window(work.plan.stretch.start, work.covered_until),),
        tuple(read_open(rejected)),
        () if work.went_back else tuple(read_voids(rejected)),
    )


def _given(rows: DataFrame, _session: SparkSession) -> DataFrame:
    return rows


def _losses(one: Comparer, comparison: Comparison) -> DataFrame:
    """The keys of the old rows that go: of instances that were deleted, or that the service proves not to have.

    Raises DataError where the feed was not read from its first entry and has no entry of a row.
    """
    unknown = comparison.different.where("difference = 'unknown'").count()
    if unknown:
        raise DataError(
            f"instance holds {unknown} rows of which the feed shows nothing since the earliest coverage: a rebuild "
            "would remove them. Nothing was written; set feed.start to the time of the service's first entry"
        )
    stored = comparison.instances.select(*INSTANCE_KEY).distinct()
    deleted = differences.without(comparison.last.where("state = 'Deleted'"), comparison.in_search)
    strange = one.keep(differences.without(stored, comparison.last, comparison.in_search))
    service = one.service
    proven = proven_gone(service.client, one.folder, comparison.search, strange, connections=service.connections)
    keys = [frame.select(*INSTANCE_KEY) for frame in (deleted, comparison.gone, proven.keys(one.spark))]
    return one.keep(differences.among(stored, keys[0].unionByName(keys[1]).unionByName(keys[2])))


def _check(work: _Rebuild, before: Snapshot, comparison: Comparison, lost: DataFrame, allowed: int | None) -> None:
    """Say how many rows each table will lose. Raises DataError when that is too much."""
    spark = lost.sparkSession
    kept = differences.without(comparison.instances.select(*INSTANCE_KEY), lost)
    after = kept.unionByName(comparison.live.select(*INSTANCE_KEY))
    tables = {name: rows(spark) for name, rows in before.tables.items()}
    check_removals(planned_removals(tables, lost, after, single=True), allowed, run_id=work.session.run_id)


def _rebuilt(
    work: _Rebuild, one: Comparer, read: Reread, before: Snapshot, comparison: Comparison, lost: DataFrame
) -> Repaired:
    session = work.session
    gone = gone_entries(comparison.gone)
    voids = voids_from_now(before, comparison, gone)
    outcome = _replace_all(work, one, read, voids, differences.without(comparison.instances, lost))
    # The ledger's row names what went: one entry more was read for each, as for any row that a repair removes.
    removed = lost.count()
    outcome = replace(outcome, instance=replace(outcome.instance, deleted=removed), removed=removed)
    by_us: _ByUs = {"run_id": session.run_id, "recorded_at": work.plan.started_at}
    ended = [
        *closed_rejects(_overruled(work), **by_us),
        *new_voids(gone, **by_us),
        *closed_rejects(comparison.restored, **by_us),
        *closed_rejects(_no_longer_served(work, before, read), **by_us, status="void"),
    ]
    record_rejects(session, read.landed, read.rejects_seen, outcome.rejected, work.plan.started_at, ended)
    retries = session.client.retries - work.retries
    row = repair_row(session, work.plan, read, outcome, covered_until=work.covered_until, retries=retries)
    kinds = _left(one, session.snapshot, comparison, outcome)
    return Repaired(
        run=row,
        found={},
        left={"instance": sum(kinds.values()), "series": 0, "study": 0},
        kinds_left=kinds,
        voided=len(gone),
        restored=len(comparison.restored),
        unlisted=comparison.missing_in_feed(),
        search_refused=comparison.search.refused,
        feed_went_back=work.went_back,
    )


def _left(one: Comparer, opened: LakeSnapshot, comparison: Comparison, outcome: RunResult) -> dict[str, int]:
    """How many instances differ between the service and the table that was built, by kind.

    Those of rejects that are open by now are among them, as in any comparison.
    """
    now = read_table(one.spark, opened.lake.path("instance"), outcome.instance.version)
    after = differences.instance_differences(comparison.live, now, comparison.pending)
    after = differences.judged(
        after, last=comparison.last, in_search=comparison.in_search, complete=comparison.complete
    )
    stale = comparison.different.where("difference = 'overtaken' AND NOT pending")
    after = differences.and_keys(after.where("difference <> 'missingInFeed'"), stale, "overtaken", replacing=True)
    rejected = one.reject_keys(read_open(opened.refresh("rejected").table("rejected")))
    after = differences.and_keys(after, differences.without(rejected, comparison.pending), "rejected")
    return differences.counts_by_kind(after.where("not pending"))


def _overruled(work: _Rebuild) -> list[Reject]:
    """The voids that end with a service that went back."""
    return read_voids(work.session.snapshot.table("rejected")) if work.went_back else []


def _no_longer_served(work: _Rebuild, before: Snapshot, read: Reread) -> list[Reject]:
    """Of a service that went back the open rejects whose entries were not met: nobody can read them any more."""
    if not work.went_back:
        return []
    seen = {reject.sequence for reject in read.rejects_seen}
    start, end = work.plan.stretch.start, work.covered_until
    return [
        reject
        for reject in before.open_rejects
        if reject.sequence not in seen and start <= from_datetime(reject.timestamp) < end
    ]


def _replace_all(work: _Rebuild, one: Comparer, read: Reread, voids: dict[Key, int], old: DataFrame) -> RunResult:
    """The three tables, instance first; series and study are made from the version that was written.

    ``old`` are the rows that may stay where the feed gives none: their last entry cannot be used, or is not there.
    """
    spark, session = one.spark, work.session
    work.service.progress.step("build instance")
    began = time.monotonic()
    with folded(spark, session.snapshot, session.run_id, read.landed, voids) as effects:

        def living(cloned: SparkSession) -> DataFrame:
            return effects.rows(cloned).where(f"effect = '{fold.UPSERT}'").select(*INSTANCE.columns.names)

        # In a file: a frame belongs to its session, and the swap has one of its own.
        kept = one.folder.path("kept")
        differences.without(old, living(spark)).dropDuplicates(list(INSTANCE_KEY)).write.parquet(location(kept))

        def rows(cloned: SparkSession) -> DataFrame:
            return living(cloned).unionByName(read_parquet(cloned, INSTANCE.columns, [kept]))

        version = replace_with(spark, session, INSTANCE, rows)
        built = living(spark).count()
    merge_seconds = time.monotonic() - began
    work.service.progress.step("build series and study")
    began = time.monotonic()
    series = replace_with(spark, session, SERIES, rolled_up(session.lake, SERIES, version))
    study = replace_with(spark, session, STUDY, rolled_up(session.lake, STUDY, version))
    log.info("tables rebuilt", extra={"run_id": session.run_id, "instances": built})
    return RunResult(
        MergeResult(built, 0, 0, version), series, study, effects.rejected, merge_seconds, time.monotonic() - began
    )
