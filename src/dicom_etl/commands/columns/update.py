"""One execution of the output `columns`: brings the tag tables to what the last run left (design/outputs.md)."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pyspark.sql import SparkSession

from dicom_etl.commands.columns.begin import OUTPUT, Due, Written, begun, due_with, recorded, wanted_settle, writer_of
from dicom_etl.commands.columns.compute import computed
from dicom_etl.commands.columns.landed import landed
from dicom_etl.commands.columns.wanted import added_tags, wanted_design
from dicom_etl.commands.columns.write import write_tags
from dicom_etl.core.clock import utc_now
from dicom_etl.core.progress import NullProgress, Progress
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake.open import existing_lake, refuse_incomplete, refuse_restored
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.lake.statistics import shared_rows
from dicom_etl.outputs import execution as ledger
from dicom_etl.outputs.claim import claimed
from dicom_etl.outputs.execution import Counts, Execution
from dicom_etl.outputs.failures import failure_recorded
from dicom_etl.outputs.follow import next_step, restored
from dicom_etl.outputs.stored_tags import QUALITY, StoredTags, last_execution_id, stored_tags
from dicom_etl.tables.engine.session import Engine, cluster_session, whole_tables_session

Extent = Literal["due", "full", "backfill"]
"""What an execution is to do: follow the runs; compute every row; give the tables the tags that were chosen since."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What an execution works with, and the caller opens and closes."""

    settings: Settings
    engine: Engine
    progress: Progress
    clock: Callable[[], datetime]
    sleep: Callable[[float], None]


def update(
    settings: Settings,
    extent: Extent = "due",
    *,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
) -> Execution | None:
    """The execution's row, after everything else is written; None where the tables are up to date.

    Raises ConfigurationError when there is no lake or a tag cannot be a column, AnotherWriter when an execution is
    under way.
    """
    snapshot = existing_lake(settings)
    refuse_incomplete(snapshot)
    failed = failure_recorded(snapshot, OUTPUT, clock=clock, sleep=sleep)
    with failed, Engine(settings.spark, spark, snapshot.lake.paths) as engine:
        tools = Tools(settings, engine, progress or NullProgress(), clock, sleep)
        return update_in(tools, snapshot, extent)


def update_in(tools: Tools, snapshot: LakeSnapshot, extent: Extent = "due") -> Execution | None:
    """The same in an engine that the caller keeps; nothing is claimed, and no JVM started, where nothing is due."""
    before = due(tools.settings, snapshot, extent)
    if before is None:
        return None
    last_id = last_execution_id(snapshot.lake, before.executions, OUTPUT, before.stored)
    with claimed(
        snapshot.lake, OUTPUT, last_id, clock=tools.clock, sleep=tools.sleep, pulse=tools.engine.pulse
    ) as execution_id:
        # Again: another execution may have ended between, and only under the claim does it stay so.
        work = due(tools.settings, snapshot.refresh(), extent)
        return None if work is None else _executed(tools, snapshot, work, execution_id)


def due(settings: Settings, snapshot: LakeSnapshot, extent: Extent = "due") -> Due | None:
    """What there is to do, by the logs alone; None where the tables are up to date."""
    table = ledger.open_executions(snapshot.lake)
    known = ledger.executions(table)
    last = ledger.last_succeeded(known, OUTPUT)
    stored = stored_tags(snapshot.lake)
    made_of = stored.design
    wanted = wanted_design(settings, added_tags(table), made_of)
    backfill = extent == "backfill"
    differs = made_of != wanted or stored.settle_micros != wanted_settle(settings)
    whole = extent == "full" or (backfill and differs) or (last is not None and _unfit(last, stored))
    runs = snapshot.runs()
    step = next_step(runs, last, forced="full" if whole else None)
    design = wanted if made_of is None or backfill else made_of
    wanted_step = step or next_step(runs, last, forced="changed")
    if wanted_step is None:
        return None
    found = due_with(snapshot.lake, wanted_step, design, stored, known)
    if step is None and found.whole:
        return None  # else an execution died behind `instance_tags`, or what is made of it was put back
    refuse_restored(snapshot)
    return found


def _unfit(last: Execution, stored: StoredTags) -> bool:
    """Whether the tables are not those that the last execution left: gone, put back, or half replaced."""
    made_of = stored.design
    put_back = set(restored(last, stored.versions)) - {QUALITY}
    return made_of is None or made_of.digest != last.design_digest or bool(put_back)


def _executed(tools: Tools, snapshot: LakeSnapshot, work: Due, execution_id: int) -> Execution:
    row = begun(work, execution_id, tools.clock)
    return recorded(snapshot.lake, row, tools.clock, lambda: _written(tools, snapshot, work, execution_id))


def _written(tools: Tools, snapshot: LakeSnapshot, due: Due, execution_id: int) -> Written:
    step = due.step
    entries = landed(snapshot, step.since, step.to_run) if step.mode == "changed" else None
    rows = shared_rows(snapshot)
    if entries is not None:
        rows = entries.count
        if not rows and due.quality is not None and due.rolled_up:
            standing_versions = {name: version or 0 for name, version in due.stored.versions.items()}
            return step.mode, Counts(), {**standing_versions, QUALITY: due.quality}
    tools.progress.step("start Spark")
    started = tools.engine.session(rows)
    spark = cluster_session(started) if step.mode == "changed" else whole_tables_session(started)
    tools.progress.step("write the tag tables")
    writer = writer_of(tools.settings, snapshot, due, spark, execution_id)
    done = computed(spark, writer.work, entries)
    counts, versions = write_tags(writer, done)
    return done.mode, counts, versions
