"""The lake beside the service: which keys differ, and the digests of both sides (architecture §6)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from dicom_etl.attributes import INSTANCE_KEY, SERIES_KEY
from dicom_etl.lake.rollup import series_rows, study_rows
from dicom_etl.lake.schema import Table

# What is compared of an instance, in the order of a digest's line.
_COMPARED = (*INSTANCE_KEY, "sequence", "filePath")


def live_instances(last: DataFrame) -> DataFrame:
    """The instances that live, of one row per key: those whose last entry is Current.

    Columns: the key, sequence, filePath.
    """
    return last.where(F.col("state") == "Current").select(*_COMPARED)


def _covered(windows: Iterable[tuple[int, int]]) -> Column:
    """Whether timestampTicks lies in one of the half-open ranges of ticks."""
    inside = F.lit(False)
    for start, end in windows:
        inside = inside | ((F.col("timestampTicks") >= start) & (F.col("timestampTicks") < end))
    return inside


def pending_keys(last: DataFrame, covered: Iterable[tuple[int, int]]) -> DataFrame:
    """The keys whose last entry lies outside the recorded coverage: a later run will bring them.

    ``covered`` are half-open ranges of ticks; ``last`` has the column timestampTicks.
    """
    return last.where(~_covered(covered)).select(*INSTANCE_KEY)


def instance_differences(service: DataFrame, lake: DataFrame, pending: DataFrame) -> DataFrame:
    """One row per instance that differs: its key, ``difference`` (missing, extra, sequence, filePath), ``pending``.

    missing: the service has it, the lake does not; extra: the other way round.
    """
    theirs = service.select(*INSTANCE_KEY, F.struct("sequence", "filePath").alias("theirs"))
    ours = lake.select(*INSTANCE_KEY, F.struct("sequence", "filePath").alias("ours"))
    difference = (
        F.when(F.col("ours").isNull(), "missing")
        .when(F.col("theirs").isNull(), "extra")
        .when(~F.col("theirs.sequence").eqNullSafe(F.col("ours.sequence")), "sequence")
        .when(~F.col("theirs.filePath").eqNullSafe(F.col("ours.filePath")), "filePath")
    )
    return (
        theirs.join(ours, on=list(INSTANCE_KEY), how="full")
        .withColumn("difference", difference)
        .where(F.col("difference").isNotNull())
        .join(pending.withColumn("pending", F.lit(True)), on=list(INSTANCE_KEY), how="left")
        .select(*INSTANCE_KEY, "difference", F.coalesce("pending", F.lit(False)).alias("pending"))
    )


def without(instances: DataFrame, keys: DataFrame) -> DataFrame:
    """The instances whose key is not among ``keys``."""
    return instances.join(keys.select(*INSTANCE_KEY), on=list(INSTANCE_KEY), how="left_anti")


def rollup_differences(table: Table, rolled_up: DataFrame, instances: DataFrame) -> DataFrame:
    """One row per series or study that is not what ``instances`` gives: its key and ``difference``."""
    rows = series_rows if table.name == "series" else study_rows
    expected = rows(instances.select(*SERIES_KEY).distinct(), instances)
    left = expected.select(*table.key, F.struct(*table.values).alias("expected"))
    right = rolled_up.select(*table.key, F.struct(*table.values).alias("stored"))
    difference: Column = (
        F.when(F.col("stored").isNull(), "missing")
        .when(F.col("expected").isNull(), "extra")
        .when(~F.col("stored").eqNullSafe(F.col("expected")), "values")
    )
    return (
        left.join(right, on=list(table.key), how="full")
        .withColumn("difference", difference)
        .where(F.col("difference").isNotNull())
        .select(*table.key, "difference")
    )


def digest(instances: DataFrame) -> str:
    """SHA-256 over the sorted lines ``partition TAB study TAB series TAB sop TAB sequence TAB filePath LF``.

    Lines are sorted by their UTF-8 bytes; a null is written as nothing. The rows pass through one by one.
    """
    line = F.concat_ws("\t", *(F.coalesce(F.col(name).cast("string"), F.lit("")) for name in _COMPARED))
    hashed = hashlib.sha256()
    for row in instances.select(line.alias("line")).orderBy("line").toLocalIterator():
        hashed.update(row["line"].encode() + b"\n")
    return hashed.hexdigest()
