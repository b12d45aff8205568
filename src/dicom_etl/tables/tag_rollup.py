"""The rows of `series_tags` and `study_tags` as a pure function of those of `instance_tags`.

As `tables.rollup`: the latest value that is not null counts, and beside it the number of distinct values.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from dicom_etl.core.attributes import SERIES_KEY, STUDY_KEY
from dicom_etl.tables.tag_schema import TagColumn, TagTables

# Total, so that the same instances always give the same row (tables.rollup has the same order).
_ORDER = ("lastModifiedTimestamp", "sequence", "seriesInstanceUid", "sopInstanceUid")
# What tells how much of a study is there; the set `imaging` has them, at any level and of any name.
NUMBER, EXPECTED = "InstanceNumber", "NumberOfStudyRelatedInstances"


def summaries(tables: TagTables, rows: DataFrame, touched: DataFrame | None = None) -> DataFrame:
    """One row per series of ``rows`` (of `instance_tags`) and per ``touched`` key; what both tables are made of.

    Columns: the series' key, ``lastModifiedTimestamp``, ``instanceCount`` (0 without living instances), ``moments``
    (the times of the instances in microseconds), ``missing`` (numbers), ``_expected``, and for each tag its latest
    value behind what it is ordered by, and the set of its values; ``_expected`` is such a value of EXPECTED.
    """
    tags = tables.series_level
    if touched is not None:
        rows = rows.unionByName(touched.select(*SERIES_KEY), allowMissingColumns=True)
    return rows.groupBy(*SERIES_KEY).agg(
        F.max("lastModifiedTimestamp").alias("lastModifiedTimestamp"),
        F.count("sopInstanceUid").alias("instanceCount"),
        F.collect_set(F.unix_micros("lastModifiedTimestamp")).alias("moments"),
        _missing_numbers(tables.of(NUMBER)).alias("missing"),
        F.expr(f"{_latest(tables.of(EXPECTED))} AS _expected"),
        *(F.expr(f"{_latest(tag)} AS `{tag.name}`") for tag in tags),
        *(F.expr(f"collect_set(`{tag.name}`) AS `{tag.count_name}`") for tag in tags),
    )


def _latest(tag: TagColumn) -> str:
    """As SQL, as all that is said of each tag: built of `Column` objects it takes four times as long."""
    return f"max(CASE WHEN `{tag.name}` IS NOT NULL THEN struct({', '.join(_ORDER)}, `{tag.name}` AS value) END)"


def _missing_numbers(tag: TagColumn) -> Column:
    """How many instance numbers lack between the lowest and the highest of the series; null without numbers."""
    number = F.col(tag.name)
    return F.max(number) - F.min(number) + 1 - F.count_distinct(number)


def series_rows(tables: TagTables, summaries: DataFrame) -> DataFrame:
    """Columns of `series_tags`; a series without living instances has ``instanceCount`` 0."""
    series = summaries.where(F.col("seriesInstanceUid").isNotNull())
    tags = [
        column
        for tag in tables.series_level
        for column in (f"`{tag.name}`.value AS `{tag.name}`", f"{_size(f'`{tag.count_name}`')} AS `{tag.count_name}`")
    ]
    return series.selectExpr(*SERIES_KEY, "lastModifiedTimestamp", "instanceCount", *tags)


def study_rows(tables: TagTables, summaries: DataFrame, settle_micros: int) -> DataFrame:
    """Columns of `study_tags`; a study without living instances has ``instanceCount`` 0.

    ``settledAt`` is when the study counts as settled unless something comes before: ``settle_micros`` after its last
    change. ``reopened`` is how often a living instance came, or changed, after a quiet of that length.
    """
    grouped = summaries.groupBy(*STUDY_KEY).agg(
        F.max("lastModifiedTimestamp").alias("lastModifiedTimestamp"),
        F.sum("instanceCount").alias("instanceCount"),
        F.array_sort(F.array_distinct(F.flatten(F.collect_list("moments")))).alias("moments"),
        F.sum("missing").alias("missingNumbers"),
        F.max("_expected").alias("_expected"),
        *(F.expr(f"max(`{tag.name}`).value AS `{tag.name}`") for tag in tables.study_level),
        *(
            F.expr(f"{_size(f'array_distinct(flatten(collect_list(`{tag.count_name}`)))')} AS `{tag.count_name}`")
            for tag in tables.study_level
        ),
    )
    quiet = F.expr(f"INTERVAL {settle_micros // 1_000_000} SECONDS")
    return grouped.withColumns(
        {
            "settledAt": F.col("lastModifiedTimestamp") + quiet,
            "reopened": _gaps(settle_micros),
            "expectedInstances": F.col("_expected.value"),
        }
    ).select(*tables.study.columns.names)


def _size(values: str) -> str:
    return f"cast(size({values}) AS bigint)"


def _gaps(micros: int) -> Column:
    """How many of the sorted ``moments`` come more than so long after the one before."""
    return F.expr(
        "cast(size(filter(sequence(2, greatest(size(moments), 2)), "
        f"i -> try_element_at(moments, i) - try_element_at(moments, i - 1) > {micros})) as bigint)"
    )
