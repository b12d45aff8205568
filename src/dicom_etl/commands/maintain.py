"""Compacts and vacuums every table of the lake, as its only writer."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pyspark.sql import SparkSession

from dicom_etl.commands.maintenance_plan import upkeep
from dicom_etl.core.clock import utc_now
from dicom_etl.core.progress import Progress, Silent
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake.claims.claim import claim
from dicom_etl.lake.high_water_mark import highest_landed
from dicom_etl.lake.ledger import Run, last_rebuild
from dicom_etl.lake.open import TABLES, Lake, existing_lake, highest_run_id, refuse_incomplete, refuse_restored
from dicom_etl.run.late_rows import oldest_compared, reading_runs
from dicom_etl.run.pipeline import record_verb
from dicom_etl.tables.compact import Maintained, maintain_table, purge_changes
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
) -> Iterator[Maintained]:
    """What was done to each table; the ledger gets a row of the verb ``maintain``.

    Raises ConfigurationError when there is no lake, DataError when a table of it is gone or older than recorded,
    AnotherWriter when somebody else writes it.
    """
    progress = progress or Silent()
    lake = existing_lake(settings)
    refuse_incomplete(lake)
    refuse_restored(lake)
    started = clock()
    with (
        Engine(settings.spark, spark, lake.places) as engine,
        claim(
            *lake.storage.filesystem(lake.places.claims),
            verb="maintain",
            floor=highest_run_id(lake),
            clock=clock,
            sleep=sleep,
            progress=engine.pulse,
        ) as held,
    ):
        _purge(settings, lake, engine, clock(), progress)
        for name in (one for one in TABLES if lake.has(one)):
            progress.step(f"maintain {name}")
            yield _maintained(name, lake, engine, settings.maintenance.retention_hours)
        record_verb(settings, lake, held.run_id, "maintain", started, clock())


def planned(settings: Settings, *, clock: Callable[[], datetime] = utc_now) -> Iterator[PlannedMaintenance]:
    """What `maintain` would do now (--dry-run): each table with its steps, none where there is nothing to do.

    Whether `change` is to be compacted after a purge shows only then. Takes no claim, starts no JVM and writes nothing;
    raises ConfigurationError when there is no lake, DataError when a table of it is gone.
    """
    lake = existing_lake(settings)
    refuse_incomplete(lake)
    refuse_restored(lake)
    for name in (one for one in TABLES if lake.has(one)):
        purge = ["purge"] if name == "change" and _purgeable(settings, lake, clock()) else []
        steps = upkeep(name, lake.table(name), settings.maintenance.retention_hours).steps
        yield PlannedMaintenance(name, purge + steps)


def _maintained(name: str, lake: Lake, engine: Engine, retention_hours: int) -> Maintained:
    work = upkeep(name, lake.table(name), retention_hours)
    if not work.steps:
        return Maintained(name, 0, 0, 0, 0)
    return maintain_table(engine.session(lake.rows()), name, lake.path(name), retention_hours, work)


def _purge(settings: Settings, lake: Lake, engine: Engine, now: datetime, progress: Progress) -> None:
    """Drop from ``change`` what was read longer ago than ``maintenance.change_retention_days``."""
    if purgeable := _purgeable(settings, lake, now):
        up_to_run, kept_sequence = purgeable
        progress.step("purge change")
        deleted = purge_changes(engine.session(lake.rows()), lake.path("change"), up_to_run, kept_sequence)
        log.info("change purged", extra={"entries": deleted, "up_to_run": up_to_run})


def _purgeable(settings: Settings, lake: Lake, now: datetime) -> tuple[int, int] | None:
    """Up to which run ``change`` is to be purged, and the sequence that stays; None where there is nothing to drop.

    Never what the roll-ups have not taken yet: a dead run's entries say which series and studies to repair. Nor what
    the search for late rows compares with: else it would take rows that were read for new ones.
    """
    days = settings.maintenance.change_retention_days
    if not days or not lake.has("change"):
        return None
    runs = lake.runs()
    highest = _kept_entry(lake, runs)
    if highest is None:
        return None
    cutoff = now - timedelta(days=days)
    old = max((run.run_id for run in runs if run.finished_at < cutoff), default=0)
    compared = oldest_compared(reading_runs(runs), settings.feed.look_back)
    up_to_run = min(old, lake.marker("series"), lake.marker("study"), old if compared is None else compared - 1)
    return (up_to_run, highest[0]) if lake.landed_between(0, up_to_run + 1, highest[0]) else None


def _kept_entry(lake: Lake, runs: list[Run]) -> tuple[int, int] | None:
    """The entry by which a run sees whether the feed has gone back: of before the last rebuild none is asked for."""
    change = lake.table("change")
    return highest_landed(change, since_run=last_rebuild(runs)) or highest_landed(change)
