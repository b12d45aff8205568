"""The lake beside the service: which keys differ, how, and what the digests of both sides are made of.

design/architecture.md: Comparison and repair.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from dicom_etl.core.attributes import ATTRIBUTES, INSTANCE_KEY, STUDY_KEY
from dicom_etl.tables.fold import FLAG, flagged
from dicom_etl.tables.rollup import series_rows, study_rows
from dicom_etl.tables.schema import Table

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


def covered_by(windows: Iterable[tuple[int, int]]) -> Column:
    """Whether timestampTicks lies in one of the half-open ranges of ticks."""
    inside = F.lit(False)
    for start, end in windows:
        inside = inside | ((F.col("timestampTicks") >= start) & (F.col("timestampTicks") < end))
    return inside


def pending_keys(last: DataFrame, covered: Iterable[tuple[int, int]], since: int = 0) -> DataFrame:
    """The keys that a later run will read: nothing about them is a difference yet.

    Their last entry lies outside the recorded coverage. ``covered`` are half-open ranges of ticks; no run reads
    anything before ``since``.
    """
    return last.where(~covered_by(covered) & (F.col("timestampTicks") >= since)).select(*INSTANCE_KEY)


def overtaken(last: DataFrame) -> DataFrame:
    """The last entries whose state says that a later entry of their key exists, although none is listed.

    An entry that is Replaced, or a Create or Update that is Deleted.
    """
    deleted = (F.col("state") == "Deleted") & F.col("action").isin("Create", "Update")
    return last.where((F.col("state") == "Replaced") | deleted)


def outside_of_scope(entries: DataFrame, covered: Iterable[tuple[int, int]], since: int, lake: DataFrame) -> DataFrame:
    """The keys that no run has read or will read, and that the lake does not hold.

    All their entries lie before ``since`` (`feed.start`) and outside the coverage, as between a range that somebody
    asked for and `feed.start`.
    """
    in_scope = covered_by(covered) | (F.col("timestampTicks") >= since)
    return without(entries.where(~in_scope), lake, entries.where(in_scope)).select(*INSTANCE_KEY).distinct()


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
        .when(F.col("rows") > 1, "duplicate")
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
    return F.when(same_entry, F.array_compact(F.array(*names))).otherwise(_no_columns()) if names else _no_columns()


def _no_columns() -> Column:
    return F.array().cast("array<string>")


def judged(different: DataFrame, *, last: DataFrame, in_search: DataFrame, complete: bool) -> DataFrame:
    """The differences, with what may be concluded of the lake's extra rows; columns as ``instance_differences``.

    An extra row becomes ``missingInFeed`` when the search holds its instance: then the feed does not show what the
    service has. It becomes ``unknown`` when the feed has no entry for it and was not read from its first entry.
    """
    known = _marked(_marked(different, in_search, "isHeld"), last, "hasEntry")
    extra = F.col("difference") == "extra"
    unknown = F.lit(not complete) & ~F.col("hasEntry")
    kind = (
        F.when(extra & F.col("isHeld"), "missingInFeed").when(extra & unknown, "unknown").otherwise(F.col("difference"))
    )
    return known.select(*INSTANCE_KEY, kind.alias("difference"), "columns", "pending")


def and_keys(different: DataFrame, keys: DataFrame, kind: str, *, replacing: bool = False) -> DataFrame:
    """The differences and one of this kind for each of the keys, which then differs once.

    A key that differs otherwise keeps its kind, unless ``replacing``.
    """
    rows = keys.select(*INSTANCE_KEY).distinct()
    kept = without(different, rows) if replacing else different
    added = rows if replacing else without(rows, different)
    columns = added.select(
        "*", F.lit(kind).alias("difference"), _no_columns().alias("columns"), F.lit(False).alias("pending")
    )
    return kept.unionByName(columns)


def _marked(rows: DataFrame, keys: DataFrame, column: str) -> DataFrame:
    """The rows with a column that says whether their key is among ``keys``."""
    marks = keys.select(*INSTANCE_KEY).distinct().withColumn(column, F.lit(True))
    return rows.join(marks, on=list(INSTANCE_KEY), how="left").withColumn(column, F.coalesce(column, F.lit(False)))


def counts_by_kind(different: DataFrame) -> dict[str, int]:
    """How many rows differ, by kind and in its order."""
    return {row[0]: row[1] for row in different.groupBy("difference").count().orderBy("difference").collect()}


def differing_studies(listed: DataFrame, counts: DataFrame) -> DataFrame:
    """The studies of which the feed lists another number of instances than the search counts.

    One row per study: partitionName, studyInstanceUid. ``counts`` has these and ``instances``; a study that came
    twice while others wrote differs when its counts do.
    """
    feed = listed.groupBy(*STUDY_KEY).agg(F.count("*").alias("listed"))
    search = counts.groupBy(*STUDY_KEY).agg(F.min("instances").alias("least"), F.max("instances").alias("most"))
    both = feed.join(search, on=list(STUDY_KEY), how="full")
    same = F.col("listed").eqNullSafe(F.col("least")) & F.col("listed").eqNullSafe(F.col("most"))
    return both.where(~same).select(*STUDY_KEY)


def studies_of(*rows: DataFrame) -> DataFrame:
    """The distinct studies of all the rows: partitionName, studyInstanceUid."""
    first, *others = (one.select(*STUDY_KEY) for one in rows)
    for other in others:
        first = first.unionByName(other)
    return first.distinct()


def updated_before_created(entries: DataFrame) -> DataFrame:
    """The keys whose first entry is an Update: in a feed that is known from its beginning, a sign of changed UIDs."""
    known = entries
    for name in INSTANCE_KEY:
        known = known.where(F.col(name).isNotNull())
    first = known.groupBy(*INSTANCE_KEY).agg(F.min_by("action", "sequence").alias("first"))
    return first.where(F.col("first") == "Update").select(*INSTANCE_KEY)


def without(instances: DataFrame, *others: DataFrame) -> DataFrame:
    """The instances whose key is in none of the others."""
    for keys in others:
        instances = instances.join(keys.select(*INSTANCE_KEY), on=list(INSTANCE_KEY), how="left_anti")
    return instances


def among(instances: DataFrame, keys: DataFrame, key: Collection[str] = INSTANCE_KEY) -> DataFrame:
    """The instances whose key (or study) is among ``keys``."""
    return instances.join(keys.select(*key), on=list(key), how="left_semi")


def rollup_differences(table: Table, rolled_up: DataFrame, summaries: DataFrame) -> DataFrame:
    """One row per series or study that is not what its instances give: its key and ``difference``.

    ``summaries`` are those of all instances (``rollup.summaries``).
    """
    rows = series_rows if table.name == "series" else study_rows
    left = rows(summaries).select(*table.key, F.struct(*table.values).alias("expected"))
    stored = F.max(F.struct(*table.values)).alias("stored")
    right = rolled_up.groupBy(*table.key).agg(stored, F.count("*").alias("rows"))
    difference: Column = (
        F.when(F.col("stored").isNull(), "missing")
        .when(F.col("expected").isNull(), "extra")
        .when(F.col("rows") > 1, "duplicate")
        .when(~F.col("stored").eqNullSafe(F.col("expected")), "values")
    )
    return (
        left.join(right, on=list(table.key), how="full")
        .withColumn("difference", difference)
        .where(F.col("difference").isNotNull())
        .select(*table.key, "difference")
    )


def sorted_lines(instances: DataFrame) -> DataFrame:
    """One ``line`` per instance, sorted by its UTF-8 bytes: ``partition TAB study TAB series TAB sop TAB sequence TAB
    filePath``, a null written as nothing.
    """
    line = F.concat_ws("\t", *(F.coalesce(F.col(name).cast("string"), F.lit("")) for name in _COMPARED))
    return instances.select(line.alias("line")).orderBy("line")
