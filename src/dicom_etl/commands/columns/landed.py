"""What the runs of a step have landed in `change`, as far as that is read in this process."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import LongType, StringType, StructField, StructType

from dicom_etl.core.attributes import INSTANCE_KEY
from dicom_etl.lake.delta.table import iterate_rows
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.tables.engine.frames import typed_rows
from dicom_etl.tables.tag_headers import landed_entries

# So few entries are handed to Spark as they are. Each look of a plan into a Delta table costs 80 ms, however few rows
# it finds, and a step looks five times at what its runs have landed.
MOST_ENTRIES = 5_000
MOST_BYTES = 64 * 2**20

_LONG, _TEXT = ("runId", "sequence"), (*INSTANCE_KEY, "action", "state", "metadata")
_COLUMNS = StructType(
    [StructField(name, LongType()) for name in _LONG] + [StructField(name, StringType()) for name in _TEXT]
)


@dataclass(frozen=True, slots=True)
class Landed:
    """The entries of the runs in (since, until]: their studies, how many they are, and, where these are few, the rows.

    ``rows`` have the columns of `change` that a tag row is made of.
    """

    since: int
    until: int
    studies: frozenset[str]
    count: int
    rows: pa.Table | None

    def frame(self, spark: SparkSession, changes: DataFrame) -> DataFrame:
        """The same entries in Spark, from this process or from ``changes``."""
        if self.rows is None:
            return landed_entries(changes, self.since, self.until)
        return typed_rows(spark, self.rows, _COLUMNS)


def landed(snapshot: LakeSnapshot, since: int, until: int) -> Landed:
    """What runs in (since, until] have landed, by the files' bounds of run ids; no JVM is started."""
    table, run_id = snapshot.table("change"), pc.field("runId")
    only = (run_id > since) & (run_id <= until)
    studies: set[str] = set()
    count = 0
    for batch in iterate_rows(table, ["studyInstanceUid"], only):
        count += batch.num_rows
        studies.update(pc.unique(pc.drop_null(batch["studyInstanceUid"])).to_pylist())
    rows = _few(snapshot, only) if count <= MOST_ENTRIES else None
    return Landed(since, until, frozenset(studies), count, rows)


def _few(snapshot: LakeSnapshot, only: pc.Expression) -> pa.Table | None:
    """The entries; None where their headers are large, as those of multi-frame images are."""
    batches, size = [], 0
    for batch in iterate_rows(snapshot.table("change"), _COLUMNS.names, only):
        size += batch.nbytes
        if size > MOST_BYTES:
            return None
        batches.append(batch)
    return pa.Table.from_batches(batches) if batches else None
