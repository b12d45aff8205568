"""The headers of `change` as typed columns: each is parsed once, by a function that is handed in."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import LongType, StringType, StructField, StructType

from dicom_etl.core.attributes import INSTANCE_KEY
from dicom_etl.tables.tag_schema import TagColumn

ParseBatches = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]
"""From batches of ``runId``, ``sequence`` and ``metadata`` to batches of the columns of ``parsed``; sent to workers."""

# Headers of multi-frame images have megabytes: so few are in the memory of the JVM and of a Python worker at once.
HEADERS_AT_ONCE = "256"


def landed_entries(changes: DataFrame, above_run: int, up_to_run: int) -> DataFrame:
    """The entries that runs in (above_run, up_to_run] have landed."""
    return changes.where((F.col("runId") > above_run) & (F.col("runId") <= up_to_run))


def current_entries(entries: DataFrame) -> DataFrame:
    """Those that were current when they were read and have a header."""
    return entries.where((F.col("state") == "Current") & F.col("metadata").isNotNull())


def read_in_small_batches(session: SparkSession) -> None:
    """Let the session hold few headers at once."""
    session.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", HEADERS_AT_ONCE)
    session.conf.set("spark.sql.parquet.columnarReaderBatchSize", HEADERS_AT_ONCE)


def shuffle_joins(session: SparkSession) -> None:
    """Let the session send no side of a join to every task because its files are small.

    Headers compress a hundredfold: 10^6 of them, parsed, were taken for less than 10 MB and filled a heap of 2 GB.
    """
    session.conf.set("spark.sql.autoBroadcastJoinThreshold", "-1")


def parsed(entries: DataFrame, columns: tuple[TagColumn, ...], parse: ParseBatches) -> DataFrame:
    """The header of each entry: ``runId``, ``sequence``, ``headerState``, ``headerQuality`` and the chosen tags."""
    read_in_small_batches(entries.sparkSession)
    fixed = {"runId": LongType(), "sequence": LongType(), "headerState": StringType(), "headerQuality": StringType()}
    fields = [StructField(name, kind) for name, kind in fixed.items()]
    fields += [StructField(column.name, column.type) for column in columns]
    return entries.select("runId", "sequence", "metadata").mapInArrow(parse, StructType(fields))


def latest_headers(entries: DataFrame, columns: tuple[TagColumn, ...], parse: ParseBatches) -> DataFrame:
    """One header an entry, as the last run that read it found it; the key, and columns as ``parsed`` without ``runId``.

    A range that is read again lands its entries again. The narrow columns decide which of them counts, so that no
    header is shuffled. A service that was restored counts its sequences again, so that the key belongs to them.
    """
    newest = entries.groupBy(*INSTANCE_KEY, "sequence").agg(F.max("runId").alias("runId"))
    return parsed(entries, columns, parse).join(newest, on=["runId", "sequence"]).drop("runId")
