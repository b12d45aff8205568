"""The number and the digest of the instances that one side of a comparison holds.

design/architecture.md: Comparison and repair.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from uuid import uuid4

import pyarrow.parquet as pq
from pyspark.sql import DataFrame

from dicom_etl.commands.verify.scratch import Scratch
from dicom_etl.lake.delta.errors import storage_errors
from dicom_etl.tables.differences import sorted_lines
from dicom_etl.tables.engine.location import location


def digest(folder: Scratch, instances: DataFrame) -> tuple[int, str]:
    """How many lines ``differences.sorted_lines`` gives, and SHA-256 over them, each ended by LF.

    The lines come through files in ``folder``. By ``toLocalIterator`` the JVM kept all lines that it had sent: at 10^7
    instances it ran out of its 2 GB, and Python waited for it without end.
    """
    name = f"lines-{uuid4()}"
    sorted_lines(instances).write.parquet(location(folder.path(name)))
    count, hashed = 0, hashlib.sha256()
    with storage_errors("_scratch"):
        for lines in _read(folder, name):
            count += len(lines)
            hashed.update("".join(f"{line}\n" for line in lines).encode())
    return count, hashed.hexdigest()


def _read(folder: Scratch, name: str) -> Iterator[list[str]]:
    """The lines, some thousand at a time: Spark numbers its files in the order of the lines."""
    filesystem, parent = folder.folder.filesystem, f"{folder.folder.path}/{name}"
    for path in sorted(p for p in filesystem.ls(parent, detail=False) if p.endswith(".parquet")):
        with filesystem.open(path, "rb") as file:
            for batch in pq.ParquetFile(file).iter_batches():
                yield batch.column("line").to_pylist()
