"""The lake beside the service: which keys differ, and the digests of both sides (architecture §6)."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from dicom_etl.attributes import ATTRIBUTES, INSTANCE_KEY
from dicom_etl.lake.changes import FLAG, flagged
from dicom_etl.lake.rollup import series_rows, study_rows, summaries
from dicom_etl.lake.schema import Table

# What is compared of an instance, in the order of a digest's line.
_COMPARED = (*INSTANCE_KEY, "sequence", "filePath")
# What is compared besides when the feed was read with metadata.
ATTRIBUTE_COLUMNS = ("lastModifiedTimestamp", *(a.column for a in ATTRIBUTES))


def live_instances(last: DataFrame, unreadable: Collection[int] = ()) -> DataFrame:
    """The instances that live, of one row per key: those whose last entry is Current.

    Columns: the key, sequence, filePath, timestampTicks, the attributes, and ``readable``: whether these came.
    ``unreadable`` are the sequences whose metadata could not be used.
    """
    return flagged(last.where(F.col("state") == "Current"), unreadable).select(
        *_COMPARED,
        "timestampTicks",
        F.col("timestamp").alias("lastModifiedTimestamp"),
        *ATTRIBUTE_COLUMNS[1:],
        (~F.col(FLAG)).alias("readable"),
    )


def _covered(windows: Iterable[tuple[int, int]]) -> Column:
    """Whether timestampTicks lies in one of the half-open ranges of ticks."""
    inside = F.lit(False)
    for start, end in windows:
        inside = inside | ((F.col("timestampTicks") >= start) & (F.col("timestampTicks") < end))
    return inside


def pending_keys(last: DataFrame, covered: Iterable[tuple[int, int]], since: int = 0) -> DataFrame:
    """The keys that a later run will bring: nothing of them is a difference yet.

    Their last entry lies outside the recorded coverage, or it is no last entry: replaced or deleted by one that
    was not listed. ``covered`` are half-open ranges of ticks; before ``since`` no run will ever read.
    """
    overtaken = (F.col("state") == "Replaced") | ((F.col("state") == "Deleted") & (F.col("action") != "Delete"))
    uncovered = ~_covered(covered) & (F.col("timestampTicks") >= since)
    return last.where(uncovered | overtaken).select(*INSTANCE_KEY)


def instance_differences(
    service: DataFrame, lake: DataFrame, pending: DataFrame, *, attributes: bool = False
) -> DataFrame:
    """One row per instance that differs: its key, ``difference``, ``columns``, ``pending``.

    ``difference`` is missing (the service has it, the lake does not), extra (the other way round), twice (in
    several rows of the lake), sequence, filePath or attributes; ``columns`` are the attributes' columns that differ
    although the sequence is the same.
    """
    compared = ATTRIBUTE_COLUMNS if attributes else ()
    theirs = service.select(*INSTANCE_KEY, F.struct("sequence", "filePath", "readable", *compared).alias("theirs"))
    # Somebody else's rows may repeat a key: it differs once, whatever its rows say.
    row = F.struct("sequence", "filePath", *compared)
    ours = lake.groupBy(*INSTANCE_KEY).agg(F.max(row).alias("ours"), F.count("*").alias("rows"))
    difference = (
        F.when(F.col("ours").isNull(), "missing")
        .when(F.col("theirs").isNull(), "extra")
        .when(F.col("rows") > 1, "twice")
        .when(_differ("sequence"), "sequence")
        .when(_differ("filePath"), "filePath")
        .when(F.size("columns") > 0, "attributes")
    )
    return (
        theirs.join(ours, on=list(INSTANCE_KEY), how="full")
        .withColumn("columns", _differing(compared))
        .withColumn("difference", difference)
        .where(F.col("difference").isNotNull())
        .join(pending.withColumn("pending", F.lit(True)), on=list(INSTANCE_KEY), how="left")
        .select(*INSTANCE_KEY, "difference", "columns", F.coalesce("pending", F.lit(False)).alias("pending"))
    )


def _differ(column: str) -> Column:
    return ~F.col(f"theirs.{column}").eqNullSafe(F.col(f"ours.{column}"))


def _differing(columns: tuple[str, ...]) -> Column:
    """The names of the columns that differ, where both sides stand for the same entry and it could be read."""
    names = [F.when(_differ(name), F.lit(name)) for name in columns]
    same_entry = F.col("theirs.readable") & ~_differ("sequence") & F.col("ours").isNotNull()
    nothing = F.array().cast("array<string>")
    return F.when(same_entry, F.array_compact(F.array(*names))).otherwise(nothing) if names else nothing


def keys_without(instances: DataFrame, *others: DataFrame) -> DataFrame:
    """The distinct keys of ``instances`` that stand in none of the others."""
    keys = instances.select(*INSTANCE_KEY).distinct()
    for other in others:
        keys = without(keys, other)
    return keys


def updated_before_created(entries: DataFrame) -> DataFrame:
    """The keys whose first entry is an Update: whoever knows the feed from its beginning suspects a change of UIDs."""
    known = entries
    for name in INSTANCE_KEY:
        known = known.where(F.col(name).isNotNull())
    first = known.groupBy(*INSTANCE_KEY).agg(F.min_by("action", "sequence").alias("first"))
    return first.where(F.col("first") == "Update").select(*INSTANCE_KEY)


def without(instances: DataFrame, keys: DataFrame) -> DataFrame:
    """The instances whose key is not among ``keys``."""
    return instances.join(keys.select(*INSTANCE_KEY), on=list(INSTANCE_KEY), how="left_anti")


def rollup_differences(table: Table, rolled_up: DataFrame, instances: DataFrame) -> DataFrame:
    """One row per series or study that is not what ``instances`` gives: its key and ``difference``."""
    rows = series_rows if table.name == "series" else study_rows
    expected = rows(summaries(instances))
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
