"""One Delta table: open it, create it, read its marker, its properties and its rows."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.schema import Field, PrimitiveType
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from dicom_etl.core.errors import AnotherWriter, ConfigurationError, DataError
from dicom_etl.lake.delta.errors import FAILURES, damage_remedy, storage_error
from dicom_etl.lake.delta.folder import is_local, local_path, make_table_folder, protect_log

STATISTICS_PROPERTY = "delta.dataSkippingStatsColumns"
_VERSION = re.compile(r"\d{20}\.(json|checkpoint.*)$")
_PERCENT_CODE = re.compile(r"%[0-9A-Fa-f]{2}")


def open_table(path: str, storage: dict[str, str] | None = None) -> DeltaTable | None:
    """The table at ``path`` at its newest version, or None when there is none.

    Raises ConfigurationError when a file stands in its way, DataError when its log cannot be read,
    StorageError or AccessDenied when the storage does not let us.
    """
    name = path.rstrip("/").rpartition("/")[2]
    try:
        if is_local(path):
            # delta-rs says "not found" for a folder that it may not look into, and for a file, too.
            os.scandir(local_path(path)).close()
        return DeltaTable(path, storage_options=storage)
    except (FileNotFoundError, TableNotFoundError):
        return None
    except NotADirectoryError as error:
        raise ConfigurationError(
            f"{name}: a file stands where its folder must be; set lake.root and lake.private_root to folders"
        ) from error
    except FAILURES as error:
        raise storage_error(error, name) from error


def refresh_table(table: DeltaTable) -> DeltaTable | None:
    """The same table, moved in place to its newest version; None when its log has vanished from a local disk.

    delta-rs reads the commits that are new, where opening reads the log from its last checkpoint. It says nothing when
    the log is not there any more (tried with 1.6.6), as where a share is not mounted. Raises as ``open_table`` does.
    """
    if is_local(table.table_uri) and not (Path(local_path(table.table_uri)) / "_delta_log").is_dir():
        return None
    try:
        table.update_incremental()
    except FAILURES as error:
        raise storage_error(error, table_name(table)) from error
    return table


def remove_empty_log(path: str) -> None:
    """Remove the log of a table that was never made: a run died, or the disk was full, before its first version.

    Spark refuses to create a table over such a folder. Only a local log without any version goes.
    """
    log = Path(local_path(path)) / "_delta_log"
    if not is_local(path) or not log.is_dir() or any(_VERSION.match(one.name) for one in log.iterdir()):
        return
    try:
        shutil.rmtree(log)
    except OSError as error:
        raise storage_error(error, path.rstrip("/").rpartition("/")[2], writing=True) from error


def create_table(
    path: str,
    schema: pa.Schema,
    *,
    name: str,
    properties: Mapping[str, str],
    storage: dict[str, str] | None = None,
    private: bool = False,
) -> DeltaTable:
    """The new, empty table, its folder 0700 and its log 0600 when ``private``.

    Raises AnotherWriter when there is a table by now, StorageError or AccessDenied when it cannot be written,
    ConfigurationError for a folder name that delta-rs cannot take.
    """
    if is_local(path) and _PERCENT_CODE.search(local_path(path)):
        # delta-rs 1.6.6 writes such a table and then looks for it under the decoded name.
        raise ConfigurationError(f"{name}: take the % and the two digits after it out of the folder's name")
    try:
        if is_local(path):
            make_table_folder(path, private=private)
        table = DeltaTable.create(
            path,
            schema=schema,
            mode="error",
            name=name,
            configuration=dict(properties),
            storage_options=storage,
            raise_if_key_not_exists=False,
            # Else two of a race may both succeed, the second as version 1 with other properties (tried).
            commit_properties=CommitProperties(max_commit_retries=0),
        )
    except FAILURES as error:
        if isinstance(error, DeltaError) and open_table(path, storage) is not None:
            raise AnotherWriter(f"{name}: another run made this table just now; run again") from error
        raise storage_error(error, name, writing=True) from error
    protect_log(table, 0)
    return table


def add_text_column(table: DeltaTable, column: str) -> None:
    """Give the table a nullable column of text at its end, unless it has it; ``table`` is the new version then.

    Readers of older versions see one column more. Raises StorageError or AccessDenied when it cannot be written.
    """
    if column in (field.name for field in table.schema().fields):
        return
    try:
        table.alter.add_columns(
            Field(column, PrimitiveType("string"), nullable=True),
            commit_properties=CommitProperties(max_commit_retries=0),
        )
    except FAILURES as error:
        raise storage_error(error, table_name(table), writing=True) from error
    protect_log(table, table.version())


def txn_version(table: DeltaTable, app_id: str) -> int:
    """The id of the last run that committed to this snapshot of the table; 0 when none did.

    Raises DataError, StorageError or AccessDenied: delta-rs reads the log for it.
    """
    try:
        return table.transaction_version(app_id) or 0
    except FAILURES as error:
        raise storage_error(error, table_name(table)) from error


def history(table: DeltaTable, newest: int) -> list[dict[str, Any]]:
    """What the log says of the newest commits, the last first: version, operation, operationMetrics and more.

    A MERGE's predicate is among it, and holds UIDs. Raises DataError, StorageError or AccessDenied.
    """
    try:
        return table.history(newest)
    except FAILURES as error:
        raise storage_error(error, table_name(table)) from error


def properties(table: DeltaTable) -> dict[str, str]:
    """The table's properties, ours among them."""
    return dict(table.metadata().configuration)


def table_name(table: DeltaTable) -> str:
    """The name that the table was made with, or else the last part of its address."""
    return table.metadata().name or table.table_uri.rstrip("/").rpartition("/")[2]


def statistics_columns(table: DeltaTable) -> tuple[str, ...]:
    """The columns whose bounds may stand in the log; none when the table does not say."""
    names = properties(table).get(STATISTICS_PROPERTY, "").split(",")
    return tuple(name.strip() for name in names if name.strip())


def read_rows(table: DeltaTable, columns: Sequence[str], only: pc.Expression | None = None) -> pa.Table:
    """The named columns of the rows, or of those where ``only`` holds.

    Files whose bounds exclude ``only`` are not opened; rows of one file keep their order. Raises DataError
    when a file is missing or is no Parquet, StorageError or AccessDenied when the storage fails.
    """
    name = table_name(table)
    try:
        dataset = table.to_pyarrow_dataset(filesystem=_arrow_filesystem(table))
        return dataset.to_table(list(columns), filter=only)
    except pa.ArrowInvalid as error:
        raise DataError(f"{name}: a file of this table cannot be read; {damage_remedy(name)}") from error
    except FAILURES as error:
        raise storage_error(error, name) from error


def iterate_rows(
    table: DeltaTable, columns: Sequence[str], only: pc.Expression | None = None
) -> Iterator[pa.RecordBatch]:
    """The same in batches as they are read, for more rows than the memory holds. Raises as ``read_rows`` does."""
    name = table_name(table)
    try:
        dataset = table.to_pyarrow_dataset(filesystem=_arrow_filesystem(table))
        # Arrow reads 16 batches of 131 072 rows ahead, of 4 files at once: with texts that is more than the rest.
        yield from dataset.to_batches(
            columns=list(columns), filter=only, batch_size=32_768, batch_readahead=4, fragment_readahead=1
        )
    except pa.ArrowInvalid as error:
        raise DataError(f"{name}: a file of this table cannot be read; {damage_remedy(name)}") from error
    except FAILURES as error:
        raise storage_error(error, name) from error


def _arrow_filesystem(table: DeltaTable) -> SubTreeFileSystem | None:
    """Arrow's own filesystem for a local table; delta-rs's for others.

    delta-rs's is written in Python, and Arrow's threads may still be in it when the interpreter ends: then
    the process aborts with 134 after its work is done (seen in most runs: deltalake 1.6.6, pyarrow 26).
    """
    if not is_local(table.table_uri):
        return None
    return SubTreeFileSystem(local_path(table.table_uri), LocalFileSystem())
