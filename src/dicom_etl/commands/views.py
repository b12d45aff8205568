"""The tables of a lake as views of a session: as they are now, or as one run left them."""

from __future__ import annotations

from collections.abc import Iterable

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dicom_etl.commands.tag_views import TagViews, tag_views
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.past import SHARED, gone, readable, versions
from dicom_etl.lake.snapshot import TABLES, LakeSnapshot
from dicom_etl.tables.header import headers
from dicom_etl.tables.merge import read_table

# Delta refuses a version older than the retention although its files are there. Whether they are is looked at here.
_ENFORCED = "spark.databricks.delta.vacuum.enforceTimeTravelWithinDeletedFileRetentionDuration"


def make_views(spark: SparkSession, snapshot: LakeSnapshot, run: Run | None = None) -> TagViews:
    """Make a view of each table that this user may read, by its name, and ``header`` where `change` is among them.

    With ``run`` the shared tables are as it left them, and of the others the rows with its ``runId`` or a lower one.
    Gives the tag tables: those that equal this run; where none do, there are no views of them. Raises DataError when
    versions that the run recorded are gone.
    """
    if run is not None:
        spark.conf.set(_ENFORCED, "false")
    tags = tag_views(spark, snapshot, run)
    for name, rows in tags.frames.items():
        rows.createOrReplaceTempView(name)
    frames = _frames(spark, snapshot) if run is None else _frames_of(spark, snapshot, run)
    for name, rows in frames.items():
        rows.createOrReplaceTempView(name)
    if "instance" in frames and "change" in frames:
        headers(frames["instance"], frames["change"]).createOrReplaceTempView("header")
    return tags


def _frames(spark: SparkSession, snapshot: LakeSnapshot, names: Iterable[str] = TABLES) -> dict[str, DataFrame]:
    return {name: read_table(spark, snapshot.lake.path(name)) for name in names if snapshot.readable(name)}


def _frames_of(spark: SparkSession, snapshot: LakeSnapshot, run: Run) -> dict[str, DataFrame]:
    others = _frames(spark, snapshot, [name for name in TABLES if name not in SHARED])
    upto = {name: rows.where(F.col("runId") <= run.run_id) for name, rows in others.items()}
    return upto | {name: shared_as_of(spark, snapshot, run, name) for name in SHARED}


def shared_as_of(spark: SparkSession, snapshot: LakeSnapshot, run: Run, name: str) -> DataFrame:
    """One of the shared tables as ``run`` left it. Raises DataError when that version is gone."""
    if not readable(snapshot, run, name):
        raise gone(run)
    spark.conf.set(_ENFORCED, "false")
    try:
        return read_table(spark, snapshot.lake.path(name), versions(run)[name])
    except AnalysisException as error:
        raise gone(run) from error
