"""The numbers that runs have landed: of the runs that are asked for, from a number on, and the one before."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path

import pytest
from deltalake import DeltaTable

from dicom_etl import deltalog
from dicom_etl.entry import Entry
from dicom_etl.landing import CHANGE_PROPERTIES, Landing, change_schema, commit_change
from dicom_etl.landing import numbers as numbers_module
from dicom_etl.landing.numbers import lowest_later_than, numbers_from

READ_AT = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)
Row = tuple[int, int]  # sequence, ticks


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "change")
    deltalog.create_table(path, change_schema(), name="change", properties=CHANGE_PROPERTIES, private=True)
    return path


def newest(path: str) -> DeltaTable:
    table = deltalog.open_table(path)
    assert table is not None
    return table


def entry(sequence: int, ticks: int) -> Entry:
    return Entry(sequence=sequence, timestamp="", action="Delete", state="Deleted", ticks=ticks)


def land(path: str, run_id: int, *rows: Row, end: int = 10**6) -> None:
    folder = deltalog.local_folder(path, private=True)
    with Landing(folder, run_id=run_id, read_at=READ_AT, rows_per_group=2, rows_per_file=4) as landing:
        landing.add([entry(*row) for row in rows])
        landed = landing.finish(end)
    commit_change(newest(path), landed, app_id="a/change", run_id=run_id, details={})


def from_(path: str, runs: set[int], lowest: int | None) -> list[Row]:
    rows = numbers_from(newest(path), runs, lowest)
    assert rows.column_names == ["sequence", "timestampTicks"]
    return sorted(zip(*(column.to_pylist() for column in rows.columns), strict=True))


def test_a_landing_tells_its_numbers(path: str) -> None:
    """Each sequence once with its time, before the end that was asked for; and more can be landed afterwards."""
    with Landing(deltalog.local_folder(path), run_id=1, read_at=READ_AT) as landing:
        assert landing.numbers(100).num_rows == 0
        landing.add([entry(5, 50), entry(7, 100), entry(6, 99), entry(5, 50)])
        rows = landing.numbers(100)
        landing.add([entry(8, 60)])
        assert rows.to_pylist() == [
            {"sequence": 5, "timestampTicks": 50},
            {"sequence": 6, "timestampTicks": 99},
        ]
        assert landing.numbers(100)["sequence"].to_pylist() == [5, 6, 8]


def test_the_lowest_later_number(path: str) -> None:
    """Of the runs that are asked for, strictly later than the instant; None when there is none."""
    land(path, 1, (1, 10), (2, 20), (3, 30))
    land(path, 2, (4, 15), (5, 40))
    land(path, 4, (6, 50))

    assert lowest_later_than(newest(path), [1, 2, 4], 19) == 2
    assert lowest_later_than(newest(path), [1, 2, 4], 20) == 3
    assert lowest_later_than(newest(path), [2, 4], 0) == 4
    assert lowest_later_than(newest(path), [2], 40) is None
    assert lowest_later_than(newest(path), [3], 0) is None
    assert lowest_later_than(newest(path), [], 0) is None


@pytest.mark.parametrize(
    ("runs", "lowest", "expected"),
    [
        ({1, 2, 3}, 6, [(5, 50), (6, 60), (9, 90)]),
        ({1, 2, 3}, 5, [(2, 20), (5, 50), (6, 60), (9, 90)]),
        ({1, 2, 3}, 1, [(1, 10), (2, 20), (5, 50), (6, 60), (9, 90)]),
        ({1, 2, 3}, 100, [(9, 90)]),
        ({1, 2, 3}, None, [(9, 90)]),
        ({1, 3}, 9, [(2, 20), (9, 90)]),
        ({2}, 9, [(6, 60)]),
        ({2}, None, [(6, 60)]),
        ({1}, None, [(2, 20)]),
        (set(), None, []),
        (set(), 1, []),
    ],
)
def test_numbers_from_the_lowest_on(path: str, runs: set[int], lowest: int | None, expected: list[Row]) -> None:
    """What other runs landed, which may have died before they merged it, is not known."""
    land(path, 1, (1, 10), (2, 20))
    land(path, 2, (5, 50), (6, 60))
    land(path, 3, (9, 90))

    assert from_(path, runs, lowest) == expected


def test_an_empty_table_has_no_numbers(path: str) -> None:
    """A new lake."""
    assert from_(path, {1}, None) == []
    assert from_(path, {1}, 5) == []


def test_numbers_in_files_that_lie_across_each_other(path: str) -> None:
    """Against a list in memory: random files, runs that count and runs that do not, each bound and number."""
    rows = random.Random(5)
    for _ in range(12):
        numbers = rows.sample(range(1, 60), 30)
        table = path + f"-{_}"
        deltalog.create_table(table, change_schema(), name="change", properties=CHANGE_PROPERTIES, private=True)
        landed: list[tuple[int, int]] = []
        for run_id in range(1, 5):
            own = [numbers.pop() for _ in range(rows.randrange(1, 7))]
            land(table, run_id, *((number, number) for number in own))
            landed += [(number, run_id) for number in own]
        counts = {1, 3}
        known = sorted(number for number, run_id in landed if run_id in counts)
        for lowest in (*range(0, 61, 7), None):
            bound = 10**6 if lowest is None else lowest
            below = [number for number in known if number < bound][-1:]
            expected = [*below, *(number for number in known if number >= bound)]
            assert [number for number, _ in from_(table, counts, lowest)] == expected


def test_few_files_are_opened(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long history only the files from the number on, and one before."""
    for run_id in range(1, 40):
        land(path, run_id, (run_id, run_id))
    table = newest(path)
    asked = []

    def counted(change: DeltaTable, columns: list[str], only: object) -> object:
        dataset = change.to_pyarrow_dataset()
        asked.append(len(list(dataset.get_fragments(filter=only))))
        return deltalog.read_rows(change, columns, only)

    monkeypatch.setattr(numbers_module, "read_rows", counted)
    assert lowest_later_than(table, range(35, 40), 36) == 37
    assert sorted(numbers_from(table, range(1, 40), 37)["sequence"].to_pylist()) == [36, 37, 38, 39]
    assert asked == [5, 1, 3]
