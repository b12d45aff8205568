"""Swaps a whole shared table for another by one fenced commit (design/architecture.md: Fencing)."""

from __future__ import annotations

from dataclasses import replace

from pyspark.sql import DataFrame, SparkSession

from dicom_etl.core.errors import Superseded
from dicom_etl.lake.delta.table import properties
from dicom_etl.lake.snapshot import Lake
from dicom_etl.run.write_session import WriteSession
from dicom_etl.tables import rollup
from dicom_etl.tables.merge import Fence, Source, read_table
from dicom_etl.tables.replace import replace_table
from dicom_etl.tables.schema import SERIES, Table, table_design


def rolled_up(lake: Lake, table: Table, instance_version: int) -> Source:
    """All rows of ``series`` or ``study``, from one version of ``instance``."""
    rows = rollup.series_rows if table is SERIES else rollup.study_rows

    def source(session: SparkSession) -> DataFrame:
        return rows(rollup.summaries(read_table(session, lake.path("instance"), instance_version)))

    return source


def replace_with(
    spark: SparkSession,
    session: WriteSession,
    table: Table,
    source: Source,
    more_properties: dict[str, str] | None = None,
) -> int:
    """The version of the table that holds the rows of ``source`` only; its layout and other properties stay.

    Raises Superseded when a newer run has written.
    """
    lake, old = session.lake, session.snapshot.refresh(table.name).get(table.name)
    design = table_design(session.settings, {**lake.identity.properties, **(more_properties or {})})
    if old is not None:
        design = replace(design, partition_columns=tuple(old.metadata().partition_columns), kept=properties(old))
    version = replace_table(
        spark,
        table,
        lake.path(table.name),
        source,
        Fence(lake.app_id(table.name), session.run_id),
        design,
    )
    if version is None:
        raise Superseded(f"{table.name}: a newer run has written; this one stops and covers nothing")
    return version
