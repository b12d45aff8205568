"""Writes the tag tables, each by one fenced commit: `instance_tags`, then what is made of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dicom_etl.commands.columns.compute import Computed, Scope, Work
from dicom_etl.commands.columns.quality import QualityWriter, write_quality
from dicom_etl.core.attributes import INSTANCE_KEY, SERIES_KEY, STUDY_KEY
from dicom_etl.core.errors import DataError, Superseded
from dicom_etl.outputs.execution import Counts, Mode
from dicom_etl.outputs.stored_tags import QUALITY
from dicom_etl.tables.engine.errors import named_errors
from dicom_etl.tables.fold import REMOVE, UPSERT
from dicom_etl.tables.merge import Fence, Ranges, merge_effects, merge_rollup, read_table
from dicom_etl.tables.replace import replace_table
from dicom_etl.tables.schema import Table, TableDesign
from dicom_etl.tables.tag_rollup import series_rows, study_rows, summaries
from dicom_etl.tables.tag_rows import SAME, classified

ROLLUPS = ("series_tags", "study_tags")
_ALL: Ranges = [("", "\U0010ffff")]


@dataclass(frozen=True, slots=True)
class Writer:
    """Who writes: a session, what it works with, the id that fences its commits, and how its tables are made.

    ``remade``: the tables are not there, or made of other tags, and are replaced. ``rolled_up``: the roll-ups lack
    nothing of what earlier executions have written.
    """

    spark: SparkSession
    work: Work
    execution_id: int
    design: TableDesign
    settle_micros: int
    remade: bool
    rolled_up: bool
    quality: QualityWriter

    def path(self, table: Table) -> str:
        return self.work.snapshot.lake.path(table.name)

    def fence(self, table: Table) -> Fence:
        return Fence(self.work.snapshot.lake.app_id(table.name), self.execution_id)

    def replace(self, table: Table, rows: DataFrame) -> int:
        """The version that holds these rows and no others."""
        version = replace_table(self.spark, table, self.path(table), lambda _: rows, self.fence(table), self.design)
        return _own(table, version)


def write_tags(writer: Writer, done: Computed) -> tuple[Counts, dict[str, int]]:
    """What became of the keys, and the versions of the four tables behind it. Raises as ``write_rows``."""
    rows = classified(writer.work.tables.instance, done.inputs, writer.quality.source.columns)
    return write_rows(writer, done.mode, done.scope, rows)


def write_rows(writer: Writer, mode: Mode, scope: Scope | None, rows: DataFrame) -> tuple[Counts, dict[str, int]]:
    """The same for ``rows`` as ``classified`` gives them.

    Every table is written, also where no row changes: its marker then refuses an execution that was overtaken, which
    would write rows that this one has found to be gone.

    Raises Superseded when a later execution has committed, DataError when the counts do not agree.
    """
    with named_errors("instance_tags"):
        rows = rows.localCheckpoint()
        effects = {row[0]: int(row[1]) for row in rows.groupBy("effect").count().collect()}
    # A comparison leaves no trace of what an execution that died before it has touched.
    followed = scope if mode != "compare" and writer.rolled_up and not writer.remade else None
    with ThreadPoolExecutor(2) as pool:
        ahead = pool.submit(_ahead, writer, followed, rows) if followed is not None else None
        counts, version = _write_instances(writer, scope, rows, effects)
        if not counts.whole:
            raise DataError(
                "instance_tags holds a key in several rows, so somebody else has written to it: run dicom-etl columns "
                "update --full"
            )
        quality = pool.submit(write_quality, writer.quality, rows, version)
        rollups = _write_all_rollups(writer, version) if ahead is None else _merge_rollups(writer, ahead.result())
        return counts, {"instance_tags": version, **rollups, QUALITY: quality.result()}


def _write_instances(
    writer: Writer, scope: Scope | None, rows: DataFrame, effects: dict[str, int]
) -> tuple[Counts, int]:
    table = writer.work.tables.instance
    touched, unchanged = sum(effects.values()), effects.get(SAME, 0)
    if writer.remade:
        written = rows.where(F.col("effect") != REMOVE)
        version = writer.replace(table, written)
        return Counts(touched, unchanged, effects.get(UPSERT, 0), effects.get(REMOVE, 0)), version
    ranges = _ALL if scope is None else scope.ranges
    changing = rows.where(F.col("effect") != SAME)
    merged = merge_effects(writer.spark, table, writer.path(table), changing, ranges, writer.fence(table))
    return Counts(touched, unchanged, merged.inserted + merged.updated, merged.deleted), _own(table, merged.version)


@dataclass(frozen=True, slots=True)
class _Ahead:
    """What the roll-ups of the changed series and studies are made of, computed while `instance_tags` is written."""

    summaries: DataFrame
    keys: DataFrame
    ranges: Ranges

    def of(self, rolled: DataFrame, key: tuple[str, ...]) -> DataFrame:
        """Those of the rolled-up rows that have changed, with what is to become of them."""
        keys = F.broadcast(self.keys.select(*key).distinct())
        effect = F.when(F.col("instanceCount") > 0, UPSERT).otherwise(REMOVE)
        return rolled.join(keys, on=list(key), how="left_semi").withColumn("effect", effect)


def _ahead(writer: Writer, scope: Scope, rows: DataFrame) -> _Ahead:
    """From the stored rows and the changing ones, since `instance_tags` does not have these yet."""
    tables = writer.work.tables
    with named_errors("instance_tags"):
        changing = rows.where(F.col("effect") != SAME)
        stored = scope.of(writer.work.stored_rows(writer.spark))
        others = stored.join(changing.select(*INSTANCE_KEY), on=list(INSTANCE_KEY), how="left_anti")
        written = changing.where(F.col("effect") == UPSERT).select(*tables.instance.columns.names)
        keys = changing.select(*SERIES_KEY).distinct()
        made_of = summaries(tables, others.unionByName(written), keys).localCheckpoint()
    return _Ahead(made_of, keys, scope.ranges)


def _merge_rollups(writer: Writer, ahead: _Ahead) -> dict[str, int]:
    def put(table: Table, rolled: DataFrame) -> int:
        changes = ahead.of(rolled, table.key)
        merged = merge_effects(writer.spark, table, writer.path(table), changes, ahead.ranges, writer.fence(table))
        return _own(table, merged.version)

    return _both(writer, ahead.summaries, put)


def _write_all_rollups(writer: Writer, instance_version: int) -> dict[str, int]:
    """All of them: an execution that died behind `instance_tags` leaves no trace there of what it touched."""
    tables = writer.work.tables
    with named_errors("instance_tags"):
        instances = read_table(writer.spark, writer.path(tables.instance), instance_version)
        made_of = summaries(tables, instances, _stored_series(writer)).localCheckpoint()

    def put(table: Table, rolled: DataFrame) -> int:
        if writer.remade:
            return writer.replace(table, rolled.where(F.col("instanceCount") > 0))
        merged = merge_rollup(writer.spark, table, writer.path(table), rolled, _ALL, writer.fence(table))
        return _own(table, merged.version)

    return _both(writer, made_of, put)


def _both(writer: Writer, made_of: DataFrame, put: Callable[[Table, DataFrame], int]) -> dict[str, int]:
    """The versions of `series_tags` and `study_tags`, put side by side."""
    tables = writer.work.tables
    with ThreadPoolExecutor(2) as pool:
        series = pool.submit(put, tables.series, series_rows(tables, made_of))
        study = pool.submit(put, tables.study, study_rows(tables, made_of, writer.settle_micros))
        return dict(zip(ROLLUPS, (series.result(), study.result()), strict=True))


def _stored_series(writer: Writer) -> DataFrame | None:
    """The keys of `series_tags`, and those of `study_tags` without a series; None where the tables are made now."""
    if writer.remade:
        return None
    series, study = (
        read_table(writer.spark, writer.path(table)).select(*key)
        for table, key in ((writer.work.tables.series, SERIES_KEY), (writer.work.tables.study, STUDY_KEY))
    )
    return series.unionByName(study, allowMissingColumns=True).distinct()


def _own(table: Table, version: int | None) -> int:
    if version is None:
        raise Superseded(f"{table.name}: a later execution has written; this one stops")
    return version
