"""The number and the digest of the instances that one side of a comparison holds.

design/architecture.md: Comparison and repair.
"""

from __future__ import annotations

import hashlib

from pyspark.sql import DataFrame

from dicom_etl.commands.verify.row_files import batches
from dicom_etl.commands.verify.scratch import Scratch
from dicom_etl.tables.differences import sorted_lines


def digest(folder: Scratch, instances: DataFrame) -> tuple[int, str]:
    """How many lines ``differences.sorted_lines`` gives, and SHA-256 over them, each ended by LF."""
    count, hashed = 0, hashlib.sha256()
    for batch in batches(folder, sorted_lines(instances)):
        count += batch.num_rows
        hashed.update("".join(f"{line}\n" for line in batch.column("line").to_pylist()).encode())
    return count, hashed.hexdigest()
