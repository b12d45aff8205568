"""The rows that one run lands, in files that are not committed yet (design/architecture.md: Landing)."""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from dicom_etl.core.entry import Entry, InvalidEntry
from dicom_etl.core.timerange import from_datetime
from dicom_etl.lake.delta.add_file import AddFile
from dicom_etl.lake.delta.commit import file_name
from dicom_etl.lake.delta.errors import FAILURES, storage_errors
from dicom_etl.lake.delta.folder import TableFolder
from dicom_etl.lake.sequence_set import SequenceSet
from dicom_etl.landing.parquet import FileWriter, WrittenFile, cut_file
from dicom_etl.landing.rows import rows_of

_TABLE = "change"
_TICKS_PER_MS = 10_000


@dataclass(frozen=True, slots=True)
class Landed:
    """What one run has landed before its end, on disk; ``version`` is that of ``change`` which holds it.

    ``entries`` counts distinct sequences, ``repeated`` the entries met again. ``series`` are the keys (partition,
    study and series, stripped) of all entries that have their three UIDs. ``max_sequence`` and its time
    ``max_sequence_ticks`` (100 ns since 1970) are None when there is no entry, ``version`` before its commit.
    """

    folder: TableFolder
    files: tuple[AddFile, ...]
    entries: int
    repeated: int
    series: frozenset[tuple[str, str, str]]
    unusable: tuple[InvalidEntry, ...]
    max_sequence: int | None
    max_sequence_ticks: int | None
    version: int | None = None

    @property
    def studies(self) -> frozenset[str]:
        """The study UIDs among ``series``."""
        return frozenset(study for _, study, _ in self.series)


class Landing:
    """The files that one run writes into the folder of ``change``; not for use by two threads at once.

    As a context manager it removes them when the block ends before ``finish``. Raises StorageError or
    AccessDenied when the storage fails. Memory: one row group (``rows_per_group`` rows or ``bytes_per_group``
    of metadata), the sequences with their times, and the keys of the series.
    """

    def __init__(
        self,
        folder: TableFolder,
        *,
        run_id: int,
        read_at: datetime,
        keep_metadata: bool = True,
        rows_per_group: int = 5_000,
        bytes_per_group: int = 64 * 1024 * 1024,
        rows_per_file: int = 100_000,
    ) -> None:
        self._folder = folder
        self._run_id = run_id
        self._read_at = read_at
        self._keep_metadata = keep_metadata
        self._rows_per_group = rows_per_group
        self._bytes_per_group = bytes_per_group
        self._rows_per_file = rows_per_file
        self._sequences = SequenceSet()
        self._numbers = array("q")
        self._number_ticks = array("q")
        self._repeated_ticks = array("q")
        self._first_ticks_of_series: dict[tuple[str, str, str], int] = {}
        self._unusable: list[InvalidEntry] = []
        self._only_creates = True
        self._waiting: list[pa.RecordBatch] = []
        self._writer: FileWriter | None = None
        self._written: list[WrittenFile] = []
        self._file_count = 0
        self._finished = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._finished:
            return
        self._waiting.clear()
        if self._writer:
            self._writer.abort()
        for written in self._written:
            self._remove(written)

    @property
    def entries(self) -> int:
        """Distinct sequences so far, wherever the end will be."""
        return len(self._sequences)

    @property
    def only_creates(self) -> bool:
        """Whether nothing but Create was landed so far: then hardly any row that is there is changed."""
        return self._only_creates

    @property
    def studies(self) -> set[str]:
        """The study UIDs so far, wherever the end will be."""
        return {study for _, study, _ in self._first_ticks_of_series}

    def add(self, entries: Sequence[Entry]) -> None:
        """Land entries, in any order, each sequence once.

        The first reading of a sequence is the one that counts, a later one is counted as repeated. Either
        would do: both were read after the claim, and whatever changed between them has an event of its own.
        """
        new = []
        for entry in entries:
            if self._sequences.add(entry.sequence):
                self._numbers.append(entry.sequence)
                self._number_ticks.append(entry.ticks)
                new.append(entry)
            else:
                self._repeated_ticks.append(entry.ticks)
        for slice_ in _slices(new, self._rows_per_group, self._bytes_per_group):
            self._take(slice_)

    def already_landed(self, sequences: Collection[int]) -> dict[int, int]:
        """Those of ``sequences`` that were landed so far, each with its time, wherever the end will be."""
        wanted = self._sequences.intersection(sequences)
        if not wanted:
            return {}
        return {n: ticks for n, ticks in zip(self._numbers, self._number_ticks, strict=True) if n in wanted}

    def finish(self, end_ticks: int) -> Landed:
        """What was landed before ``end_ticks`` (100 ns since 1970); later entries are dropped from the files.

        Files wholly beyond are removed, those across the end are rewritten. From here on the files are
        the caller's: a commit may be under way, and only ``commit_change`` knows whether the table has them.
        """
        with storage_errors(_TABLE):
            self._write_group()
            self._close_file()
            kept = list(self._cut(end_ticks))
        self._finished = True
        highest = max(kept, key=lambda written: written.stats.max_sequence, default=None)
        series = self._first_ticks_of_series.items()
        return Landed(
            folder=self._folder,
            files=tuple(written.file for written in kept),
            entries=sum(written.file.rows for written in kept),
            repeated=sum(ticks < end_ticks for ticks in self._repeated_ticks),
            series=frozenset(key for key, ticks in series if ticks < end_ticks),
            unusable=tuple(unusable for unusable in self._unusable if unusable.ticks < end_ticks),
            max_sequence=highest.stats.max_sequence if highest else None,
            max_sequence_ticks=highest.stats.max_sequence_ticks if highest else None,
        )

    def _take(self, entries: list[Entry]) -> None:
        rows = rows_of(entries, run_id=self._run_id, read_at=self._read_at, keep_metadata=self._keep_metadata)
        self._unusable += rows.unusable
        self._only_creates &= pc.all(pc.equal(rows.batch["action"], "Create")).as_py() is not False
        self._note_series(rows.batch)
        self._waiting.append(rows.batch)
        if (
            sum(batch.num_rows for batch in self._waiting) >= self._rows_per_group
            or sum(_metadata_bytes(batch) for batch in self._waiting) >= self._bytes_per_group
        ):
            with storage_errors(_TABLE):
                self._write_group()

    def _note_series(self, batch: pa.RecordBatch) -> None:
        names = ("partitionName", "studyInstanceUid", "seriesInstanceUid", "sopInstanceUid", "timestampTicks")
        for partition, study, series, sop, ticks in zip(*(batch[name].to_pylist() for name in names), strict=True):
            if study and series and sop:
                key = (partition, study, series)
                self._first_ticks_of_series[key] = min(ticks, self._first_ticks_of_series.get(key, ticks))

    def _write_group(self) -> None:
        if not self._waiting:
            return
        if self._writer is None:
            self._writer = FileWriter(self._folder, self._next_name(), self._modified_ms)
        self._writer.write(pa.Table.from_batches(self._waiting))
        self._waiting.clear()
        if self._writer.rows >= self._rows_per_file:
            self._close_file()

    def _close_file(self) -> None:
        if self._writer:
            self._written.append(self._writer.close())
            self._writer = None

    def _cut(self, end_ticks: int) -> Iterator[WrittenFile]:
        for position, written in enumerate(self._written):
            if written.stats.last_ticks < end_ticks:
                yield written
                continue
            inside = written.stats.first_ticks < end_ticks
            part = cut_file(self._folder, written, end_ticks, self._next_name()) if inside else None
            self._remove(written)
            if part:
                self._written[position] = part
                yield part

    def _remove(self, written: WrittenFile) -> None:
        with contextlib.suppress(*FAILURES):
            self._folder.remove(written.file.path)

    def _next_name(self) -> str:
        self._file_count += 1
        return file_name(self._run_id, self._file_count)

    @property
    def _modified_ms(self) -> int:
        return from_datetime(self._read_at) // _TICKS_PER_MS


def _slices(entries: list[Entry], rows: int, size: int) -> Iterator[list[Entry]]:
    """The entries in order, in lists of at most ``rows``, and of ``size`` bytes of metadata if possible."""
    taken: list[Entry] = []
    taken_bytes = 0
    for entry in entries:
        length = len(entry.metadata)
        if taken and (len(taken) >= rows or taken_bytes + length > size):
            yield taken
            taken, taken_bytes = [], 0
        taken.append(entry)
        taken_bytes += length
    if taken:
        yield taken


def _metadata_bytes(batch: pa.RecordBatch) -> int:
    return int(batch["metadata"].nbytes)
