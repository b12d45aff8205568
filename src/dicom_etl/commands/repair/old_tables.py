"""The rows of the shared tables as they were before a rebuild, as far as they can be read."""

from __future__ import annotations

import logging

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dicom_etl.commands.verify.scratch import Scratch
from dicom_etl.core.errors import DataError
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.tables.engine.errors import named_errors
from dicom_etl.tables.engine.frames import local_rows
from dicom_etl.tables.engine.location import location, read_parquet
from dicom_etl.tables.merge import read_table
from dicom_etl.tables.schema import TABLES, Table

log = logging.getLogger(__name__)


def old_tables(spark: SparkSession, snapshot: LakeSnapshot, folder: Scratch) -> dict[str, DataFrame]:
    """The rows of ``instance``, ``series`` and ``study``, by name; none of a table that is gone or damaged.

    They are copied: a rebuild is made of them while it takes their place. A table that is damaged is what a rebuild
    is for. Raises StorageError when the storage fails: then nothing is known of the rows.
    """
    return {table.name: _copied(spark, snapshot, table, folder) for table in TABLES}


def _copied(spark: SparkSession, snapshot: LakeSnapshot, table: Table, folder: Scratch) -> DataFrame:
    path = folder.path(f"old-{table.name}")
    try:
        if not snapshot.has(table.name):
            return _no_rows(spark, table)
        with named_errors(table.name):
            _as_declared(read_table(spark, snapshot.lake.path(table.name)), table).write.parquet(location(path))
    except DataError as error:
        log.warning("old table not readable", extra={"table": table.name, "error": type(error).__name__})
        return _no_rows(spark, table)
    return read_parquet(spark, table.columns, [path])


def _no_rows(spark: SparkSession, table: Table) -> DataFrame:
    nothing = local_rows(spark, [], none="string")
    return nothing.select(*(F.lit(None).cast(field.dataType).alias(field.name) for field in table.columns.fields))


def _as_declared(rows: DataFrame, table: Table) -> DataFrame:
    """The rows with a whole key; a column that the table lacks, or has with another type, is null."""
    types = {field.name: field.dataType for field in rows.schema.fields}
    columns = (
        F.col(field.name)
        if types.get(field.name) == field.dataType
        else F.lit(None).cast(field.dataType).alias(field.name)
        for field in table.columns.fields
    )
    return rows.select(*columns).dropna(subset=list(table.key))
