"""Entries that a repair has found void count as Deleted (design/architecture.md: Change of UIDs)."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dicom_etl.core.attributes import INSTANCE_KEY
from dicom_etl.tables.engine.frames import local_rows

_SCHEMA = {**dict.fromkeys(INSTANCE_KEY, "string"), "voidUntil": "long"}
Key = tuple[str, str, str, str]


def void_rows(spark: SparkSession, voids: Mapping[Key, int]) -> DataFrame:
    """INSTANCE_KEY and ``voidUntil``: one row per void key, with the sequence up to which it is void."""
    return local_rows(spark, ((*key, sequence) for key, sequence in voids.items()), **_SCHEMA)


def as_deleted(last: DataFrame, voids: Mapping[Key, int]) -> DataFrame:
    """The last entries, those up to the sequence at which their key is void as Delete and Deleted.

    A key that was created again since has an entry above it and is left alone. The feed goes on showing the old
    rows as they were, so this holds for every reading, not only for the one that found it.
    """
    if not voids:
        return last
    until = void_rows(last.sparkSession, voids)
    void = F.coalesce(F.col("sequence") <= F.col("voidUntil"), F.lit(False))
    return (
        last.join(F.broadcast(until), on=list(INSTANCE_KEY), how="left")
        .withColumns(
            {
                "action": F.when(void, "Delete").otherwise(F.col("action")),
                "state": F.when(void, "Deleted").otherwise(F.col("state")),
            }
        )
        .drop("voidUntil")
    )
