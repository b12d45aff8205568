"""What differs between two states of a table: of its rows, or of `instance` by the entries of the feed alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from dicom_etl.core.attributes import INSTANCE_KEY
from dicom_etl.tables.engine.frames import local_rows
from dicom_etl.tables.schema import INSTANCE, Table
from dicom_etl.tables.voids import Key, void_rows

# The columns of an answer; those of the key that a table has not are null, and so is the sequence but in `instance`.
COLUMNS = ("table", "action", *INSTANCE_KEY, "sequence")


def differences(table: Table, before: DataFrame, after: DataFrame) -> DataFrame:
    """COLUMNS, one row for each key that was inserted, updated or deleted from ``before`` to ``after``, by key.

    A row of `instance` was updated when its sequence is another one; a row of `series` or `study` when the value of any
    column is. ``sequence`` is that of ``after``, for a deleted row that of ``before``.
    """
    compared = ("sequence",) if table is INSTANCE else table.values
    left, right = (
        rows.select(*table.key, F.struct(*compared).alias(name)) for rows, name in ((before, "_old"), (after, "_new"))
    )
    action = (
        F.when(F.col("_old").isNull(), "inserted")
        .when(F.col("_new").isNull(), "deleted")
        .when(~F.col("_old").eqNullSafe(F.col("_new")), "updated")
    )
    sequence = F.coalesce("_new.sequence", "_old.sequence") if table is INSTANCE else F.lit(None).cast("long")
    missing = {name: F.lit(None).cast("string") for name in INSTANCE_KEY if name not in table.key}
    joined = left.join(right, on=list(table.key), how="full").withColumns(
        {"table": F.lit(table.name), "action": action, "sequence": sequence, **missing}
    )
    return joined.where(F.col("action").isNotNull()).select(*COLUMNS).orderBy(*table.key)


@dataclass(frozen=True, slots=True)
class Span:
    """From what the run ``since`` left to what ``until`` left.

    ``floor`` is the last run of which `change` may not tell all: only entries of later ones count. ``new_from``: an
    entry of this time or a later one cannot have been read by ``floor`` or before; None where that is not sure.
    ``unfinished`` are the runs whose entries may have been merged or not.
    """

    since: int
    until: int
    floor: int
    new_from: datetime | None
    unfinished: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Unused:
    """Entries without an effect of their own, as the run ``until`` knew them.

    ``voids``: by key the sequence up to which its entries count as Deleted. ``refused``: sequence, microseconds since
    1970, the first run that could not use the entry, and the run that could again (None: no run).
    """

    voids: Mapping[Key, int]
    refused: Sequence[tuple[int, int, int, int | None]]


def changed_by_entries(changes: DataFrame, unused: Unused, span: Span) -> DataFrame:
    """INSTANCE_KEY, ``wasPresent``, ``wasSequence``, ``isPresent``, ``isSequence``: what became of each instance.

    Of those of which an entry was used in the span. Null in ``wasPresent`` or ``isPresent``: it cannot be told.
    """
    entries = changes.where((F.col("runId") > span.floor) & (F.col("runId") <= span.until))
    done = entries.where(~F.col("runId").isin(*span.unfinished)) if span.unfinished else entries
    used = _effects(done, unused)
    touched = used.where(F.col("runId") > span.since).select(*INSTANCE_KEY).distinct()
    # Of all effects: one of a lower sequence, from an old range that was read again, has changed no newer row.
    after = _states(used, "is").join(touched, on=list(INSTANCE_KEY), how="left_semi")
    before = _states(used.where(F.col("runId") <= span.since), "was")
    first = _first_entries(done.where(F.col("runId") > span.since))
    changed = after.join(before, on=list(INSTANCE_KEY), how="left").join(first, on=list(INSTANCE_KEY), how="left")
    return _with_doubts(changed.withColumn("wasPresent", _was_present(span)), entries, done, span).select(
        *INSTANCE_KEY, "wasPresent", "wasSequence", "isPresent", "isSequence"
    )


def _effects(entries: DataFrame, unused: Unused) -> DataFrame:
    """INSTANCE_KEY, ``runId``, ``sequence``, ``present``: what each run made of an instance, as the fold has it."""
    last = Window.partitionBy(*INSTANCE_KEY, "runId").orderBy(F.col("sequence").desc())
    ours = entries.where(F.col("state").isin("Current", "Replaced", "Deleted")).dropna(subset=list(INSTANCE_KEY))
    slim = ours.select(*INSTANCE_KEY, "runId", "sequence", "state", F.unix_micros("timestamp").alias("_micros"))
    placed = slim.withColumn("_place", F.row_number().over(last))
    decided = placed.where((F.col("_place") == 1) & (F.col("state") != "Replaced"))
    # Keys that a repair, of before ``floor``, has found to be gone: the feed goes on showing their old entries.
    voids = F.broadcast(void_rows(entries.sparkSession, unused.voids))
    known = decided.join(voids, on=list(INSTANCE_KEY), how="left").join(
        F.broadcast(_refused_rows(entries, unused)), on=["sequence", "_micros"], how="left"
    )
    present = (F.col("state") != "Deleted") & ~F.coalesce(F.col("sequence") <= F.col("voidUntil"), F.lit(False))
    refused = (F.col("runId") >= F.col("_from")) & F.coalesce(F.col("runId") < F.col("_usable"), F.lit(True))
    usable = ~F.coalesce(refused, F.lit(False)) | ~F.col("present")
    return known.withColumn("present", present).where(usable).select(*INSTANCE_KEY, "runId", "sequence", "present")


def _refused_rows(entries: DataFrame, unused: Unused) -> DataFrame:
    columns = dict.fromkeys(("sequence", "_micros", "_from", "_usable"), "long")
    return local_rows(entries.sparkSession, unused.refused, **columns)


def _states(effects: DataFrame, prefix: str) -> DataFrame:
    """The effect that prevails for each instance: of the highest sequence, and of equal ones that of the later run."""
    last = F.max_by(F.struct("present", "sequence"), F.struct("sequence", "runId"))
    return (
        effects.groupBy(*INSTANCE_KEY)
        .agg(last.alias("_last"))
        .select(
            *INSTANCE_KEY,
            F.col("_last.present").alias(f"{prefix}Present"),
            F.col("_last.sequence").alias(f"{prefix}Sequence"),
        )
    )


def _first_entries(entries: DataFrame) -> DataFrame:
    first = F.min_by(F.struct("timestamp", "action"), F.struct("sequence", "runId"))
    return entries.groupBy(*INSTANCE_KEY).agg(first.alias("_first"))


def _was_present(span: Span) -> Column:
    """Whether the instance had a row: by its entries, or, where they are purged, by the first one after them."""
    if span.floor == 0:
        return F.coalesce("wasPresent", F.lit(False))
    if span.new_from is None:
        return F.col("wasPresent")
    # A Create says that there was none before it, an Update or a Delete that there was one.
    by_first = F.when(F.col("_first.timestamp") >= F.lit(span.new_from), F.col("_first.action") != "Create")
    return F.coalesce("wasPresent", by_first)


def _with_doubts(changed: DataFrame, entries: DataFrame, done: DataFrame, span: Span) -> DataFrame:
    """The same, null where an unfinished run's entry was not read again by a later run of its side of ``since``."""
    if not span.unfinished:
        return changed
    key, side = list(INSTANCE_KEY), (F.col("runId") > span.since).alias("_after")
    again = done.groupBy("sequence", side).agg(F.max("runId").alias("_again"))
    unfinished = entries.where(F.col("runId").isin(*span.unfinished)).dropna(subset=key)
    unfinished = unfinished.select(*key, "runId", "sequence", side).join(again, ["sequence", "_after"], "left")
    doubtful = unfinished.where(F.coalesce(F.col("_again") < F.col("runId"), F.lit(True)))
    marked = doubtful.groupBy(*key).agg(F.max("_after").alias("_doubt"))
    joined = changed.withColumn("_touched", F.lit(True)).join(marked, on=key, how="full")
    # One before the span matters only where something came after it.
    concerned = joined.where(F.col("_touched").isNotNull() | F.col("_doubt"))
    sure = F.col("_doubt").isNull()
    return concerned.withColumns({name: F.when(sure, F.col(name)) for name in ("wasPresent", "isPresent")})
