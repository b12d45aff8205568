"""One execution of the output `columns`: brings the tag tables to what the last run left (design/outputs.md)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from pyspark.sql import SparkSession

from dicom_etl.commands.columns.compute import Work, computed, touched_studies
from dicom_etl.commands.columns.stored import DESIGN, StoredTags, stored_tags
from dicom_etl.commands.columns.wanted import added_tags, wanted_design
from dicom_etl.commands.columns.write import Writer, write_tags
from dicom_etl.core.clock import utc_now
from dicom_etl.core.errors import DicomEtlError
from dicom_etl.core.progress import NullProgress, Progress
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import TICKS_PER_MICROSECOND
from dicom_etl.lake.open import existing_lake, refuse_incomplete, refuse_restored
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.lake.statistics import shared_rows
from dicom_etl.outputs import execution as ledger
from dicom_etl.outputs.claim import claimed
from dicom_etl.outputs.columns.batches import batch_parser
from dicom_etl.outputs.columns.design import Column, ColumnDesign
from dicom_etl.outputs.execution import Counts, Execution
from dicom_etl.outputs.follow import Step, next_step, restored
from dicom_etl.tables.engine.session import Engine, cluster_session, whole_tables_session
from dicom_etl.tables.schema import TableDesign
from dicom_etl.tables.tag_schema import TagColumn, TagTables

log = logging.getLogger(__name__)

OUTPUT = "columns"


@dataclass(frozen=True, slots=True)
class Tools:
    """What an execution works with, and the caller opens and closes."""

    settings: Settings
    engine: Engine
    progress: Progress
    clock: Callable[[], datetime]
    sleep: Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done: the step, the tags that the tables are to have, and what stands."""

    step: Step
    design: ColumnDesign
    stored: StoredTags
    known: list[Execution]


def update(
    settings: Settings,
    *,
    full: bool = False,
    backfill: bool = False,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
) -> Execution | None:
    """The execution's row, after everything else is written; None where the tables are up to date.

    ``full`` computes every row, ``backfill`` gives the tables the tags that were added or removed since. Raises
    ConfigurationError when there is no lake or a tag cannot be a column, AnotherWriter when an execution is under way.
    """
    snapshot = existing_lake(settings)
    refuse_incomplete(snapshot)
    with Engine(settings.spark, spark, snapshot.lake.paths) as engine:
        tools = Tools(settings, engine, progress or NullProgress(), clock, sleep)
        return update_in(tools, snapshot, full=full, backfill=backfill)


def update_in(tools: Tools, snapshot: LakeSnapshot, *, full: bool = False, backfill: bool = False) -> Execution | None:
    """The same in an engine that the caller keeps; nothing is claimed, and no JVM started, where nothing is due."""
    if due(tools.settings, snapshot, full=full, backfill=backfill) is None:
        return None
    known = ledger.executions(ledger.open_executions(snapshot.lake))
    with claimed(
        snapshot.lake, OUTPUT, known, clock=tools.clock, sleep=tools.sleep, pulse=tools.engine.pulse
    ) as execution_id:
        # Another execution may have ended between.
        work = due(tools.settings, snapshot.refresh(), full=full, backfill=backfill)
        return None if work is None else _executed(tools, snapshot, work, execution_id)


def due(settings: Settings, snapshot: LakeSnapshot, *, full: bool = False, backfill: bool = False) -> Due | None:
    """What there is to do, by the logs alone; None where the tables are up to date."""
    table = ledger.open_executions(snapshot.lake)
    known = ledger.executions(table)
    last = ledger.last_succeeded(known, OUTPUT)
    stored = stored_tags(snapshot.lake)
    made_of = stored.design
    wanted = wanted_design(settings, added_tags(table), made_of)
    whole = full or (backfill and made_of != wanted) or (last is not None and _unfit(last, stored))
    step = next_step(snapshot.runs(), last, forced="full" if whole else None)
    if step is None:
        return None
    refuse_restored(snapshot)
    design = wanted if made_of is None or backfill else made_of
    return Due(step, design, stored, known)


def _unfit(last: Execution, stored: StoredTags) -> bool:
    """Whether the tables are not those that the last execution left: gone, put back, or half replaced."""
    made_of = stored.design
    return made_of is None or made_of.digest != last.design_digest or bool(restored(last, stored.versions))


def _executed(tools: Tools, snapshot: LakeSnapshot, work: Due, execution_id: int) -> Execution:
    row = Execution(
        output=OUTPUT,
        execution_id=execution_id,
        mode=work.step.mode,
        status="failed",
        from_run=work.step.since,
        to_run=work.step.to_run,
        started_at=tools.clock(),
        finished_at=tools.clock(),
        design_digest=work.design.digest,
    )
    try:
        mode, counts, versions = _written(tools, snapshot, work, execution_id)
    except Exception as error:
        _record_failure(snapshot, replace(row, finished_at=tools.clock(), error_class=type(error).__name__))
        raise
    done = replace(row, mode=mode, status="succeeded", finished_at=tools.clock(), counts=counts, versions=versions)
    ledger.record(snapshot.lake, done)
    log.info("output written", extra={"output": OUTPUT, "execution_id": execution_id, "to_run": done.to_run})
    return done


def _record_failure(snapshot: LakeSnapshot, row: Execution) -> None:
    try:
        ledger.record(snapshot.lake, row)
    except DicomEtlError as unrecorded:
        log.warning("failure not recorded", extra={"run_id": row.execution_id, "error": type(unrecorded).__name__})


def _written(
    tools: Tools, snapshot: LakeSnapshot, due: Due, execution_id: int
) -> tuple[ledger.Mode, Counts, dict[str, int]]:
    """How the rows were computed, what became of them, and the versions of the tables."""
    step = due.step
    studies: frozenset[str] = frozenset()
    rows = shared_rows(snapshot)
    if step.mode == "changed":
        studies, rows = touched_studies(snapshot, step.since, step.to_run)
        if not rows:
            return step.mode, Counts(), {name: version or 0 for name, version in due.stored.versions.items()}
    tools.progress.step("start Spark")
    started = tools.engine.session(rows)
    spark = cluster_session(started) if step.mode == "changed" else whole_tables_session(started)
    tools.progress.step("write the tag tables")
    tables = TagTables(tuple(tag_column(column) for column in due.design.columns))
    work = Work(snapshot, step, tables, due.stored, batch_parser(due.design))
    done = computed(spark, work, studies)
    remade = due.stored.design != due.design
    design = _table_design(tools.settings, snapshot, due.design)
    settle = int(tools.settings.outputs.settle) // TICKS_PER_MICROSECOND
    counts, versions = write_tags(Writer(spark, work, execution_id, design, settle, remade), done)
    return done.mode, counts, versions


def tag_column(column: Column) -> TagColumn:
    """The column as the tables have it; its comment says of which attribute it is."""
    return TagColumn(column.name, column.type, column.level, column.path.text)


def _table_design(settings: Settings, snapshot: LakeSnapshot, design: ColumnDesign) -> TableDesign:
    identity = {**snapshot.lake.identity.properties, DESIGN: design.to_json()}
    # Reader version 1, whatever the fixed tables have: Fabric, DuckDB and Polars read them as they are.
    return TableDesign((), settings.maintenance.retention_hours, False, identity)
