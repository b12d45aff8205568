"""delta-rs: open a table, read its marker, make one fenced commit (architecture §5.2).

The run id is the fencing token: every commit carries it as app transaction, and none is made below it.
delta-rs checks nothing of this by itself (tried with 1.6.6: from a fresh snapshot a lower version lowers the
marker), so the check, the snapshot and the commit belong together, here.
"""

from __future__ import annotations

from dicom_etl.deltalog.commit import append_rows, commit_files, file_name
from dicom_etl.deltalog.failures import FAILURES, storage_error, storage_errors
from dicom_etl.deltalog.folder import TableFolder, folder_of, is_local, local_folder, local_path, sync_to_disk
from dicom_etl.deltalog.newfile import NewFile, Statistics
from dicom_etl.deltalog.table import (
    STATISTICS_PROPERTY,
    add_text_column,
    create_table,
    marker,
    open_table,
    properties,
    read_rows,
    remove_unborn,
    statistics_columns,
    table_name,
)

__all__ = [
    "FAILURES",
    "STATISTICS_PROPERTY",
    "NewFile",
    "Statistics",
    "TableFolder",
    "add_text_column",
    "append_rows",
    "commit_files",
    "create_table",
    "file_name",
    "folder_of",
    "is_local",
    "local_folder",
    "local_path",
    "marker",
    "open_table",
    "properties",
    "read_rows",
    "remove_unborn",
    "statistics_columns",
    "storage_error",
    "storage_errors",
    "sync_to_disk",
    "table_name",
]
