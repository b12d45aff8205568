"""Compacts and vacuums every table of the lake, as its only writer; chooses how long files are kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from deltalake import DeltaTable
from pyspark.sql import SparkSession

from dicom_etl.commands.maintenance_plan import maintenance_plan
from dicom_etl.core.clock import utc_now
from dicom_etl.core.errors import AnotherWriter
from dicom_etl.core.progress import NullProgress, Progress
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake.high_water_mark import highest_landed
from dicom_etl.lake.ledger import Run, last_rebuild
from dicom_etl.lake.open import existing_lake, refuse_incomplete, refuse_restored
from dicom_etl.lake.snapshot import TABLES, Lake, LakeSnapshot, opened
from dicom_etl.lake.statistics import landed_between, shared_rows
from dicom_etl.outputs.claim import claimed
from dicom_etl.outputs.execution import executions, highest_id, open_executions
from dicom_etl.outputs.follow import oldest_needed
from dicom_etl.run.late_rows import oldest_compared, reading_runs
from dicom_etl.run.record import record_verb
from dicom_etl.run.write_session import Resources, WriteSession, write_session
from dicom_etl.tables.compact import MaintenanceResult, maintain_table, purge_changes, purge_superseded
from dicom_etl.tables.engine.session import Engine

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PlannedMaintenance:
    """What `maintain` would do to one table: the names of its steps, none when nothing is to be done."""

    table: str
    steps: list[str]

    def as_row(self) -> dict[str, Any]:
        """By name, as a command and a job print it."""
        return {"table": self.table, "plannedSteps": self.steps}


def maintain(
    settings: Settings,
    *,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[MaintenanceResult]:
    """What was done to each table; the ledger gets a row of the verb ``maintain``.

    Raises ConfigurationError when there is no lake, DataError when a table of it is gone or older than recorded,
    AnotherWriter when somebody else writes it.
    """
    progress = progress or NullProgress()
    snapshot = existing_lake(settings)
    refuse_incomplete(snapshot)
    refuse_restored(snapshot)
    started = clock()
    with (
        Engine(settings.spark, spark, snapshot.lake.paths) as engine,
        write_session(Resources(settings, None, engine, progress, clock, sleep), "maintain", snapshot) as session,
    ):
        _purge(session)
        for name in (one for one in TABLES if snapshot.has(one)):
            progress.step(f"maintain {name}")
            yield _maintained(name, session)
        yield from _outputs_maintained(session)
        record_verb(session, started)


def planned(settings: Settings, *, clock: Callable[[], datetime] = utc_now) -> Iterator[PlannedMaintenance]:
    """What `maintain` would do now (--dry-run): each table with its steps, none where there is nothing to do.

    Whether `change` is to be compacted after a purge shows only then. Takes no claim, starts no JVM and writes nothing;
    raises ConfigurationError when there is no lake, DataError when a table of it is gone.
    """
    snapshot = existing_lake(settings)
    refuse_incomplete(snapshot)
    refuse_restored(snapshot)
    for name in (one for one in TABLES if snapshot.has(one)):
        purge = ["purge"] if name == "change" and _purgeable(settings, snapshot, clock()) else []
        steps = maintenance_plan(name, snapshot.table(name), settings.maintenance.retention_hours).steps
        yield PlannedMaintenance(name, purge + steps)
    for name, table in output_tables(snapshot.lake).items():
        yield PlannedMaintenance(name, maintenance_plan(name, table, settings.maintenance.retention_hours).steps)


def _maintained(name: str, session: WriteSession) -> MaintenanceResult:
    """What was done to one table; what it needs is decided by how it is now, behind a purge."""
    return _maintained_as_planned(name, session.snapshot.refresh(name).table(name), session)


def _maintained_as_planned(name: str, table: DeltaTable, session: WriteSession) -> MaintenanceResult:
    retention_hours = session.settings.maintenance.retention_hours
    work = maintenance_plan(name, table, retention_hours)
    if not work.steps:
        return MaintenanceResult(name, 0, 0, 0, 0)
    spark = session.engine.session(shared_rows(session.snapshot))
    return maintain_table(spark, name, session.lake.path(name), retention_hours, work)


def _outputs_maintained(session: WriteSession) -> Iterator[MaintenanceResult]:
    """What was done to the tables of each output; nothing while it is executed, which the log tells."""
    lake, tools = session.lake, session.resources
    for output, names in _OF_OUTPUTS.items():
        if not output_tables(lake, names):
            continue
        last_id = highest_id(executions(open_executions(lake)), output)
        try:
            with claimed(
                lake, output, last_id, clock=tools.clock, sleep=tools.sleep, pulse=tools.engine.pulse, verb="maintain"
            ):
                for name, table in output_tables(lake, names).items():
                    session.progress.step(f"maintain {name}")
                    yield _maintained_as_planned(name, table, session)
        except AnotherWriter as busy:
            log.info("output not maintained", extra={"output": output, "error": type(busy).__name__})


# The tables by the output whose claim keeps others from writing them.
_OF_OUTPUTS = {
    "columns": ("instance_tags", "series_tags", "study_tags", "header_quality", "output"),
    "fhir": ("fhir_sent",),
}


def output_tables(lake: Lake, names: Iterable[str] | None = None) -> dict[str, DeltaTable]:
    """The tables of the outputs, or those ``names``, as far as they are there."""
    wanted = [name for its in _OF_OUTPUTS.values() for name in its] if names is None else names
    found = {name: opened(lake.paths, name) for name in wanted}
    return {name: table for name, table in found.items() if table is not None}


def _purge(session: WriteSession) -> None:
    """Drop from ``change`` what was read longer ago than ``maintenance.change_retention_days``."""
    if purgeable := _purgeable(session.settings, session.snapshot, session.now()):
        up_to_run, kept_sequence = purgeable
        session.progress.step("purge change")
        spark = session.engine.session(shared_rows(session.snapshot))
        change, instances = session.lake.path("change"), session.lake.path("instance")
        if session.settings.maintenance.keep_live_headers:
            deleted = purge_superseded(spark, change, instances, up_to_run, kept_sequence)
        else:
            deleted = purge_changes(spark, change, up_to_run, kept_sequence)
        log.info("change purged", extra={"entries": deleted, "up_to_run": up_to_run})


def _purgeable(settings: Settings, snapshot: LakeSnapshot, now: datetime) -> tuple[int, int] | None:
    """Up to which run ``change`` is to be purged, and the sequence that stays; None where there is nothing to drop.

    Never what the roll-ups have not taken yet: a dead run's entries say which series and studies to repair. Nor what
    the search for late rows compares with: else it would take rows that were read for new ones. Nor what an output has
    not followed yet: that output would have to compare everything.
    """
    days = settings.maintenance.change_retention_days
    change = snapshot.get("change")
    if not days or change is None:
        return None
    runs = snapshot.runs()
    highest = _kept_entry(change, runs)
    if highest is None:
        return None
    cutoff = now - timedelta(days=days)
    old = max((run.run_id for run in runs if run.finished_at < cutoff), default=0)
    compared = oldest_compared(reading_runs(runs), settings.feed.look_back)
    up_to_run = min(
        old, snapshot.txn_version("series"), snapshot.txn_version("study"), old if compared is None else compared - 1
    )
    held = oldest_needed(executions(open_executions(snapshot.lake)))
    if held is not None and held[0] < up_to_run:
        log.info("output holds back the purge of change", extra={"output": held[1], "up_to_run": held[0]})
        up_to_run = held[0]
    return (up_to_run, highest[0]) if landed_between(change, 0, up_to_run + 1, highest[0]) else None


def _kept_entry(change: DeltaTable, runs: list[Run]) -> tuple[int, int] | None:
    """The entry by which a run sees whether the feed has gone back: of before the last rebuild none is asked for."""
    return highest_landed(change, since_run=last_rebuild(runs)) or highest_landed(change)
