"""What maintenance has to do to one table, by its log alone: most tables need nothing most of the time."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from dicom_etl.lake.delta.errors import FAILURES, storage_error
from dicom_etl.lake.delta.table import properties
from dicom_etl.tables.compact import MaintenancePlan, file_bytes
from dicom_etl.tables.schema import retention_properties

# Two small files are what the run after the last maintenance leaves.
_FEWEST_SMALL_FILES = 3


def maintenance_plan(name: str, table: DeltaTable, retention_hours: int) -> MaintenancePlan:
    """What is to be done; each part that is not would have cost Spark seconds to find that out.

    Raises StorageError or AccessDenied when the storage does not let us.
    """
    files = pa.table(table.get_add_actions(flatten=True))
    table_bytes, rows = (pc.sum(files[name]).as_py() or 0 for name in ("size_bytes", "num_records"))
    wanted = file_bytes(table_bytes, rows)
    small = pc.sum(pc.less(files["size_bytes"], wanted // 2)).as_py() or 0
    stored = properties(table)
    # What a deletion vector leaves behind, Spark alone sees.
    marked = stored.get("delta.enableDeletionVectors") == "true"
    return MaintenancePlan(
        table_bytes=table_bytes,
        file_bytes=wanted,
        retention=not retention_properties(retention_hours).items() <= stored.items(),
        compaction=small >= _FEWEST_SMALL_FILES or marked,
        vacuum=marked or _has_garbage(name, table, retention_hours),
    )


def _has_garbage(name: str, table: DeltaTable, retention_hours: int) -> bool:
    """Whether a file lies there that no version within the retention needs."""
    try:
        return bool(table.vacuum(retention_hours, dry_run=True, enforce_retention_duration=False, full=True))
    except FAILURES as error:
        raise storage_error(error, name) from error
