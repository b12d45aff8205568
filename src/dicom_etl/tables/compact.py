"""OPTIMIZE, VACUUM and the purge of ``change``, as told: ``commands.maintain`` chooses how long files are kept.

design/spark.md: Clustering and compaction, Vacuum and retention.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from dicom_etl.tables.engine.errors import named_errors
from dicom_etl.tables.engine.location import location, sql_name
from dicom_etl.tables.engine.session import cluster_session
from dicom_etl.tables.merge import read_table
from dicom_etl.tables.schema import retention_properties

_GIB = 1024**3
_MIB = 1024**2

# A MERGE writes a whole file for one changed row of it, and reads a few files for a window: about so many rows are
# quick to write, and of 10^9 rows make no more files than readers bear.
_ROWS_A_FILE = 250_000
_LARGEST_FILE_BYTES = 128 * _MIB


def file_bytes(table_bytes: int, rows: int) -> int:
    """The size of the files that compaction writes; those below half of it are joined into larger ones."""
    return max(_MIB, min(_LARGEST_FILE_BYTES, table_bytes * _ROWS_A_FILE // max(rows, 1)))


def cube_bytes(table_bytes: int) -> int:
    """The size at which rows that were clustered together are left alone: an eighth of the table, within bounds.

    Left to Delta it is 100 GiB, and every OPTIMIZE of a smaller table rewrites all of it
    (design/spark.md: Clustering and compaction). Smaller ones would overlap each other: an UID at random would have
    to be looked for in each.
    """
    return max(16 * _MIB, min(table_bytes // 8, 2 * _GIB))


def _confs(work: MaintenancePlan) -> dict[str, str]:
    optimize = "spark.databricks.delta.optimize"
    cube = f"{optimize}.clustering.mergeStrategy.minCubeSize"
    return {
        f"{cube}.threshold": str(cube_bytes(work.table_bytes)),
        f"{cube}.targetCubeSize": str(cube_bytes(work.table_bytes) * 3 // 2),
        f"{optimize}.minFileSize": str(work.file_bytes // 2),
        f"{optimize}.maxFileSize": str(work.file_bytes),
        # Sorted within the files too, so that a MERGE that must look into one skips most of its pages.
        "spark.databricks.io.skipping.mdc.sortWithinFiles": "true",
        # VACUUM then writes what it freed into the table's history.
        "spark.databricks.delta.vacuum.logging.enabled": "true",
    }


@dataclass(frozen=True, slots=True)
class MaintenancePlan:
    """What is to be done to a table of so many bytes, in files of about so many."""

    table_bytes: int
    file_bytes: int
    retention: bool = True
    compaction: bool = True
    vacuum: bool = True

    @property
    def steps(self) -> list[str]:
        """Names of what is to be done, in this order; empty when nothing is."""
        parts = {"retention": self.retention, "compact": self.compaction, "vacuum": self.vacuum}
        return [name for name, due in parts.items() if due]


@dataclass(frozen=True, slots=True)
class MaintenanceResult:
    """What maintenance did to one table: files joined into fewer, files and bytes freed by the vacuum."""

    table: str
    files_compacted: int
    files_written: int
    files_freed: int
    bytes_freed: int

    def as_row(self) -> dict[str, Any]:
        """By name, as a command and a job print it."""
        return {
            "table": self.table,
            "filesCompacted": self.files_compacted,
            "filesWritten": self.files_written,
            "filesFreed": self.files_freed,
            "bytesFreed": self.bytes_freed,
        }


def purge_changes(spark: SparkSession, path: str, up_to_run: int, kept_sequence: int) -> int:
    """How many entries of ``change`` were deleted: those that runs up to ``up_to_run`` read.

    The entry ``kept_sequence`` stays: by the highest one that was ever read, a run sees whether the feed went back.
    """
    statement = f"DELETE FROM {sql_name(path)} WHERE runId <= {up_to_run:d} AND sequence <> {kept_sequence:d}"
    with named_errors("change"):
        rows = cluster_session(spark).sql(statement).collect()
    return int(rows[0]["num_affected_rows"])


def purge_superseded(spark: SparkSession, path: str, instances: str, up_to_run: int, kept_sequence: int) -> int:
    """How many entries of ``change`` were deleted: as ``purge_changes``, but none that ``instance`` was made from.

    Their headers are what a new column is filled from. Only narrow columns are read to find the others; a row of
    ``change`` has the key runId, sequence.
    """
    session = cluster_session(spark)
    with named_errors("change"):
        old = (F.col("runId") <= up_to_run) & (F.col("sequence") != kept_sequence)
        entries = read_table(session, path).where(old).select("runId", "sequence", "state")
        living = read_table(session, instances).select("sequence", F.lit(True).alias("_living"))
        alive = F.col("_living").isNotNull() & (F.col("state") == "Current")
        superseded = entries.join(living, on="sequence", how="left").where(~F.coalesce(alive, F.lit(False)))
        doomed = superseded.select("runId", "sequence").localCheckpoint()
        found = doomed.count()
        if found:  # a MERGE without rows would be a version of its own, each night
            same = f"t.runId = s.runId AND t.sequence = s.sequence AND t.runId <= {up_to_run:d}"
            table = DeltaTable.forPath(session, location(path))
            table.alias("t").merge(doomed.alias("s"), same).whenMatchedDelete().execute()
    return found


def maintain_table(
    spark: SparkSession, name: str, path: str, retention_hours: int, work: MaintenancePlan
) -> MaintenanceResult:
    """Do to one table what is to be done; files that the retention still protects stay.

    The retention goes into the table's properties, because ``RETAIN`` is ignored since Delta 4.1.
    """
    session = cluster_session(spark)
    for key, value in _confs(work).items():
        session.conf.set(key, value)
    done = MaintenanceResult(name, 0, 0, 0, 0)
    with named_errors(name):
        if work.retention:
            pairs = ", ".join(f"'{key}' = '{value}'" for key, value in retention_properties(retention_hours).items())
            session.sql(f"ALTER TABLE {sql_name(path)} SET TBLPROPERTIES ({pairs})")
        table = DeltaTable.forPath(session, location(path))
        if work.compaction:
            metrics = table.optimize().executeCompaction().select("metrics.*").collect()[0]
            done = replace(done, files_compacted=metrics["numFilesRemoved"], files_written=metrics["numFilesAdded"])
        if work.vacuum:
            table.vacuum()
            freed = _last_vacuum(table)
            files, size = int(freed.get("numFilesToDelete", 0)), int(freed.get("sizeOfDataToDelete", 0))
            done = replace(done, files_freed=files, bytes_freed=size)
    return done


def _last_vacuum(table: DeltaTable) -> dict[str, Any]:
    """The metrics of the newest VACUUM in the history: what it was about to delete."""
    starts = table.history(10).where("operation = 'VACUUM START'").orderBy("version", ascending=False)
    rows = starts.select("operationMetrics").limit(1).collect()
    return dict(rows[0]["operationMetrics"]) if rows else {}
