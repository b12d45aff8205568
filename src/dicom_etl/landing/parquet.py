"""One Parquet file of ``change``: written row group by row group, and cut at an instant."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dicom_etl.lake.change_schema import STATISTICS_COLUMNS, change_schema
from dicom_etl.lake.delta.add_file import AddFile, Statistics
from dicom_etl.lake.delta.errors import FAILURES
from dicom_etl.lake.delta.folder import TableFolder, sync_to_disk

_SCHEMA = change_schema()
# Headers repeat themselves, but not as whole strings: a dictionary of them would be written and given up.
_DICTIONARY = [name for name in _SCHEMA.names if name != "metadata"]
_ROWS_PER_BATCH = 1_000


@dataclass(frozen=True, slots=True)
class FileStats:
    """What is known of some rows without reading them; times in ticks of 100 ns since 1970."""

    statistics: Statistics
    first_ticks: int
    last_ticks: int
    max_sequence: int
    max_sequence_ticks: int

    @classmethod
    def of(cls, rows: pa.Table) -> FileStats:
        ticks = pc.min_max(rows["timestampTicks"])
        highest = pc.max(rows["sequence"])
        at = pc.index(rows["sequence"], highest).as_py()
        return cls(
            Statistics.of(rows, STATISTICS_COLUMNS),
            ticks["min"].as_py(),
            ticks["max"].as_py(),
            highest.as_py(),
            rows["timestampTicks"][at].as_py(),
        )

    def __or__(self, other: FileStats) -> FileStats:
        highest = max(self, other, key=lambda stats: stats.max_sequence)
        return FileStats(
            self.statistics | other.statistics,
            min(self.first_ticks, other.first_ticks),
            max(self.last_ticks, other.last_ticks),
            highest.max_sequence,
            highest.max_sequence_ticks,
        )


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A finished file and what it holds."""

    file: AddFile
    stats: FileStats


class FileWriter:
    """A Parquet file being written; ``close`` gives the finished file, ``abort`` removes it.

    Raises OSError when the storage fails. zstd, a dictionary on all columns but ``metadata``, bounds in the
    footer for the key only (design/architecture.md: Patient data).
    """

    def __init__(self, folder: TableFolder, path: str, modified_ms: int) -> None:
        self.path = path
        self._folder = folder
        self._modified_ms = modified_ms
        self._stats: FileStats | None = None
        self._sink: BinaryIO = folder.create(path)
        try:
            self._parquet = pq.ParquetWriter(
                self._sink,
                _SCHEMA,
                compression="zstd",
                use_dictionary=_DICTIONARY,
                write_statistics=list(STATISTICS_COLUMNS),
            )
        except FAILURES:
            self._remove()
            raise

    @property
    def rows(self) -> int:
        return self._stats.statistics.rows if self._stats else 0

    def write(self, rows: pa.Table) -> None:
        """Write the rows, at least one, as one row group."""
        self._parquet.write_table(rows, row_group_size=rows.num_rows)
        stats = FileStats.of(rows)
        self._stats = self._stats | stats if self._stats else stats

    def close(self) -> WrittenFile:
        """The finished file; at least one row must have been written."""
        if self._stats is None:
            raise ValueError("a file of `change` holds at least one row")
        self._parquet.close()
        sync_to_disk(self._sink)
        self._sink.close()
        size = self._folder.size_bytes(self.path)
        return WrittenFile(AddFile(self.path, size, self._modified_ms, self._stats.statistics), self._stats)

    def abort(self) -> None:
        """Remove the file where that can be done; it may stay behind for vacuum."""
        with contextlib.suppress(*FAILURES):
            self._parquet.close()
        self._remove()

    def _remove(self) -> None:
        with contextlib.suppress(*FAILURES):
            self._sink.close()
        with contextlib.suppress(*FAILURES):
            self._folder.remove(self.path)


def cut_file(folder: TableFolder, whole: WrittenFile, end_ticks: int, path: str) -> WrittenFile | None:
    """The rows of ``whole`` before ``end_ticks``, as a new file at ``path``; None when there is none.

    Read in small batches: a whole group, decoded, filtered and written, took 285 MiB. ``whole`` itself stays.
    """
    writer = FileWriter(folder, path, whole.file.modified_ms)
    try:
        with folder.open(whole.file.path) as source, pq.ParquetFile(source) as parquet:
            for batch in parquet.iter_batches(_ROWS_PER_BATCH, use_threads=False):
                rows = batch.filter(pc.less(batch["timestampTicks"], end_ticks))
                if rows.num_rows:
                    writer.write(pa.Table.from_batches([rows]))
        if writer.rows:
            return writer.close()
    except BaseException:
        writer.abort()
        raise
    writer.abort()
    return None
