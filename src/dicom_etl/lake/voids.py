"""Entries that a repair has found void count as Deleted (architecture §5, Change of UIDs)."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from dicom_etl.attributes import INSTANCE_KEY
from dicom_etl.lake.localrows import local_rows

_SCHEMA = {**dict.fromkeys(INSTANCE_KEY, "string"), "voidUntil": "long"}


def as_deleted(last: DataFrame, voids: Mapping[tuple[str, str, str, str], int]) -> DataFrame:
    """The last entries, those up to the sequence at which their key is void as Delete and Deleted.

    A key that was created again since has an entry above it and is left alone. The feed goes on showing the old
    rows as they were, so this holds for every reading, not only for the one that found it.
    """
    if not voids:
        return last
    until = local_rows(last.sparkSession, ((*key, sequence) for key, sequence in voids.items()), **_SCHEMA)
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
