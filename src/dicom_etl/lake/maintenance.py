"""Compaction and vacuum of the lake's tables (spark.md §3.6, §3.8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import Row, SparkSession

from dicom_etl.lake.failures import named_errors
from dicom_etl.lake.schema import retention_properties
from dicom_etl.lake.session import cluster_session

_GIB = 1024**3
_MIB = 1024**2

_CONFS = {
    # Left alone, every OPTIMIZE of a clustered table below 100 GiB rewrites all of it (spark.md §3.6).
    "spark.databricks.delta.optimize.clustering.mergeStrategy.minCubeSize.threshold": str(2 * _GIB),
    "spark.databricks.delta.optimize.clustering.mergeStrategy.targetCubeSize": str(3 * _GIB),
    # Smaller files than the default 1 GiB: finer pruning, less to rewrite in a MERGE.
    "spark.databricks.delta.optimize.maxFileSize": str(128 * _MIB),
    "spark.databricks.delta.optimize.minFileSize": str(64 * _MIB),
    # VACUUM then writes what it freed into the table's history.
    "spark.databricks.delta.vacuum.logging.enabled": "true",
}


@dataclass(frozen=True, slots=True)
class Maintained:
    """What maintenance did to one table: files joined into fewer, files and bytes freed by the vacuum."""

    table: str
    files_compacted: int
    files_written: int
    files_freed: int
    bytes_freed: int


def purge_changes(spark: SparkSession, path: str, up_to_run: int, kept_sequence: int) -> int:
    """How many entries of ``change`` were deleted: those that runs up to ``up_to_run`` read.

    The entry ``kept_sequence`` stays: by the highest one that was ever read, a run sees whether the feed went back.
    """
    statement = f"DELETE FROM delta.`{_quoted(path)}` WHERE runId <= {up_to_run:d} AND sequence <> {kept_sequence:d}"
    with named_errors("change"):
        rows = spark.newSession().sql(statement).collect()
    return int(rows[0]["num_affected_rows"])


def maintain_table(spark: SparkSession, name: str, path: str, retention_hours: int) -> Maintained:
    """Compact and vacuum one table; files that the retention still protects stay.

    The retention goes into the table's properties, because ``RETAIN`` is ignored since Delta 4.1.
    """
    session = cluster_session(spark)
    for key, value in _CONFS.items():
        session.conf.set(key, value)
    with named_errors(name):
        _set_retention(session, path, retention_hours)
        table = DeltaTable.forPath(session, path)
        compacted = table.optimize().executeCompaction().select("metrics.*").collect()[0]
        table.vacuum()
        freed = _last_vacuum(table)
    return Maintained(
        name,
        files_compacted=compacted["numFilesRemoved"],
        files_written=compacted["numFilesAdded"],
        files_freed=int(freed.get("numFilesToDelete", 0)),
        bytes_freed=int(freed.get("sizeOfDataToDelete", 0)),
    )


def _set_retention(session: SparkSession, path: str, retention_hours: int) -> None:
    wanted = retention_properties(retention_hours)
    row: Row = session.sql(f"DESCRIBE DETAIL delta.`{_quoted(path)}`").collect()[0]
    if wanted.items() <= row["properties"].items():
        return
    pairs = ", ".join(f"'{key}' = '{value}'" for key, value in wanted.items())
    session.sql(f"ALTER TABLE delta.`{_quoted(path)}` SET TBLPROPERTIES ({pairs})")


def _last_vacuum(table: DeltaTable) -> dict[str, Any]:
    """The metrics of the newest VACUUM in the history: what it was about to delete."""
    starts = table.history(10).where("operation = 'VACUUM START'").orderBy("version", ascending=False)
    rows = starts.select("operationMetrics").limit(1).collect()
    return dict(rows[0]["operationMetrics"]) if rows else {}


def _quoted(path: str) -> str:
    return path.replace("`", "``")
