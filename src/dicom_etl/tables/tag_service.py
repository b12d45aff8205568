"""Rows of `instance_tags` from headers that the service gave, where `change` has none."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from dicom_etl.core.attributes import INSTANCE_KEY
from dicom_etl.tables.fold import UPSERT
from dicom_etl.tables.schema import Table
from dicom_etl.tables.tag_rows import MISSING, SAME, UNKNOWN, before

# Of an answer: the sequence of the row for which it was asked.
ASKED = "asked"
_KEY = list(INSTANCE_KEY)
_OWN = ("lastModifiedTimestamp", "sequence", "createdSequence")


def filled(table: Table, answers: DataFrame, stored: DataFrame, was: Sequence[str] = ()) -> DataFrame:
    """As ``rows.classified``, one row an answer: UPSERT where the row still lacks its header, else SAME.

    ``answers`` have the key, ASKED, and what ``table`` has of a header. A row that another execution has changed since
    it was read is left as it is.
    """
    both = answers.join(stored.select(*_KEY, F.struct(*table.values).alias("_old")), on=_KEY, how="left")
    missing = F.col("_old.headerState").eqNullSafe(MISSING) | F.col("_old.headerQuality").contains(UNKNOWN)
    lacks = F.coalesce(missing, F.lit(False)) & F.col("_old.sequence").eqNullSafe(F.col(ASKED))
    values = [F.col(f"_old.{name}" if name in _OWN else name).alias(name) for name in table.values]
    effect = F.when(lacks, UPSERT).otherwise(SAME).alias("effect")
    return both.select(*_KEY, *values, effect, *([before(was)] if was else []))
