"""Takes over the tables that the Data Factory template wrote (design/architecture.md: Adoption)."""

from __future__ import annotations

import logging
from dataclasses import replace

from deltalake import DeltaTable
from pyspark.sql import SparkSession

from dicom_etl.core.errors import DataError
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake.claims.claim import Claim
from dicom_etl.lake.delta.table import properties
from dicom_etl.lake.lake_id import LAKE_ID
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.open import ADOPTED, find_lake, make_lake, make_private_tables
from dicom_etl.lake.paths import LakePaths
from dicom_etl.lake.snapshot import Lake, LakeSnapshot, opened
from dicom_etl.run.dead_runs import record_dead_runs
from dicom_etl.run.record import record_verb
from dicom_etl.run.replace import replace_with, rolled_up
from dicom_etl.run.write_session import Resources, WriteSession, failure_recorded
from dicom_etl.tables import adoption
from dicom_etl.tables.merge import Fence
from dicom_etl.tables.schema import INSTANCE, SERIES, STUDY, TABLES, Table, table_design

log = logging.getLogger(__name__)

MANY_ROWS = 10_000_000


def foreign_tables(paths: LakePaths) -> list[Table]:
    """The shared tables that lie there and are nobody's yet; none where there is nothing to adopt."""
    tables = {table: opened(paths, table.name) for table in TABLES}
    return [table for table, delta in tables.items() if delta is not None and LAKE_ID not in properties(delta)]


def adopt(resources: Resources, paths: LakePaths, service: str, own_claim: Claim) -> Run:
    """The row of the ledger for the adoption, under the claim ``own_claim``; it covers nothing.

    The three tables are ours from then on.

    Everything is looked at before anything is written. What a crash leaves is taken up by the next adoption:
    a table is ours by its properties, which come last, and ``run``, which decides whose, comes first.
    Raises DataError (65) when the tables are not what the template writes, or hold a key twice.
    """
    started, progress = resources.clock(), resources.progress
    progress.step("look at the template's tables")
    for table in foreign_tables(paths):
        _check_columns(table, _opened(paths, table))
    spark = resources.engine.session(MANY_ROWS)
    if INSTANCE in foreign_tables(paths):
        _check_rows(*adoption.unfit_rows(spark, paths.instance))
    elif opened(paths, "instance") is None:
        raise DataError("the table instance is missing beside the template's others: set lake.instance_path to it")

    snapshot = find_lake(paths, service, adopting=True) or _made_around(paths, service)
    record_dead_runs(snapshot, own_claim.earlier)
    session = WriteSession("adopt", own_claim.run_id, snapshot, resources)
    with failure_recorded(session):
        make_private_tables(snapshot)
        progress.step("adopt")
        _take_over(session, spark)
        row = record_verb(session, started)
        log.info("tables adopted", extra={"run_id": own_claim.run_id})
        return row


def _made_around(paths: LakePaths, service: str) -> LakeSnapshot:
    """A new lake that knows the tables of others: a snapshot refuses one that turns up later and is not its own."""
    make_lake(paths, service)
    snapshot = find_lake(paths, service, adopting=True)
    if snapshot is None:
        raise DataError("the table run has vanished just now; run again")
    return snapshot


def _take_over(session: WriteSession, spark: SparkSession) -> None:
    lake, snapshot = session.lake, session.snapshot
    paths = lake.paths
    if INSTANCE in foreign_tables(paths):
        instance = _opened(paths, INSTANCE)
        adoption.take_over_instance(
            spark,
            paths.instance,
            _columns(instance),
            Fence(lake.app_id("instance"), session.run_id),
            _properties(session.settings, lake, instance),
        )
    for table in (SERIES, STUDY):
        # From scratch, from what instance holds: so ghosts, null partitions and doubles are gone by one commit.
        source = rolled_up(lake, table, snapshot.refresh("instance").version("instance"))
        replace_with(spark, session, table, source, {ADOPTED: "true"})


def _opened(paths: LakePaths, table: Table) -> DeltaTable:
    delta = opened(paths, table.name)
    if delta is None:
        raise DataError(f"the table {table.name} has vanished just now; run again")
    return delta


def _columns(table: DeltaTable) -> dict[str, str]:
    return {field.name: getattr(field.type, "type", "nested") for field in table.schema().fields}


def _check_columns(table: Table, delta: DeltaTable) -> None:
    invalid = adoption.incompatible_columns(table, _columns(delta))
    if invalid:
        raise DataError(
            f"the table {table.name} is not what the Data Factory template writes, see its columns "
            f"{', '.join(sorted(invalid))}: set lake.root to another folder"
        )


def _check_rows(repeated: int, without_uids: int) -> None:
    if repeated:
        raise DataError(f"instance holds {repeated} keys more than once: delete the surplus rows, then adopt again")
    if without_uids:
        raise DataError(f"instance holds {without_uids} rows without UIDs: delete them, then adopt again")


def _properties(settings: Settings, lake: Lake, table: DeltaTable) -> dict[str, str]:
    design = table_design(settings, {**lake.identity.properties, ADOPTED: "true"})
    return replace(design, partition_columns=tuple(table.metadata().partition_columns)).properties(INSTANCE)
