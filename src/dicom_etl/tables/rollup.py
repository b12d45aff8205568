"""Series and study rows as a pure function of the live instances.

design/architecture.md: Tables, Merge and roll-up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from dicom_etl.core.attributes import SERIES_ATTRIBUTES, SERIES_KEY, STUDY_ATTRIBUTES, STUDY_KEY, Attribute
from dicom_etl.tables.engine.frames import local_rows
from dicom_etl.tables.engine.session import MOST_LITERALS
from dicom_etl.tables.file_skipping import within
from dicom_etl.tables.schema import SERIES, STUDY

SeriesKey = tuple[str, str, str | None]
"""partitionName, studyInstanceUid, seriesInstanceUid; without a series it names the study alone."""


def touched_series(changes: DataFrame, above_run: int, up_to_run: int) -> DataFrame:
    """The keys of every entry that runs in (above_run, up_to_run] landed, whatever became of the entry.

    One row per series: partitionName, studyInstanceUid, seriesInstanceUid. Taking only what the MERGE
    changed lost 65 % of random histories with crashes (design/architecture.md: Merge and roll-up).
    """
    landed = changes.where((F.col("runId") > above_run) & (F.col("runId") <= up_to_run))
    whole = F.col("studyInstanceUid").isNotNull() & F.col("seriesInstanceUid").isNotNull()
    return landed.where(whole).select(*SERIES_KEY).distinct()


def listed_series(spark: SparkSession, keys: Collection[SeriesKey]) -> DataFrame:
    """The keys as a frame, one row each."""
    return local_rows(spark, sorted(keys, key=str), **dict.fromkeys(SERIES_KEY, "string"))


def instances_within(instances: DataFrame, ranges: list[tuple[str, str]], studies: Collection[str]) -> DataFrame:
    """The instances of the studies, all of which lie in the ranges; of too many studies, all instances in the ranges.

    The ranges let Delta skip files, the UIDs let Parquet skip pages within a file that is sorted: of 10^7 instances a
    window's roll-up read 2 000 rows instead of 3.7 million. (Not for a MERGE: Delta numbers the rows of its target, and
    no condition is asked of Parquet.)
    """
    column = F.col("studyInstanceUid")
    near = instances.where(within(column, ranges))
    return near.where(column.isin(sorted(studies))) if len(studies) <= MOST_LITERALS else near


def instances_of(instances: DataFrame, touched: DataFrame) -> DataFrame:
    """The instances of the touched studies; these must be few enough to be sent to every worker."""
    studies = F.broadcast(touched.select(*STUDY_KEY).distinct())
    return instances.join(studies, on=list(STUDY_KEY), how="left_semi")


def summaries(instances: DataFrame, touched: DataFrame | None = None) -> DataFrame:
    """One row per series of ``instances``, and per ``touched`` key: what series and studies are made of.

    Columns: the series' key, lastModifiedTimestamp, instanceCount (0 without live instances), ``modalities``, and
    for each attribute its latest value in a struct that begins with what it is ordered by. Series and studies were
    each aggregated over the instances before: 11 s for 10^6 instances, where this and both below take 3 s.
    """
    values = [attribute.column for attribute in SERIES_ATTRIBUTES]
    rows = instances.select(*SERIES_KEY, "sopInstanceUid", "lastModifiedTimestamp", "sequence", *values)
    if touched is not None:
        rows = rows.unionByName(touched.select(*SERIES_KEY), allowMissingColumns=True)
    return rows.groupBy(*SERIES_KEY).agg(
        F.max("lastModifiedTimestamp").alias("lastModifiedTimestamp"),
        F.count("sopInstanceUid").alias("instanceCount"),
        F.collect_set("modality").alias("modalities"),
        *(_latest(column).alias(column) for column in values),
    )


def series_rows(summaries: DataFrame) -> DataFrame:
    """One row per series, with ``instanceCount`` 0 where the series has no live instance any more.

    Columns of ``series``; key: partitionName, studyInstanceUid, seriesInstanceUid.
    """
    series = summaries.where(F.col("seriesInstanceUid").isNotNull())
    return series.select(
        *SERIES_KEY, "lastModifiedTimestamp", *_values(SERIES_ATTRIBUTES, F.col), "instanceCount"
    ).select(*SERIES.columns.names)


def study_rows(summaries: DataFrame) -> DataFrame:
    """One row per study, with ``instanceCount`` 0 where the study has no live instance any more.

    Columns of ``study``; key: partitionName, studyInstanceUid. ``modalitiesInStudy`` holds the distinct
    modalities, sorted and joined by a backslash as DICOM joins values; null when there is none.
    """
    modalities = F.array_sort(F.array_distinct(F.flatten(F.collect_list("modalities"))))
    return (
        summaries.groupBy(*STUDY_KEY)
        .agg(
            F.max("lastModifiedTimestamp").alias("lastModifiedTimestamp"),
            *_values(STUDY_ATTRIBUTES, F.max),
            F.count_if(F.col("instanceCount") > 0).alias("seriesCount"),
            F.sum("instanceCount").alias("instanceCount"),
            F.nullif(F.array_join(modalities, "\\"), F.lit("")).alias("modalitiesInStudy"),
        )
        .select(*STUDY.columns.names)
    )


# The order is total (a series may hold a sequence twice only in an adopted table, whose rows have none), so that the
# same instances always give the same row.
_ORDER = ("lastModifiedTimestamp", "sequence", "seriesInstanceUid", "sopInstanceUid")


def _latest(column: str) -> Column:
    """The latest value that is not null, behind what it is ordered by; null when all are.

    Structs compare field by field, nulls first.
    """
    return F.max(F.when(F.col(column).isNotNull(), F.struct(*_ORDER, F.col(column).alias("value"))))


def _values(attributes: tuple[Attribute, ...], of: Callable[[str], Column]) -> list[Column]:
    return [of(attribute.column)["value"].alias(attribute.column) for attribute in attributes]
