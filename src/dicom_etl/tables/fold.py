"""The fold: what the entries that a run read mean for each instance (design/architecture.md: Fold)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from dicom_etl.core.attributes import ATTRIBUTES, INSTANCE_KEY
from dicom_etl.tables.engine.frames import local_rows
from dicom_etl.tables.schema import INSTANCE
from dicom_etl.tables.voids import as_deleted

UPSERT = "upsert"
REMOVE = "remove"
LEAVE = "leave"
REJECT = "reject"

_MOST_LITERALS = 1000
FLAG = "_flagged"
ENTRIES = "entries"
Key = tuple[str, ...]
Voids = Mapping[tuple[str, str, str, str], int]

_CARRIED = ("sequence", "timestamp", "timestampTicks", "action", "state", "filePath", *(a.column for a in ATTRIBUTES))


def entries_of_run(changes: DataFrame, run_id: int, invalid_before_fold: Collection[int] = ()) -> DataFrame:
    """The entries that this run landed, without their headers; one row per sequence.

    ``invalid_before_fold`` are the sequences that are rejects before the fold: their key or meaning is not certain.
    """
    landed = flagged(changes.where(F.col("runId") == run_id), invalid_before_fold)
    return landed.where(~F.col(FLAG)).select(*INSTANCE_KEY, *_CARRIED)


def flagged(entries: DataFrame, sequences: Collection[int]) -> DataFrame:
    """The entries with a column that tells whether their sequence is among ``sequences``.

    Few are literals in the plan; a night in which thousands are bad must not blow it up.
    """
    if len(sequences) <= _MOST_LITERALS:
        among = F.col("sequence").isin(sorted(sequences)) if sequences else F.lit(False)
        return entries.withColumn(FLAG, among)
    listed = local_rows(entries.sparkSession, ((sequence,) for sequence in sorted(sequences)), sequence="long")
    flags = F.broadcast(listed.withColumn(FLAG, F.lit(True)))
    return entries.join(flags, on="sequence", how="left").withColumn(FLAG, F.coalesce(FLAG, F.lit(False)))


def last_of_each_key(entries: DataFrame, *, reread: bool = False) -> DataFrame:
    """One row per instance: its entry with the highest sequence, and in ``entries`` how many there are of it.

    With ``reread`` an entry may stand there several times, and the one with the highest ``runId`` counts.

    By sequence alone, which per key is the order of the commits, also when the service's clock steps back
    (by time 9 % of random histories diverged; design/architecture.md: Fold). Entries without a whole key, or with a
    state that is not known, take no part; an action that is not known is no reason, since the state decides.
    """
    known = F.col("state").isin("Current", "Replaced", "Deleted")
    whole = [F.col(name).isNotNull() for name in INSTANCE_KEY]
    for present in whole:
        known = known & present
    order = F.struct("sequence", "runId") if reread else F.col("sequence")
    return (
        entries.where(known)
        .groupBy(*INSTANCE_KEY)
        .agg(F.max_by(F.struct(*_CARRIED), order).alias("last"), F.count("*").alias(ENTRIES))
        .select(*INSTANCE_KEY, "last.*", ENTRIES)
    )


def _effect() -> Column:
    """What the last entry of a key does to its row; the flag says that its metadata cannot be used."""
    return (
        F.when(F.col("state") == "Deleted", REMOVE)
        # A newer event exists and its own window brings it: the metadata is already the newer one, the
        # path may be stale, and a Delete/Replaced would take a living row away.
        .when(F.col("state") == "Replaced", LEAVE)
        .when(F.col("action").isin("Create", "Update") & ~F.col(FLAG), UPSERT)
        .otherwise(REJECT)
    )


def effects(last: DataFrame, unusable: Collection[int]) -> DataFrame:
    """One row per instance: the columns of ``instance``, ``effect`` (upsert, remove, leave, reject), ``entries``.

    Key: the instance's four columns. ``unusable`` are sequences whose metadata or action cannot be used.
    """
    return flagged(last, unusable).select(
        *INSTANCE_KEY,
        F.col("timestamp").alias("lastModifiedTimestamp"),
        *(a.column for a in ATTRIBUTES),
        "filePath",
        "sequence",
        _effect().alias("effect"),
        ENTRIES,
    )


def folded(
    changes: DataFrame,
    run_id: int,
    unusable: Collection[int],
    invalid_before_fold: Collection[int] = (),
    voids: Voids | None = None,
) -> DataFrame:
    """One row per instance that the run has read of, with its ``effect``.

    ``voids`` say of some keys up to which sequence their entries count as Deleted.
    """
    last = last_of_each_key(entries_of_run(changes, run_id, invalid_before_fold))
    return effects(as_deleted(last, voids or {}), unusable)


def changing(folded: DataFrame) -> DataFrame:
    """Of the fold the source of the MERGE into ``instance``: at most one row per instance, effect upsert or remove."""
    return folded.where(F.col("effect").isin(UPSERT, REMOVE)).drop(ENTRIES)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a fold holds: entries, rows that change an instance, and the sequences of those that are rejected.

    ``upserts`` are the lowest and the highest sequence of the rows to insert or update; None when there is none.
    """

    entries: int
    changing: int
    rejected: frozenset[int]
    upserts: tuple[int, int] | None


def summary(folded: DataFrame) -> Summary:
    """The summary of a fold, by one job."""
    effect, sequence = F.col("effect"), F.col("sequence")
    upserted = F.when(effect == UPSERT, sequence)
    (row,) = folded.agg(
        F.coalesce(F.sum(ENTRIES), F.lit(0)).alias("entries"),
        F.count_if(effect.isin(UPSERT, REMOVE)).alias("changing"),
        F.collect_list(F.when(effect == REJECT, sequence)).alias("rejected"),
        F.min(upserted).alias("lowest"),
        F.max(upserted).alias("highest"),
    ).collect()
    upserts = None if row["lowest"] is None else (row["lowest"], row["highest"])
    return Summary(row["entries"], row["changing"], frozenset(row["rejected"]), upserts)


def removals(keys: DataFrame) -> DataFrame:
    """Rows for the same MERGE that remove these instances, although the feed has no entry for them."""
    nothing = {f.name: F.lit(None).cast(f.dataType) for f in INSTANCE.columns.fields if f.name not in INSTANCE_KEY}
    return keys.select(*INSTANCE_KEY).withColumns({**nothing, "effect": F.lit(REMOVE)})
