"""Rows of this process as a frame, without a Python process beside the JVM."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

_TYPES: dict[str, pa.DataType] = {"string": pa.string(), "long": pa.int64()}


def local_rows(spark: SparkSession, rows: Iterable[tuple[Any, ...]], **columns: str) -> DataFrame:
    """The rows as a frame with these columns, name to type: ``string`` or ``long``.

    By Arrow, which the JVM reads itself. Plain tuples are pickled, and Spark starts three Python processes to unpickle
    them: a second of each cold window, and 118 MiB.
    """
    listed = list(rows)
    if int(spark.version.partition(".")[0]) < 4:  # Spark 3 takes no Arrow tables
        return spark.createDataFrame(listed, ", ".join(f"{name} {kind}" for name, kind in columns.items()))
    values = zip(*listed, strict=True) if listed else ([] for _ in columns)
    arrays = [pa.array(list(one), _TYPES[kind]) for one, kind in zip(values, columns.values(), strict=True)]
    return spark.createDataFrame(pa.Table.from_arrays(arrays, names=list(columns)))


def typed_rows(spark: SparkSession, rows: pa.Table, columns: StructType) -> DataFrame:
    """The rows of an Arrow table, which has these columns, in any order, as a frame; by Arrow where Spark takes it."""
    ordered = rows.select(columns.names)
    if int(spark.version.partition(".")[0]) < 4:
        return spark.createDataFrame([tuple(row.values()) for row in ordered.to_pylist()], columns)
    return spark.createDataFrame(ordered)
