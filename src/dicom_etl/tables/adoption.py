"""A table that the Data Factory template wrote: whether it can be taken over, and how.

design/architecture.md: Adoption.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dicom_etl.core.attributes import DEFAULT_PARTITION, INSTANCE_KEY
from dicom_etl.tables.engine.errors import named_errors
from dicom_etl.tables.engine.location import sql_name
from dicom_etl.tables.merge import Fence, fenced_session, read_table
from dicom_etl.tables.replace import property_list
from dicom_etl.tables.schema import INSTANCE, PARTITION_COLUMN, Table


def incompatible_columns(table: Table, columns: Mapping[str, str]) -> list[str]:
    """The columns that keep a table from being taken over: strange ones, other types, missing parts of the key.

    ``columns`` are names with Delta's simple types. What else is missing can be added.
    """
    wanted = {field.name: field.dataType.simpleString() for field in table.columns.fields}
    types = {"bigint": "long"}
    strange = [name for name, kind in columns.items() if types.get(wanted.get(name, ""), wanted.get(name)) != kind]
    return strange + [name for name in table.key if name not in columns]


def unfit_rows(spark: SparkSession, path: str) -> tuple[int, int]:
    """How many keys of ``instance`` stand in several rows, and how many rows lack a UID.

    A null partition counts as Microsoft.Default, which it will be.
    """
    with named_errors(INSTANCE.name):
        keys = _keys(read_table(spark, path))
        repeated = keys.groupBy(*INSTANCE_KEY).count().where("count > 1").count()
        whole = " AND ".join(f"{name} IS NOT NULL" for name in INSTANCE_KEY)
        return repeated, keys.where(f"NOT ({whole})").count()


def _keys(instances: DataFrame) -> DataFrame:
    partition = F.coalesce(PARTITION_COLUMN, F.lit(DEFAULT_PARTITION)).alias(PARTITION_COLUMN)
    return instances.select(partition, *INSTANCE_KEY[1:])


def take_over_instance(
    spark: SparkSession, path: str, columns: Mapping[str, str], fence: Fence, properties: Mapping[str, str]
) -> None:
    """Name the null partitions, add our columns, and last the properties that say whose table it is.

    Each of the three can be repeated after a crash. Old files keep their place, their layout and, in the old log,
    the statistics that the template had made of them.
    """
    table = sql_name(path)
    missing = [field for field in INSTANCE.columns.fields if field.name not in columns]
    session = fenced_session(spark, fence)
    with named_errors(INSTANCE.name):
        if read_table(spark, path).where(F.col(PARTITION_COLUMN).isNull()).limit(1).count():
            named = f"SET {PARTITION_COLUMN} = '{DEFAULT_PARTITION}' WHERE {PARTITION_COLUMN} IS NULL"
            session.sql(f"UPDATE {table} {named}")
        if missing:
            added = ", ".join(f"{field.name} {field.dataType.simpleString()}" for field in missing)
            spark.sql(f"ALTER TABLE {table} ADD COLUMNS ({added})")
        spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ({property_list(properties)})")
