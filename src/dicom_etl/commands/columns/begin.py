"""What every execution of the output `columns` begins and ends with, whatever its rows are computed from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pyspark.sql import SparkSession

from dicom_etl.commands.columns.compute import Work
from dicom_etl.commands.columns.quality import QualityWriter, quality_source, standing
from dicom_etl.commands.columns.write import Writer
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import TICKS_PER_MICROSECOND
from dicom_etl.lake.snapshot import Lake, LakeSnapshot
from dicom_etl.outputs import execution as ledger
from dicom_etl.outputs.columns.batches import batch_parser
from dicom_etl.outputs.columns.design import Column, ColumnDesign
from dicom_etl.outputs.execution import Counts, Execution
from dicom_etl.outputs.failures import unrecorded_logged
from dicom_etl.outputs.follow import Step
from dicom_etl.outputs.stored_tags import DESIGN, SETTLE, StoredTags, rolled_up
from dicom_etl.tables.schema import TableDesign
from dicom_etl.tables.tag_schema import TagColumn, TagTables

log = logging.getLogger(__name__)

OUTPUT = "columns"
Written = tuple[ledger.Mode, Counts, dict[str, int]]
"""How the rows were computed, what became of them, and the versions of the tables."""


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done: the step, the tags that the tables are to have, and what stands.

    ``executions`` are those so far. ``quality`` is the version of `header_quality` where it is known to equal
    `instance_tags`; ``rolled_up``: so do `series_tags` and `study_tags`, but for what this step touches.
    """

    step: Step
    design: ColumnDesign
    stored: StoredTags
    executions: Sequence[Execution]
    quality: int | None
    rolled_up: bool

    @property
    def whole(self) -> bool:
        """Whether what is made of `instance_tags` follows it: no execution died between."""
        return self.quality is not None and self.rolled_up


def due_with(lake: Lake, step: Step, design: ColumnDesign, stored: StoredTags, executions: Sequence[Execution]) -> Due:
    """The step, and whether what is made of `instance_tags` follows it as that stands."""
    return Due(step, design, stored, executions, standing(lake, stored, design), rolled_up(lake, stored))


def begun(due: Due, execution_id: int, clock: Callable[[], datetime]) -> Execution:
    """The row of an execution that begins: as it stays, should it fail."""
    return Execution(
        output=OUTPUT,
        execution_id=execution_id,
        mode=due.step.mode,
        status="failed",
        from_run=due.step.since,
        to_run=due.step.to_run,
        started_at=clock(),
        finished_at=clock(),
        design_digest=due.design.digest,
    )


def recorded(lake: Lake, row: Execution, clock: Callable[[], datetime], write: Callable[[], Written]) -> Execution:
    """The row behind what ``write`` has done, recorded; also where it fails, and then its error is raised."""
    try:
        mode, counts, versions = write()
    except Exception as error:
        with unrecorded_logged(OUTPUT):
            ledger.record(lake, replace(row, finished_at=clock(), error_class=type(error).__name__))
        raise
    done = replace(row, mode=mode, status="succeeded", finished_at=clock(), counts=counts, versions=versions)
    ledger.record(lake, done)
    log.info("output written", extra={"output": OUTPUT, "execution_id": row.execution_id, "to_run": done.to_run})
    return done


def writer_of(settings: Settings, snapshot: LakeSnapshot, due: Due, spark: SparkSession, execution_id: int) -> Writer:
    """What writes the step's rows in this session."""
    tables = TagTables(tuple(tag_column(column) for column in due.design.columns))
    settle = wanted_settle(settings)
    remade = due.stored.design != due.design or (due.step.mode == "full" and due.stored.settle_micros != settle)
    if not remade and due.stored.settle_micros is not None:
        settle = due.stored.settle_micros  # one study by one quiet and one by another could not be compared
    work = Work(snapshot, due.step, due.design, tables, due.stored, batch_parser(due.design))
    design = _table_design(settings, snapshot, due.design, settle)
    stands = None if remade else due.quality
    return Writer(
        spark,
        work,
        execution_id,
        design,
        settle,
        remade,
        due.rolled_up,
        QualityWriter(spark, snapshot.lake, quality_source(due.design), design, execution_id, stands),
    )


def tag_column(column: Column) -> TagColumn:
    """The column as the tables have it."""
    return TagColumn(column.name, column.type, column.level, column.path.text)


def wanted_settle(settings: Settings) -> int:
    """The quiet, in microseconds, after which the settings call a study settled."""
    return int(settings.outputs.settle) // TICKS_PER_MICROSECOND


def _table_design(settings: Settings, snapshot: LakeSnapshot, design: ColumnDesign, settle: int) -> TableDesign:
    identity = {**snapshot.lake.identity.properties, DESIGN: design.to_json(), SETTLE: str(settle)}
    # Reader version 1, whatever the fixed tables have: Fabric, DuckDB and Polars read them as they are.
    return TableDesign((), settings.maintenance.retention_hours, False, identity)
