"""The fold: what the entries that a run read mean for each instance (architecture §5.6)."""

from __future__ import annotations

from collections.abc import Collection

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from dicom_etl.attributes import ATTRIBUTES, INSTANCE_KEY

UPSERT = "upsert"
REMOVE = "remove"
LEAVE = "leave"
REJECT = "reject"

_CARRIED = ("sequence", "timestamp", "timestampTicks", "action", "state", "filePath", *(a.column for a in ATTRIBUTES))


def entries_of_run(changes: DataFrame, run_id: int, unfit: Collection[int] = ()) -> DataFrame:
    """The entries that this run landed, without their headers; one row per sequence.

    ``unfit`` are the sequences that are rejects before the fold: their key or their meaning is not certain.
    """
    landed = changes.where(F.col("runId") == run_id)
    fit = landed.where(~F.col("sequence").isin(sorted(unfit))) if unfit else landed
    return fit.select(*INSTANCE_KEY, *_CARRIED)


def last_of_each_key(entries: DataFrame) -> DataFrame:
    """One row per instance: its entry with the highest sequence.

    By sequence alone, which per key is the order of the commits, also when the service's clock steps back
    (architecture §5.6: by time 9 % of random histories diverged). Entries without a whole key, or with an
    action or state that is not known, take no part.
    """
    known = F.col("action").isin("Create", "Update", "Delete") & F.col("state").isin("Current", "Replaced", "Deleted")
    whole = [F.col(name).isNotNull() for name in INSTANCE_KEY]
    for present in whole:
        known = known & present
    return (
        entries.where(known)
        .groupBy(*INSTANCE_KEY)
        .agg(F.max_by(F.struct(*_CARRIED), "sequence").alias("last"))
        .select(*INSTANCE_KEY, "last.*")
    )


def _effect(unusable: Collection[int]) -> Column:
    """What the last entry of a key does to its row; ``unusable`` are sequences whose metadata cannot be used."""
    readable = ~F.col("sequence").isin(sorted(unusable)) if unusable else F.lit(True)
    return (
        F.when(F.col("state") == "Deleted", REMOVE)
        # A newer event exists and its own window brings it: the metadata is already the newer one, the
        # path may be stale, and a Delete/Replaced would take a living row away.
        .when(F.col("state") == "Replaced", LEAVE)
        .when(F.col("action").isin("Create", "Update") & readable, UPSERT)
        .otherwise(REJECT)
    )


def effects(last: DataFrame, unusable: Collection[int]) -> DataFrame:
    """One row per instance with ``effect`` (upsert, remove, leave, reject) and the columns of ``instance``.

    Key: the instance's four columns.
    """
    return last.select(
        *INSTANCE_KEY,
        F.col("timestamp").alias("lastModifiedTimestamp"),
        *(a.column for a in ATTRIBUTES),
        "filePath",
        "sequence",
        _effect(unusable).alias("effect"),
    )


def instance_changes(
    changes: DataFrame, run_id: int, unusable: Collection[int], unfit: Collection[int] = ()
) -> DataFrame:
    """The source of the MERGE into ``instance``: at most one row per instance, effect upsert or remove."""
    folded = effects(last_of_each_key(entries_of_run(changes, run_id, unfit)), unusable)
    return folded.where(F.col("effect").isin(UPSERT, REMOVE))


def rejected_sequences(
    changes: DataFrame, run_id: int, unusable: Collection[int], unfit: Collection[int] = ()
) -> DataFrame:
    """One row per reject that the fold found: ``sequence``."""
    folded = effects(last_of_each_key(entries_of_run(changes, run_id, unfit)), unusable)
    return folded.where(F.col("effect") == REJECT).select("sequence")
