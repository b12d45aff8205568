"""A folder for what one comparison lists, where Spark can read it and other users cannot.

design/architecture.md: Patient data.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from pyspark.sql import SparkSession

from dicom_etl.lake.delta.errors import FAILURES, storage_errors
from dicom_etl.lake.delta.folder import TableFolder, is_local, local_folder
from dicom_etl.lake.paths import LakePaths

_NAME = "_scratch"


@dataclass(frozen=True, slots=True)
class Scratch:
    """The folder as Python writes it and as Spark reads it."""

    folder: TableFolder
    uri: str

    def path(self, name: str) -> str:
        """Where Spark finds the file ``name``."""
        return f"{self.uri}/{name}"


@contextmanager
def scratch(paths: LakePaths, spark: SparkSession | None, inside: Path | None = None) -> Iterator[Scratch]:
    """An empty folder, removed with all that it holds at the end.

    It lies on this machine's disk, ``inside`` a folder or below the temporary one, which a JVM of our own reads too.
    The executors of a cluster (``spark``) do not: for them it lies below ``lake.private_root``. Enter it before
    the JVM starts, so that it is removed when the JVM has ended: one that still writes would make its files again.
    """
    if spark is None or (spark.sparkContext.master or "").startswith("local"):
        # 0700; what ended the work says more than what cannot be removed
        with tempfile.TemporaryDirectory(prefix="dicom-etl-", dir=inside, ignore_cleanup_errors=True) as name:
            yield Scratch(local_folder(name, private=True), name)
        return
    uri = f"{paths.private_root}/{_NAME}/{uuid4()}"
    with storage_errors(_NAME):
        filesystem, path = paths.storage.filesystem(uri)
        filesystem.makedirs(path, exist_ok=True)
        if is_local(uri):
            Path(path).chmod(0o700)
    try:
        yield Scratch(TableFolder(filesystem, path, private=True), uri)
    finally:
        with suppress(*FAILURES):  # what ended the work says more
            filesystem.rm(path, recursive=True)
