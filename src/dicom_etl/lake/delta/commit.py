"""One fenced commit of new files, on one snapshot (design/architecture.md: Fencing)."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.transaction import AddAction

from dicom_etl.core.errors import Superseded
from dicom_etl.lake.delta.add_file import AddFile, Statistics
from dicom_etl.lake.delta.errors import FAILURES, storage_error, storage_errors
from dicom_etl.lake.delta.folder import TableFolder, folder_of, protect_log, sync_to_disk
from dicom_etl.lake.delta.table import statistics_columns, table_name, txn_version


def commit_files(
    table: DeltaTable,
    files: Sequence[AddFile],
    *,
    app_id: str,
    run_id: int,
    details: Mapping[str, str],
    schema: pa.Schema,
) -> int:
    """The version that made ``files`` part of the table: all of them, or none.

    The commit is made on the snapshot that ``table`` holds, once; ``table`` itself stays at that snapshot.
    ``details`` go into the log in clear: counts and ids only. After an unclear answer the marker and the files tell
    whether the commit is ours. Raises Superseded when this run's id is not above the table's marker, or when
    somebody committed since the snapshot; StorageError or AccessDenied when the storage fails.
    """
    name = table_name(table)
    before = table.version()
    newest = txn_version(table, app_id)
    if newest >= run_id:
        has = "its row stands already" if newest == run_id else f"run {newest} already has"
        raise Superseded(f"{name}: run {run_id} may not write, {has}")
    try:
        table.create_write_transaction(
            [AddAction(f.path, f.size_bytes, {}, f.modified_ms, True, f.statistics.json()) for f in files],
            "append",
            schema,
            commit_properties=CommitProperties(
                app_transactions=[Transaction(app_id, run_id)],
                custom_metadata=dict(details),
                max_commit_retries=0,
            ),
        )
    except FAILURES as error:
        _settle(table, before, (app_id, run_id), files, error)
    protect_log(table, before + 1)
    return before + 1


def _settle(
    table: DeltaTable, before: int, marker: tuple[str, int], files: Sequence[AddFile], error: Exception
) -> None:
    """Returns when the commit that ended in ``error`` is in the table all the same; raises when it is not.

    The marker alone does not tell: a newer run that takes a silent one for dead writes the ledger's row in its name.
    Nor does it where that run has written since: this commit may lie below its own. (A run whose machine slept after
    an answer was lost removed the file of a row that stood: every verb then ended with 65.)
    """
    name, (app_id, run_id) = table_name(table), marker
    with storage_errors(name):
        table.update_incremental()
        named = table.file_uris()
    newest = txn_version(table, app_id)
    ours = all(any(uri.endswith(file.path) for uri in named) for file in files[:1])
    if newest == run_id and ours:
        return
    if newest == run_id:
        raise Superseded(f"{name}: a newer run took run {run_id} for dead, it stops") from error
    if newest > run_id:
        raise Superseded(f"{name}: run {newest} has written, run {run_id} stops", committed=ours) from error
    if table.version() > before:
        raise Superseded(f"{name}: another writer came between, run {run_id} stops; run again") from error
    raise storage_error(error, name, writing=True) from error


def append_rows(
    table: DeltaTable,
    rows: pa.Table,
    *,
    app_id: str,
    run_id: int,
    details: Mapping[str, str],
    folder: TableFolder | None = None,
) -> int:
    """The version that added ``rows``, as one Parquet file.

    It has statistics of the columns that the table's properties name, and of no others. ``folder`` is needed
    for a table that is not on the local disk. Raises as ``commit_files`` does.
    """
    folder = folder or folder_of(table)
    file = _write_rows(rows, folder, file_name(run_id, 1), table)
    try:
        return commit_files(table, [file], app_id=app_id, run_id=run_id, details=details, schema=rows.schema)
    except Superseded as error:
        # Only here it is certain: a file that might be committed, the answer being unclear, is never removed.
        if not error.committed:
            with contextlib.suppress(*FAILURES):
                folder.remove(file.path)
        raise


def _write_rows(rows: pa.Table, folder: TableFolder, path: str, table: DeltaTable) -> AddFile:
    columns = statistics_columns(table)
    try:
        with folder.create(path) as sink:
            pq.write_table(rows, sink, compression="zstd", write_statistics=list(columns))
            sync_to_disk(sink)
        size = folder.size_bytes(path)
    except FAILURES as error:
        with contextlib.suppress(*FAILURES):
            folder.remove(path)
        raise storage_error(error, table_name(table), writing=True) from error
    return AddFile(path, size, time.time_ns() // 1_000_000, Statistics.of(rows, columns))


def file_name(run_id: int, number: int) -> str:
    """A file name that no other run, and no other try of this run, makes."""
    return f"part-{run_id:020d}-{number:05d}-{uuid4()}.parquet"
