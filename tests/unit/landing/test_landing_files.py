"""The files that a run lands: once per sequence, cut exactly at the end, nothing left of an abort."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from dicom_etl.core.entry import Entry
from dicom_etl.core.errors import StorageError
from dicom_etl.lake.delta.folder import TableFolder, local_folder
from dicom_etl.landing import landing as files
from dicom_etl.landing.landing import Landed, Landing

READ_AT = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
END = 1_000_000


def entry(sequence: int, ticks: int, *, study: str = "1.2", size: int = 10, **changes: Any) -> Entry:
    fields = {
        "sequence": sequence,
        "timestamp": "not looked at",
        "study_instance_uid": study,
        "series_instance_uid": f"{study}.1",
        "sop_instance_uid": f"{study}.1.{sequence}",
        "action": "Create",
        "state": "Current",
        "metadata": msgspec.Raw(json.dumps({"00100020": {"vr": "LO", "Value": ["x" * size]}}).encode()),
        "ticks": ticks,
    }
    return Entry(**(fields | changes))


@pytest.fixture
def folder(tmp_path: Path) -> TableFolder:
    return local_folder(str(tmp_path), private=True)


def land(folder: TableFolder, pages: Sequence[Sequence[Entry]], end: int = END, **bounds: int) -> Landed:
    with Landing(folder, run_id=4, read_at=READ_AT, **bounds) as landing:
        for page in pages:
            landing.add(page)
        return landing.finish(end)


def rows_in(folder: TableFolder, landed: Landed) -> list[tuple[int, int]]:
    found = []
    for file in landed.files:
        table = pq.read_table(folder.open(file.path))
        assert table.num_rows == file.rows
        found += list(zip(table["sequence"].to_pylist(), table["timestampTicks"].to_pylist(), strict=True))
    return found


def names(folder: TableFolder) -> set[str]:
    return set(os.listdir(folder.path))


def test_a_landing_tells_what_it_has_met(folder: TableFolder) -> None:
    """Of some sequences those that it holds by now, each with its time, the first time it was added."""
    with Landing(folder, run_id=4, read_at=READ_AT) as landing:
        assert landing.already_landed({5, 6}) == {}
        landing.add([entry(5, 50), entry(7, END + 1), entry(5, 60)])
        assert landing.already_landed({5, 6, 7}) == {5: 50, 7: END + 1}
        assert landing.already_landed(()) == {}


def test_what_was_landed(folder: TableFolder) -> None:
    """All entries of all pages are in the files, and the summary counts them."""
    landed = land(folder, [[entry(5, 10, study="1.2 "), entry(9, 20, study="1.3")], [entry(7, 30)]])
    assert sorted(rows_in(folder, landed)) == [(5, 10), (7, 30), (9, 20)]
    assert landed.entries == 3
    assert landed.repeated == 0
    assert landed.studies == {"1.2", "1.3"}
    assert landed.unusable == ()
    assert (landed.max_sequence, landed.max_sequence_ticks) == (9, 20)
    assert names(folder) == {file.path for file in landed.files}


def test_nothing_landed(folder: TableFolder) -> None:
    """A run without entries writes no file."""
    landed = land(folder, [[], []])
    assert (landed.files, landed.entries, landed.studies) == ((), 0, frozenset())
    assert (landed.max_sequence, landed.max_sequence_ticks) == (None, None)
    assert names(folder) == set()


def test_each_sequence_lands_once_and_the_first_reading_counts(folder: TableFolder) -> None:
    """A sequence met again, on the same page or much later, is counted and not written."""
    first = entry(5, 10, file_path="first")
    again = entry(5, 10, file_path="again")
    landed = land(folder, [[first, entry(6, 11), again], [again, entry(7, 12)]], rows_per_group=1, rows_per_file=1)
    assert landed.entries == 3
    assert landed.repeated == 2
    assert sorted(rows_in(folder, landed)) == [(5, 10), (6, 11), (7, 12)]
    paths = [pq.read_table(folder.open(file.path))["filePath"].to_pylist() for file in landed.files]
    assert ["first"] in paths
    assert ["again"] not in paths


def test_the_cut_is_exact_to_100_ns(folder: TableFolder) -> None:
    """The end is exclusive: one tick before it is in, the end itself is not."""
    landed = land(folder, [[entry(1, END - 1), entry(2, END), entry(3, END + 1)]])
    assert rows_in(folder, landed) == [(1, END - 1)]
    assert landed.entries == 1


@pytest.mark.parametrize("rows_per_group", [1, 3, 1000])
@pytest.mark.parametrize("rows_per_file", [1, 7, 1000])
def test_the_cut_goes_through_files_and_row_groups(
    folder: TableFolder, rows_per_group: int, rows_per_file: int
) -> None:
    """Whatever the layout: what is before the end stays, once; what is not leaves no trace in files or counts."""
    # Pages of parallel slices come in any order; multiples of 7 walk through 0..99 out of order.
    ticks = [step * 7 % 100 for step in range(100)]
    entries = [entry(1000 - at, at, study=f"1.{at}") for at in ticks]
    again = [entry(1000 - 20, 20), entry(1000 - 80, 80)]
    odd = [entry(2000, 41, action="Purge", study="9.1"), entry(2001, 90, action="Purge", study="9.2")]
    landed = land(
        folder,
        [entries[:33], entries[33:66] + again, entries[66:] + odd],
        end=42,
        rows_per_group=rows_per_group,
        rows_per_file=rows_per_file,
    )
    assert sorted(rows_in(folder, landed)) == sorted([*((1000 - at, at) for at in range(42)), (2000, 41)])
    assert landed.entries == 43
    assert landed.repeated == 1
    assert landed.studies == {f"1.{at}" for at in range(42)} | {"9.1"}
    assert [u.sequence for u in landed.unusable] == [2000]
    assert (landed.max_sequence, landed.max_sequence_ticks) == (2000, 41)
    assert names(folder) == {file.path for file in landed.files}
    assert sum(file.statistics.rows for file in landed.files) == 43
    for file in landed.files:
        sequences = pq.read_table(folder.open(file.path))["sequence"].to_pylist()
        assert file.statistics.minimums == {"runId": 4, "sequence": min(sequences)}
        assert file.statistics.maximums == {"runId": 4, "sequence": max(sequences)}
        assert file.size_bytes == os.path.getsize(f"{folder.path}/{file.path}")


def test_a_study_counts_from_its_first_entry(folder: TableFolder) -> None:
    """A study with entries on both sides of the end is among the studies, whichever came first."""
    pages = [[entry(1, END + 5, study="1.1"), entry(2, END - 5, study="1.1"), entry(3, END + 5, study="1.2")]]
    assert land(folder, pages).studies == {"1.1"}


def test_entries_without_three_uids_name_no_study(folder: TableFolder) -> None:
    """Such an entry has no key that anything could be merged into."""
    landed = land(folder, [[entry(1, 1, study="1.1", sop_instance_uid=None), entry(2, 2, study="1.2")]])
    assert landed.studies == {"1.2"}
    assert [u.sequence for u in landed.unusable] == [1]
    assert landed.entries == 2


def test_row_groups_are_bounded_by_rows_and_by_bytes(folder: TableFolder) -> None:
    """A row group holds about rows_per_group rows, and no more metadata than about bytes_per_group."""
    by_rows = land(folder, [[entry(n, n) for n in range(10)]], rows_per_group=4)
    [file] = by_rows.files
    metadata = pq.ParquetFile(folder.open(file.path)).metadata
    assert [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)] == [4, 4, 2]
    by_bytes = land(folder, [[entry(n, n, size=1000) for n in range(10)]], bytes_per_group=3_500)
    [file] = by_bytes.files
    metadata = pq.ParquetFile(folder.open(file.path)).metadata
    groups = [metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)]
    assert sum(groups) == 10
    assert max(groups) <= 6


def test_files_are_bounded_by_rows(folder: TableFolder) -> None:
    """A file is closed once it holds rows_per_file rows."""
    landed = land(folder, [[entry(n, n)] for n in range(10)], rows_per_group=2, rows_per_file=4)
    assert [file.rows for file in landed.files] == [4, 4, 2]


def test_the_cut_holds_a_thousand_rows_at_a_time(folder: TableFolder) -> None:
    """A file across the end is written anew in small pieces, whatever its row groups are: they hold whole headers."""
    landed = land(folder, [[entry(n, n) for n in range(2_500)]], end=1_700, rows_per_group=2_500)
    (file,) = landed.files
    with folder.open(file.path) as source, pq.ParquetFile(source) as parquet:
        groups = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
    assert landed.entries == 1_700
    assert groups == [1_000, 700]


def test_files_are_for_their_owner_only(folder: TableFolder) -> None:
    """Files of a private folder are 0600 whatever the umask, cut ones too; elsewhere the umask decides."""
    old = os.umask(0o022)
    try:
        private = land(folder, [[entry(1, 1), entry(2, END)], [entry(3, 3)]], rows_per_group=1, rows_per_file=2)
        shared = land(TableFolder(folder.filesystem, folder.path, private=False), [[entry(1, 1)]])
    finally:
        os.umask(old)
    assert len(private.files) == 2
    modes = {f.path: stat.S_IMODE(os.stat(f"{folder.path}/{f.path}").st_mode) for f in private.files + shared.files}
    assert {modes[f.path] for f in private.files} == {0o600}
    assert {modes[f.path] for f in shared.files} == {0o644}


def test_parquet_as_readers_and_rules_want_it(folder: TableFolder) -> None:
    """zstd; a dictionary on all but the metadata; bounds of run id and sequence alone."""
    [file] = land(folder, [[entry(n, n) for n in range(50)]]).files
    group = pq.ParquetFile(folder.open(file.path)).metadata.row_group(0)
    columns = [group.column(n) for n in range(group.num_columns)]
    assert len(columns) == 20
    assert {column.compression for column in columns} == {"ZSTD"}
    assert [c.path_in_schema for c in columns if c.is_stats_set] == ["runId", "sequence"]
    assert [c.path_in_schema for c in columns if not c.has_dictionary_page] == ["metadata"]


def test_an_error_in_the_block_leaves_no_file(folder: TableFolder) -> None:
    """Open and finished files both go when the run ends before ``finish``."""

    def run() -> None:
        with Landing(folder, run_id=4, read_at=READ_AT, rows_per_group=2, rows_per_file=2) as landing:
            landing.add([entry(n, n) for n in range(7)])
            assert len(names(folder)) == 3
            raise KeyError("the feed broke off")

    with pytest.raises(KeyError, match="broke off"):
        run()
    assert names(folder) == set()


def test_leaving_the_block_without_finish_leaves_no_file(folder: TableFolder) -> None:
    """What was not finished cannot be committed, so nobody would remove it later."""
    with Landing(folder, run_id=4, read_at=READ_AT, rows_per_group=1) as landing:
        landing.add([entry(1, 1)])
        assert len(names(folder)) == 1
    assert names(folder) == set()


def test_finished_files_outlive_a_later_error(folder: TableFolder) -> None:
    """After ``finish`` a commit may be under way, so an error no longer removes the files."""

    def run() -> None:
        with Landing(folder, run_id=4, read_at=READ_AT) as landing:
            landing.add([entry(1, 1)])
            landing.finish(END)
            raise KeyError("later")

    with pytest.raises(KeyError, match="later"):
        run()
    assert len(names(folder)) == 1


def _full_after(limit: int) -> Callable[[TableFolder, str], Any]:
    """A ``TableFolder.create`` whose file takes ``limit`` bytes and then fails as a full disk does."""
    real = TableFolder.create

    class Full:
        def __init__(self, inner: Any) -> None:
            self.inner, self.left = inner, limit

        def write(self, data: Any) -> Any:
            self.left -= len(data)
            if self.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.inner.write(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    return lambda self, name: Full(real(self, name))


@pytest.mark.parametrize("limit", [0, 100, 3_000])
def test_a_full_disk_is_named_and_leaves_no_file(
    folder: TableFolder, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    """Wherever the disk is full: StorageError in one line without a path, and the space is given back."""
    monkeypatch.setattr(TableFolder, "create", _full_after(limit))
    pages = [[entry(n, n, size=2_000) for n in range(k, k + 10)] for k in range(0, 100, 10)]
    with pytest.raises(StorageError, match=r"^change: the storage is full; free space and run again$"):
        land(folder, pages, rows_per_group=10)
    assert names(folder) == set()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """A folder that vanished is a storage error too, not a stack trace."""
    with pytest.raises(StorageError, match=r"^change: the storage failed \(ENOENT\)"):
        land(local_folder(str(tmp_path / "gone")), [[entry(1, 1)]])


def test_landing_works_on_any_fsspec_filesystem() -> None:
    """The seam for object stores: nothing but fsspec's own calls is needed."""
    filesystem = MemoryFileSystem()
    filesystem.mkdirs("/lake/change", exist_ok=True)
    folder = TableFolder(filesystem, "/lake/change")
    landed = land(folder, [[entry(1, 1), entry(2, END), entry(3, 3)]])
    assert sorted(rows_in(folder, landed)) == [(1, 1), (3, 3)]
    assert [Path(name).name for name in filesystem.ls("/lake/change", detail=False)] == [landed.files[0].path]


def test_modification_time_is_that_of_the_reading(folder: TableFolder) -> None:
    """Milliseconds since 1970 of ``read_at``: no hidden clock."""
    assert land(folder, [[entry(1, 1)]]).files[0].modified_ms == 1_772_352_000_000


def test_big_pages_are_taken_in_slices() -> None:
    """A page of many MB is not made into one batch: slices hold at most the bound, but for single big entries."""
    sizes = [10, 10, 980, 10, 2_000, 10]
    page = [entry(n, n, metadata=msgspec.Raw(b"x" * size)) for n, size in enumerate(sizes)]
    slices = [[e.sequence for e in part] for part in files._slices(page, 100, 1_000)]
    assert slices == [[0, 1, 2], [3], [4], [5]]
    assert [[e.sequence for e in part] for part in files._slices(page, 4, 10**9)] == [[0, 1, 2, 3], [4, 5]]
