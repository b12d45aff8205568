"""Rows of Spark that come to this process through Parquet files in a scratch folder.

By ``toLocalIterator`` the JVM keeps all that it has sent: at 10^7 rows it ran out of its 2 GB, and Python waited for it
without end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame

from dicom_etl.commands.verify.scratch import Scratch
from dicom_etl.lake.delta.errors import storage_errors
from dicom_etl.tables.engine.location import location

# A row with a header has 10 to 100 kB, and as Python's values it is in memory a second time.
_BATCH_ROWS = 2000


def batches(folder: Scratch, rows: DataFrame) -> Iterator[pa.RecordBatch]:
    """The rows in their order, some thousand at a time; at least one batch, which may be empty.

    They come through files in ``folder``.
    """
    name = f"rows-{uuid4()}"
    rows.write.parquet(location(folder.path(name)))
    filesystem, parent = folder.folder.filesystem, f"{folder.folder.path}/{name}"
    with storage_errors("_scratch"):
        # Spark numbers its files in the order of the rows.
        for path in sorted(p for p in filesystem.ls(parent, detail=False) if p.endswith(".parquet")):
            with filesystem.open(path, "rb") as file:
                yield from read_batches(file)


def read_batches(file: BinaryIO) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet file in their order, after an empty batch that has its schema."""
    parquet = pq.ParquetFile(file)
    yield pa.RecordBatch.from_pylist([], schema=parquet.schema_arrow.remove_metadata())
    for batch in parquet.iter_batches(batch_size=_BATCH_ROWS):
        yield batch.replace_schema_metadata(None)
