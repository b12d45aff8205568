"""Builds the three tables anew from the service, each put into place by one commit (architecture §5.2)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from dicom_etl.comparing import find_gone, gone_entries
from dicom_etl.deltalog import local_folder, properties
from dicom_etl.dicomweb.client import DicomClient
from dicom_etl.errors import Superseded
from dicom_etl.lake import changes, comparison, rollup
from dicom_etl.lake.replacement import replace_table
from dicom_etl.lake.schema import INSTANCE, PARTITION_COLUMN, SERIES, STUDY, Table, table_properties
from dicom_etl.lake.session import Engine
from dicom_etl.lake.tables import Fence, Merged, Source, read_table
from dicom_etl.lake.voids import as_deleted
from dicom_etl.landing.voids import Key, new_voids, read_voids, void_until
from dicom_etl.listing import Found, list_instances
from dicom_etl.merging import Outcome, folded
from dicom_etl.one_run import record_rejects
from dicom_etl.open_lake import Lake
from dicom_etl.progress import Progress
from dicom_etl.repairing import Repaired, Reread, repair_row, reread
from dicom_etl.runs.due import coverage_end
from dicom_etl.settings import Settings
from dicom_etl.task import Task

log = logging.getLogger(__name__)


def rebuild_tables(
    task: Task,
    settings: Settings,
    lake: Lake,
    client: DicomClient,
    engine: Engine,
    folder: Path,
    *,
    clock: Callable[[], datetime],
    progress: Progress,
) -> Repaired:
    """What the new tables hold, as counts; the ledger's row covers all that was read.

    Whoever reads meanwhile has the old tables, or none where one had vanished. A key whose last entry cannot be
    used has no row until it can; it stands in ``rejected``. Raises Superseded when a newer run has written.
    """
    retries = client.retries
    progress.step("read")
    read = reread(task, settings, lake, client, [task.stretch], progress)
    progress.step("ask the search")
    found = list_instances(client, local_folder(str(folder), private=True))
    spark = engine.session(read.landed.entries)
    covered_until = coverage_end(task.stretch, task.now, settings.feed.delay)
    known = void_until(read_voids(lake.table("rejected")))
    found, gone = _gone(spark, task, lake, client, folder, found, known, covered_until, read.landed.version)
    outcome = _replace_all(
        spark, task, settings, lake, read, {**known, **{key: sequence for key, sequence, _ in gone}}, progress
    )
    record_rejects(
        task,
        lake,
        read.landed,
        read.met,
        outcome.rejected,
        task.started_at,
        new_voids(gone, run_id=task.run_id, recorded_at=task.started_at),
    )
    row = repair_row(
        task,
        settings,
        lake,
        read,
        outcome,
        removed=0,
        covered_until=covered_until,
        retries=client.retries - retries,
        finished_at=clock(),
    )
    return Repaired(
        run=row,
        found={},
        left={"instance": len(outcome.rejected), "series": 0, "study": 0},
        voided=len(gone),
        served_again=0,
        unlisted=0,
        search_refused=found.refused,
    )


def _gone(
    spark: SparkSession,
    task: Task,
    lake: Lake,
    client: DicomClient,
    folder: Path,
    found: Found,
    voids: dict[Key, int],
    covered_until: int,
    change_version: int | None,
) -> tuple[Found, list[tuple[Key, int, int]]]:
    """What the feed shows and the search does not hold; not what happened too lately to be told."""
    change = read_table(spark, lake.path("change"), change_version)
    last = as_deleted(changes.last_of_each_key(changes.entries_of_run(change, task.run_id)), voids).cache()
    try:
        pending = comparison.pending_keys(last, [(task.stretch.start, covered_until)])
        found, _, gone = find_gone(spark, comparison.live_instances(last), pending, found, client, folder)
        return found, gone_entries(gone)
    finally:
        last.unpersist()


def _replace_all(
    spark: SparkSession,
    task: Task,
    settings: Settings,
    lake: Lake,
    read: Reread,
    voids: dict[Key, int],
    progress: Progress,
) -> Outcome:
    """The three tables, instance first; series and study are made from the version that was written."""
    progress.step("build instance")
    began = time.monotonic()
    with folded(spark, lake, task.run_id, read.landed, voids) as fold:

        def living(session: SparkSession) -> DataFrame:
            return fold.rows(session).where(f"effect = '{changes.UPSERT}'")

        version = put_in_place(spark, task.run_id, settings, lake, INSTANCE, living)
    merge_seconds = time.monotonic() - began
    progress.step("build series and study")
    began = time.monotonic()
    series = put_in_place(spark, task.run_id, settings, lake, SERIES, rolled_up(lake, SERIES, version))
    study = put_in_place(spark, task.run_id, settings, lake, STUDY, rolled_up(lake, STUDY, version))
    rows = sum(lake.table("instance").get_add_actions(flatten=True)["num_records"].to_pylist())
    log.info("tables built anew", extra={"run_id": task.run_id, "instances": rows})
    return Outcome(Merged(rows, 0, 0, version), series, study, fold.rejected, merge_seconds, time.monotonic() - began)


def rolled_up(lake: Lake, table: Table, instance_version: int) -> Source:
    """All rows of ``series`` or ``study``, from one version of ``instance``."""
    rows = rollup.series_rows if table is SERIES else rollup.study_rows

    def source(session: SparkSession) -> DataFrame:
        return rows(rollup.summaries(read_table(session, lake.path("instance"), instance_version)))

    return source


def put_in_place(
    spark: SparkSession,
    run_id: int,
    settings: Settings,
    lake: Lake,
    table: Table,
    source: Source,
    more_properties: dict[str, str] | None = None,
) -> int:
    """The version of the table that holds the rows of ``source`` only; its layout and other properties stay.

    Raises Superseded when a newer run has written.
    """
    old = lake.opened(table.name)
    columns = _partition_columns(old, settings)
    version = replace_table(
        spark,
        table,
        lake.path(table.name),
        source,
        Fence(lake.app_id(table.name), run_id),
        partition_columns=columns,
        properties={
            **(properties(old) if old is not None else {}),
            **table_properties(
                table,
                partitioned=bool(columns),
                retention_hours=settings.maintenance.retention_hours,
                deletion_vectors=settings.lake.deletion_vectors,
                identity={**lake.identity.properties, **(more_properties or {})},
            ),
        },
    )
    if version is None:
        raise Superseded(f"{table.name}: a newer run has written; this one stops and covers nothing")
    return version


def _partition_columns(old: DeltaTable | None, settings: Settings) -> list[str]:
    if old is not None:
        return list(old.metadata().partition_columns)
    return [PARTITION_COLUMN] if settings.lake.layout == "partitioned" else []
