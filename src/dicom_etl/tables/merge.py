"""The MERGEs, each one fenced commit (design/architecture.md: Fencing, Merge and roll-up)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from dicom_etl.tables.engine.errors import named_errors
from dicom_etl.tables.engine.location import location
from dicom_etl.tables.engine.session import cluster_session
from dicom_etl.tables.file_skipping import within
from dicom_etl.tables.fold import REMOVE, UPSERT
from dicom_etl.tables.schema import CLUSTER_COLUMN, INSTANCE, Table, TableDesign, supports_deletion_vectors

Source = Callable[[SparkSession], DataFrame]
Ranges = list[tuple[str, str]]
Assignments = dict[str, str | Column]


@dataclass(frozen=True, slots=True)
class Fence:
    """The run's token for one table: its commits carry ``run_id`` as the version of transaction ``app_id``."""

    app_id: str
    run_id: int


@dataclass(frozen=True, slots=True)
class MergeResult:
    """What one MERGE did; ``version`` is null when it was skipped because a run had committed before."""

    inserted: int
    updated: int
    deleted: int
    version: int | None

    @property
    def changed(self) -> int:
        """Rows of the table that it wrote or removed."""
        return self.inserted + self.updated + self.deleted


def _activate(spark: SparkSession) -> None:
    """Let Delta take this session for the one that reads.

    On Spark 3 it takes the thread's active session, whichever that is, and with it the calendar of dates: one date
    before 1582 ended a run in a session that reads it (tried with Delta 3.2).
    """
    if spark.version.startswith("3."):
        jvm: Any = spark._jvm
        jvm.SparkSession.setActiveSession(spark._jsparkSession)


def read_table(spark: SparkSession, path: str, version: int | None = None) -> DataFrame:
    """The rows of a Delta table, as of ``version`` when given."""
    _activate(spark)
    reader = spark.read.format("delta")
    return (reader if version is None else reader.option("versionAsOf", version)).load(location(path))


def create_table(spark: SparkSession, table: Table, path: str, design: TableDesign) -> None:
    """Create the empty table: clustered by study, or partitioned as the template has it."""
    builder = DeltaTable.create(spark).location(location(path)).addColumns(table.columns)
    for name, value in design.properties(table).items():
        builder = builder.property(name, value)
    with named_errors(table.name):
        if design.partition_columns:
            builder.partitionedBy(*design.partition_columns).execute()
        else:
            builder.clusterBy(CLUSTER_COLUMN).execute()


def merge_instance(
    spark: SparkSession,
    path: str,
    source: Source,
    ranges: Ranges,
    fence: Fence,
    *,
    guarded: bool = True,
    stored: tuple[int, int] | None = None,
) -> MergeResult:
    """Merge folded changes into ``instance``; ``source`` gives columns of ``instance`` and ``effect``.

    Rows with a sequence within ``stored`` may stand in the table already: those that are equal in all columns are
    left alone, so that a range that is read again rewrites no files.

    The guard stands in WHEN and not in ON: a row that it refuses would be inserted a second time there.
    ``<=`` and not ``<``: what this very entry wrote is refreshed when it is read again, since its state,
    metadata and path are rewritten by later events (design/service-protocol.md: Rows that change). Without the
    guard, for a repair that has just compared each row with the service, any stored sequence gives way, and a removal
    may have none.
    """
    newer = F.col("t.sequence").isNull() | (F.col("t.sequence") <= F.col("s.sequence")) if guarded else F.lit(True)
    upsert = F.col("s.effect") == UPSERT
    assignments: Assignments = {name: F.col(f"s.{name}") for name in INSTANCE.columns.names}

    def changed(session: SparkSession) -> DataFrame:
        rows = source(session)
        return rows if stored is None else _not_merged_before(rows, read_table(session, path), ranges, stored)

    def merge(target: DeltaTable, rows: DataFrame) -> DataFrame:
        return (
            target.alias("t")
            .merge(rows.alias("s"), _on(INSTANCE, ranges))
            .whenMatchedDelete((F.col("s.effect") == REMOVE) & newer)
            .whenMatchedUpdate(upsert & newer, set=assignments)
            .whenNotMatchedInsert(upsert, values=assignments)
            .execute()
        )

    return _merge(spark, INSTANCE, path, changed, fence, merge)


def _not_merged_before(rows: DataFrame, stored: DataFrame, ranges: Ranges, sequences: tuple[int, int]) -> DataFrame:
    """The rows without the upserts that the table holds in just this form.

    A row that is equal has the same sequence: by that few of the stored rows are left to compare, and files of other
    sequences are not opened. A removal may equal the row that it removes, and stays. Spark broadcasts the sequences
    of a window by itself; those of ten years that are read again are more than the driver holds.
    """
    near = stored.where(F.col("sequence").between(*sequences) & within(F.col("studyInstanceUid"), ranges))
    same_entry = near.join(rows.select("sequence"), on="sequence", how="left_semi")
    return _not_stored(rows, same_entry, INSTANCE, ranges, F.col("s.effect") == UPSERT)


def merge_rollup(
    spark: SparkSession, table: Table, path: str, rows: DataFrame, ranges: Ranges, fence: Fence
) -> MergeResult:
    """Merge rolled-up ``rows`` into ``series`` or ``study``; a row with instanceCount 0 removes its target.

    Rows that are equal already are left alone, so that a repeated window rewrites no files.
    """

    def changed(session: SparkSession) -> DataFrame:
        return _not_stored(rows, read_table(session, path), table, ranges)

    alive = F.col("s.instanceCount") > 0
    return _merge(spark, table, path, changed, fence, _writing_or_removing(table, ranges, alive))


def merge_effects(
    spark: SparkSession, table: Table, path: str, rows: DataFrame, ranges: Ranges, fence: Fence
) -> MergeResult:
    """Merge ``rows``, columns of ``table`` and ``effect``: UPSERT writes the row, REMOVE removes its target.

    The rows must be those that change something: nothing is compared here.
    """
    upsert = F.col("s.effect") == UPSERT
    return _merge(spark, table, path, lambda _: rows, fence, _writing_or_removing(table, ranges, upsert))


def _writing_or_removing(table: Table, ranges: Ranges, written: Column) -> Callable[[DeltaTable, DataFrame], DataFrame]:
    """The MERGE by which rows where ``written`` holds are written, and others remove their target."""
    assignments: Assignments = {name: F.col(f"s.{name}") for name in table.columns.names}

    def merge(target: DeltaTable, rows: DataFrame) -> DataFrame:
        return (
            target.alias("t")
            .merge(rows.alias("s"), _on(table, ranges))
            .whenMatchedDelete(~written)
            .whenMatchedUpdate(set=assignments)
            .whenNotMatchedInsert(written, values=assignments)
            .execute()
        )

    return merge


def _not_stored(
    rows: DataFrame, stored: DataFrame, table: Table, ranges: Ranges, may_be: Column | None = None
) -> DataFrame:
    """The rows that the table does not hold in just this form, and those for which ``may_be`` is false.

    A condition in WHEN MATCHED would not do: Delta rewrites the files of all rows that match in ON, where
    there is an insert clause too (tried with 4.4.0).
    """
    # As SQL: of `Column` objects a table of a hundred columns takes some hundred calls of the JVM.
    equal = F.expr(" AND ".join(f"t.`{name}` <=> s.`{name}`" for name in table.values))
    same = equal & (_on(table, ranges) if may_be is None else _on(table, ranges) & may_be)
    return rows.alias("s").join(stored.alias("t"), on=same, how="left_anti")


def _on(table: Table, ranges: Ranges) -> Column:
    """Equality of the key, and the literal ranges that let Delta skip files.

    The ranges must hold every key of the source: a key outside them would be inserted a second time.
    """
    same_key = reduce(lambda a, b: a & b, (F.col(f"t.{name}") == F.col(f"s.{name}") for name in table.key))
    return same_key & within(F.col("t.studyInstanceUid"), ranges)


def _merge(
    spark: SparkSession,
    table: Table,
    path: str,
    source: Source,
    fence: Fence,
    merge: Callable[[DeltaTable, DataFrame], DataFrame],
) -> MergeResult:
    session = fenced_session(spark, fence)
    # Also for a table of which somebody else has switched them on, as Fabric does with its own.
    session.conf.set(
        "spark.databricks.delta.merge.deletionVectors.persistent", str(supports_deletion_vectors(table)).lower()
    )
    with named_errors(table.name):
        target = DeltaTable.forPath(session, location(path))
        returned = merge(target, source(session))
        # A MERGE whose marker is not above the table's is skipped in silence: nothing is committed
        # (design/spark.md: Idempotent writes).
        version = last_commit(session)
        if version is None:
            return MergeResult(0, 0, 0, None)
        return MergeResult(*_counts(returned), version) if returned is not None else _recorded(target, version)


def last_commit(session: SparkSession) -> int | None:
    """The version that the session's last write made; None when it has written nothing."""
    version = session.conf.get("spark.databricks.delta.lastCommitVersionInSession", None)
    return None if version is None else int(version)


def _counts(returned: DataFrame) -> tuple[int, int, int]:
    row = returned.collect()[0]
    return row["num_inserted_rows"], row["num_updated_rows"], row["num_deleted_rows"]


def _recorded(target: DeltaTable, last: int) -> MergeResult:
    """The same from the newest entries of the table's history: Delta 3.2 returns nothing.

    The session's ``last`` commit may be the OPTIMIZE that a platform puts behind a MERGE.
    """
    merges = target.history(20).where((F.col("operation") == "MERGE") & (F.col("version") <= last))
    row = merges.orderBy(F.desc("version")).select("version", "operationMetrics").collect()[0]
    metrics = row["operationMetrics"]
    inserted, updated, deleted = (int(metrics[f"numTargetRows{what}"]) for what in ("Inserted", "Updated", "Deleted"))
    return MergeResult(inserted, updated, deleted, row["version"])


def fenced_session(spark: SparkSession, fence: Fence) -> SparkSession:
    """A session whose writes are fenced; one of its own for each write, since its confs apply to all of them."""
    session = cluster_session(spark)
    session.conf.set("spark.databricks.delta.write.txnAppId", fence.app_id)
    session.conf.set("spark.databricks.delta.write.txnVersion", str(fence.run_id))
    # A MERGE reads its source twice: folded once, 250 000 entries took 5 s of processor time instead of 10, 2 000 no
    # more than before. (The copy of whole headers that made it dear once is not among the columns any more.)
    session.conf.set("spark.databricks.delta.merge.materializeSource", "all")
    # A table may ask for it (the template's sinks do): its OPTIMIZE would be the session's last commit in the place of
    # ours, and rewrites files within a window. `maintain` compacts.
    session.conf.set("spark.databricks.delta.autoCompact.enabled", "false")
    return session
