"""Puts a whole table in the place of another, or where there is none, by one fenced commit.

design/architecture.md: Fencing.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import uuid4

from pyspark.sql import DataFrame, SparkSession

from dicom_etl.tables.engine.errors import named_errors
from dicom_etl.tables.engine.location import sql_name
from dicom_etl.tables.merge import Fence, Source, fenced_session, last_commit
from dicom_etl.tables.schema import Table, TableDesign


def replace_table(
    spark: SparkSession, table: Table, path: str, source: Source, fence: Fence, design: TableDesign
) -> int | None:
    """The version that holds the rows of ``source`` and no others; None when a newer run had written before.

    Rows, columns, layout and properties change by this one commit: a reader meanwhile gets the old table,
    or, where none was, no table. ``source`` gives all columns of ``table``, and may read the old version.
    """
    session = fenced_session(spark, fence)
    # A view of all sessions: the rows may have been computed in another one.
    view = f"rows_{uuid4().hex}"
    columns = ", ".join(design.partition_columns)
    layout = f"PARTITIONED BY ({columns})" if columns else f"CLUSTER BY ({table.cluster})"
    with named_errors(table.name):
        _as_declared(table, source(session)).createGlobalTempView(view)
        declared = f"USING delta {layout} TBLPROPERTIES ({property_list(design.properties(table))})"
        try:
            session.sql(f"CREATE OR REPLACE TABLE {sql_name(path)} {declared} AS TABLE global_temp.{view}")
        finally:
            session.catalog.dropGlobalTempView(view)
    # Skipped in silence like a MERGE when the table's marker is not below ours: then nothing was committed (tried).
    return last_commit(session)


def property_list(properties: Mapping[str, str]) -> str:
    """The properties as SQL has them."""
    return ", ".join(f"'{_escaped(name)}' = '{_escaped(value)}'" for name, value in sorted(properties.items()))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")


def _as_declared(table: Table, rows: DataFrame) -> DataFrame:
    return rows.select(
        *(
            rows[field.name].cast(field.dataType).alias(field.name, metadata=field.metadata)
            for field in table.columns.fields
        )
    )
