"""Entries of the feed in Parquet files with the columns of ``change``, written as they come."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from types import TracebackType
from typing import BinaryIO, Self
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from dicom_etl.core.entry import Entry
from dicom_etl.lake.change_schema import change_schema
from dicom_etl.lake.delta.errors import storage_errors
from dicom_etl.lake.delta.folder import TableFolder
from dicom_etl.landing.rows import rows_of

_SCHEMA = change_schema()
_ROWS_PER_GROUP = 20_000
_ROWS_PER_FILE = 1_000_000


class EntryFiles:
    """A writer of entries, without headers; ``runId`` holds the number of the reading.

    Nothing is remembered of what was written: at 10^7 entries a set of their sequences alone takes 1 GB. An entry
    that is given twice is there twice. A context manager; after it ``names`` are the files and, of a reading with
    ``metadata``, ``unusable`` the sequences of entries that cannot be merged. Raises StorageError when the folder
    cannot be written.
    """

    def __init__(self, folder: TableFolder, read_at: datetime, reading: int, *, metadata: bool) -> None:
        self.names: list[str] = []
        self.unusable: list[int] = []
        self._folder = folder
        self._read_at = read_at
        self._reading = reading
        self._metadata = metadata
        self._waiting: list[pa.RecordBatch] = []
        self._rows = 0
        self._sink: BinaryIO | None = None
        self._parquet: pq.ParquetWriter | None = None

    def add(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        rows = rows_of(entries, run_id=self._reading, read_at=self._read_at, keep_metadata=False)
        if self._metadata:  # else every entry lacks it
            self.unusable += [one.sequence for one in rows.unusable]
        self._waiting.append(rows.batch)
        if sum(batch.num_rows for batch in self._waiting) >= _ROWS_PER_GROUP:
            self._write()

    def next_reading(self) -> None:
        """What is added from here on was read later than all before."""
        self._write()
        self._reading += 1

    def _write(self) -> None:
        if not self._waiting:
            return
        table = pa.Table.from_batches(self._waiting)
        self._waiting.clear()
        with storage_errors("verify"):
            if self._parquet is None:
                name = f"feed-{uuid4()}.parquet"
                self._sink = self._folder.create(name)
                self._parquet = pq.ParquetWriter(self._sink, _SCHEMA, compression="zstd")
                self.names.append(name)
            self._parquet.write_table(table, row_group_size=table.num_rows)
            self._rows += table.num_rows
            if self._rows >= _ROWS_PER_FILE:
                self._close()

    def _close(self) -> None:
        if self._parquet is not None and self._sink is not None:
            self._parquet.close()
            self._sink.close()
        self._parquet = self._sink = None
        self._rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._write()
        with storage_errors("verify"):
            self._close()
