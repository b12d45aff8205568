"""The rows of `header_quality`: how many instances' headers gave each tag what, by day and device.

A pure function of the rows of `instance_tags`, and of changes of them (design/outputs.md: Header quality).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DateType, LongType, StringType, StructField, StructType

from dicom_etl.lake.column_facts import comment_of
from dicom_etl.tables.engine.errors import named_errors
from dicom_etl.tables.engine.location import location
from dicom_etl.tables.fold import UPSERT
from dicom_etl.tables.merge import Fence, fenced_session, last_commit
from dicom_etl.tables.schema import Table
from dicom_etl.tables.tag_rows import SAME, WAS

NAME = "header_quality"
NO_HEADER = "noHeader"
# The columns of the digits 0, 1, … of `headerQuality` (outputs.columns.vr.Outcome).
BY_DIGIT = ("absent", "present", "several", "otherVr", "empty", "wrongVr", "unparsable", "binary")
COUNTS = (NO_HEADER, *BY_DIGIT)
_DEVICE = ("day", "manufacturer", "manufacturerModelName")
_KEY = ("tag", *_DEVICE)


def _table() -> Table:
    types = dict.fromkeys(_KEY, StringType()) | {"day": DateType()} | dict.fromkeys(COUNTS, LongType())
    fields = [StructField(name, kind, True, dict(comment_of(NAME, name))) for name, kind in types.items()]
    return Table(NAME, _KEY, StructType(fields), cluster="day")


HEADER_QUALITY = _table()


@dataclass(frozen=True, slots=True)
class QualitySource:
    """The columns of `instance_tags` that are counted, in their order, and which of them tell the device."""

    tags: tuple[str, ...]
    manufacturer: str
    model: str

    @property
    def columns(self) -> tuple[str, ...]:
        """What a row of `instance_tags` must have to be counted."""
        return ("lastModifiedTimestamp", "headerState", "headerQuality", self.manufacturer, self.model)


def quality_rows(source: QualitySource, rows: DataFrame) -> DataFrame:
    """Columns of `header_quality` for all ``rows`` of `instance_tags`."""
    return _counted(source, _noted(source, rows, 1))


def quality_changes(source: QualitySource, rows: DataFrame) -> DataFrame:
    """The same as differences, that may be below 0, for the ``rows`` that ``classified`` gave with ``source.columns``.

    What was there before is subtracted, and what is there now is added; rows without a difference are left out.
    """
    changing = rows.where(F.col("effect") != SAME)
    now = _noted(source, changing.where(F.col("effect") == UPSERT), 1)
    before = changing.where(F.col(WAS).isNotNull()).select(f"{WAS}.*")
    return _counted(source, now.unionByName(_noted(source, before, -1)))


def merge_quality(spark: SparkSession, path: str, changes: DataFrame, fence: Fence) -> int | None:
    """The version with the ``changes`` added; rows that come to 0 throughout are removed. None: a newer one wrote.

    Keys are compared with null as a value: no header need name a device.
    """
    session = fenced_session(spark, fence)
    with named_errors(NAME):
        first, last = changes.agg(F.min("day"), F.max("day")).collect()[0]
        # Literals, by which Delta skips the files of other days.
        days = (
            F.col("t.day").isNull() if first is None else F.col("t.day").isNull() | F.col("t.day").between(first, last)
        )
        sums = {name: F.col(f"t.{name}") + F.col(f"s.{name}") for name in COUNTS}
        nothing = _all(sums[name] == 0 for name in COUNTS)
        same_key = _all(F.col(f"t.{name}").eqNullSafe(F.col(f"s.{name}")) for name in _KEY)
        (
            DeltaTable.forPath(session, location(path))
            .alias("t")
            .merge(changes.alias("s"), same_key & days)
            .whenMatchedDelete(nothing)
            .whenMatchedUpdate(set=dict(sums.items()))
            .whenNotMatchedInsert(values={name: F.col(f"s.{name}") for name in (*_KEY, *COUNTS)})
            .execute()
        )
        return last_commit(session)


def _noted(source: QualitySource, rows: DataFrame, weight: int) -> DataFrame:
    """Of each row its day and device, its digits ("" without a header that was read), and ``weight``."""
    digits = F.when(F.col("headerState") == "ok", F.col("headerQuality"))
    return rows.select(
        F.to_date("lastModifiedTimestamp").alias("day"),
        F.col(source.manufacturer).alias("manufacturer"),
        F.col(source.model).alias("manufacturerModelName"),
        F.coalesce(digits, F.lit("")).alias("digits"),
        F.lit(weight).cast("long").alias("weight"),
    )


def _counted(source: QualitySource, noted: DataFrame) -> DataFrame:
    """Headers are alike: their few patterns are counted first, and only these are taken apart."""
    patterns = noted.groupBy(*_DEVICE, "digits").agg(F.sum("weight").alias("weight")).where(F.col("weight") != 0)
    tags = F.posexplode(F.array(*map(F.lit, source.tags))).alias("at", "tag")
    each = patterns.select(*_DEVICE, "digits", "weight", tags).withColumn("digit", F.expr("substr(digits, at + 1, 1)"))
    sums = [_sum(F.col("digit") == str(number)).alias(name) for number, name in enumerate(BY_DIGIT)]
    no_header = _sum(~F.col("digit").isin([str(number) for number in range(len(BY_DIGIT))])).alias(NO_HEADER)
    counted = each.groupBy(*_KEY).agg(no_header, *sums)
    return counted.where(~_all(F.col(name) == 0 for name in COUNTS)).select(*_KEY, *COUNTS)


def _sum(which: Column) -> Column:
    return F.sum(F.when(which, F.col("weight")).otherwise(0))


def _all(conditions: Iterable[Column]) -> Column:
    return reduce(lambda a, b: a & b, conditions)
