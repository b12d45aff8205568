"""The sequences that runs have landed: of the runs and the time that are asked for, from few files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from deltalake import DeltaTable

from dicom_etl.core.entry import Entry
from dicom_etl.core.timerange import Window
from dicom_etl.lake import sequences as numbers_module
from dicom_etl.lake.change_schema import CHANGE_PROPERTIES, change_schema
from dicom_etl.lake.delta.folder import local_folder
from dicom_etl.lake.delta.table import create_table, open_table, read_rows
from dicom_etl.lake.sequences import landed_sequences
from dicom_etl.landing.commit import commit_change
from dicom_etl.landing.landing import Landing

READ_AT = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
Row = tuple[int, int]  # sequence, ticks


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "change")
    create_table(path, change_schema(), name="change", properties=CHANGE_PROPERTIES, private=True)
    return path


def newest(path: str) -> DeltaTable:
    table = open_table(path)
    assert table is not None
    return table


def land(path: str, run_id: int, *rows: Row) -> None:
    with Landing(local_folder(path, private=True), run_id=run_id, read_at=READ_AT) as landing:
        landing.add([Entry(sequence, "", action="Delete", state="Deleted", ticks=ticks) for sequence, ticks in rows])
        landed = landing.finish(10**6)
    commit_change(newest(path), landed, app_id="a/change", run_id=run_id, details={})


@pytest.mark.parametrize(
    ("runs", "start", "end", "expected"),
    [
        ({1, 2, 3}, 0, 100, {1, 2, 5, 6, 9}),
        ({1, 2, 3}, 20, 60, {2, 5}),
        ({1, 3}, 0, 100, {1, 2, 9}),
        ({2}, 60, 61, {6}),
        ({4}, 0, 100, set()),
        (set(), 0, 100, set()),
    ],
)
def test_the_sequences_of_some_runs_and_a_time(
    path: str, runs: set[int], start: int, end: int, expected: set[int]
) -> None:
    """What other runs landed, which may have died before they merged it, is not known; nor is what lies beside."""
    land(path, 1, (1, 10), (2, 20))
    land(path, 2, (5, 50), (6, 60))
    land(path, 3, (9, 90), (2, 20))
    assert newest(path).to_pyarrow_table().num_rows == 6

    assert landed_sequences(newest(path), runs, Window(start, end)) == expected


def test_an_empty_table_has_none(path: str) -> None:
    """A new lake."""
    assert landed_sequences(newest(path), {1}, Window(0, 100)) == set()


def test_only_files_of_these_runs_are_opened(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long history three files; broken, with the time alone, it is all of them: the log does not bound it."""
    for run_id in range(1, 40):
        land(path, run_id, (run_id, run_id))
    opened = []

    def counted(change: DeltaTable, columns: list[str], only: object) -> object:
        opened.append(len(list(change.to_pyarrow_dataset().get_fragments(filter=only))))
        return read_rows(change, columns, only)

    monkeypatch.setattr(numbers_module, "read_rows", counted)
    assert landed_sequences(newest(path), range(35, 38), Window(36, 100)) == {36, 37}
    assert landed_sequences(newest(path), range(1, 40), Window(36, 100)) == {36, 37, 38, 39}
    assert opened == [3, 39]
