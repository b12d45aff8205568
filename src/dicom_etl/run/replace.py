"""Swaps a whole shared table for another by one fenced commit (design/architecture.md: Fencing)."""

from __future__ import annotations

from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from dicom_etl.core.errors import Superseded
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake.delta.table import properties
from dicom_etl.lake.snapshot import Lake
from dicom_etl.run.write_session import WriteSession
from dicom_etl.tables import rollup
from dicom_etl.tables.merge import Fence, Source, read_table
from dicom_etl.tables.replace import replace_table
from dicom_etl.tables.schema import PARTITION_COLUMN, SERIES, Table, table_properties


def rolled_up(lake: Lake, table: Table, instance_version: int) -> Source:
    """All rows of ``series`` or ``study``, from one version of ``instance``."""
    rows = rollup.series_rows if table is SERIES else rollup.study_rows

    def source(session: SparkSession) -> DataFrame:
        return rows(rollup.summaries(read_table(session, lake.path("instance"), instance_version)))

    return source


def put_in_place(
    spark: SparkSession,
    session: WriteSession,
    table: Table,
    source: Source,
    more_properties: dict[str, str] | None = None,
) -> int:
    """The version of the table that holds the rows of ``source`` only; its layout and other properties stay.

    Raises Superseded when a newer run has written.
    """
    lake, settings, old = session.lake, session.settings, session.snapshot.refresh(table.name).get(table.name)
    columns = _partition_columns(old, settings)
    version = replace_table(
        spark,
        table,
        lake.path(table.name),
        source,
        Fence(lake.app_id(table.name), session.run_id),
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
