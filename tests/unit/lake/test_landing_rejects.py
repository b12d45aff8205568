"""The table ``rejected``: appended only, the newest row of a sequence counts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from dicom_etl.core.entry import InvalidEntry
from dicom_etl.core.errors import Superseded
from dicom_etl.lake.delta.table import create_table, open_table, read_rows
from dicom_etl.lake.rejected import (
    REJECTED_PROPERTIES,
    Reject,
    append_closed,
    append_rejects,
    closed_among,
    closed_rejects,
    new_rejects,
    read_history,
    read_newest,
    read_open,
    rejected_schema,
)

APP = "5f0c/rejected"
AT = datetime(2026, 3, 1, 13, 0, 0, 250, tzinfo=timezone(timedelta(hours=5)))
BAD = InvalidEntry(
    sequence=17, ticks=16693658530243479, partition="p", study="1.2", series=None, sop="1.2.3", reason="uid-missing"
)
OTHER = InvalidEntry(sequence=5, ticks=0, partition="p", study="1", series="2", sop="3", reason="metadata-missing")


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "rejected")
    create_table(path, rejected_schema(), name="rejected", properties=REJECTED_PROPERTIES, private=True)
    return path


def newest(path: str) -> DeltaTable:
    table = open_table(path)
    assert table is not None
    return table


def append(path: str, run_id: int, rejects: list[Reject]) -> int:
    return append_rejects(newest(path), rejects, app_id=APP, run_id=run_id, details={"runId": str(run_id)})


def test_columns_of_rejected() -> None:
    """The columns of docs/tables.md, in their order."""
    text, time = pa.string(), pa.timestamp("us", tz="UTC")
    assert rejected_schema() == pa.schema(
        {
            "runId": pa.int64(),
            "sequence": pa.int64(),
            "timestamp": time,
            "partitionName": text,
            "studyInstanceUid": text,
            "seriesInstanceUid": text,
            "sopInstanceUid": text,
            "reason": text,
            "status": text,
            "recordedAt": time,
        }
    )


def test_a_new_reject_is_open(path: str) -> None:
    """What was unusable comes back as an open reject, by sequence, its time cut to microseconds."""
    append(path, 3, new_rejects([BAD, OTHER], run_id=3, recorded_at=AT))
    assert read_open(newest(path)) == [
        Reject(3, 5, datetime(1970, 1, 1, tzinfo=UTC), "p", "1", "2", "3", "metadata-missing", "open", AT),
        Reject(
            3,
            17,
            datetime(2022, 11, 25, 8, 44, 13, 24347, tzinfo=UTC),
            "p",
            "1.2",
            None,
            "1.2.3",
            "uid-missing",
            "open",
            AT,
        ),
    ]


def test_a_resolution_closes_a_reject(path: str) -> None:
    """The later run's row counts; the earlier one stays in the table as history."""
    append(path, 3, new_rejects([BAD, OTHER], run_id=3, recorded_at=AT))
    append(path, 4, closed_rejects(read_open(newest(path))[:1], run_id=4, recorded_at=AT))
    assert [reject.sequence for reject in read_open(newest(path))] == [17]
    assert [(r.sequence, r.status, r.run_id) for r in read_newest(newest(path))] == [
        (5, "resolved", 4),
        (17, "open", 3),
    ]
    assert read_rows(newest(path), ["sequence"]).num_rows == 3


def test_a_reject_can_open_again(path: str) -> None:
    """Resolved by one run and bad again in a later one: open."""
    for run_id, status in ((3, "open"), (4, "resolved"), (5, "open")):
        rejects = new_rejects([BAD], run_id=run_id, recorded_at=AT)
        if status == "resolved":
            rejects = closed_rejects(rejects, run_id=run_id, recorded_at=AT)
        append(path, run_id, rejects)
    assert [(r.run_id, r.status) for r in read_open(newest(path))] == [(5, "open")]


def test_the_run_id_counts_before_the_clock(path: str) -> None:
    """A clock that jumped back does not bring an old row to life."""
    append(path, 3, new_rejects([BAD], run_id=3, recorded_at=AT))
    append(
        path,
        4,
        closed_rejects(new_rejects([BAD], run_id=4, recorded_at=AT), run_id=4, recorded_at=AT - timedelta(days=1)),
    )
    assert read_open(newest(path)) == []
    assert [r.status for r in read_newest(newest(path))] == ["resolved"]


def test_within_a_run_time_counts_and_then_the_order(path: str) -> None:
    """Two rows of one sequence in one run: the later by recordedAt, then the one written last."""
    first = new_rejects([BAD, OTHER], run_id=3, recorded_at=AT)
    later = closed_rejects(first[:1], run_id=3, recorded_at=AT - timedelta(seconds=1), status="void")
    same = closed_rejects(first[1:], run_id=3, recorded_at=AT, status="void")
    append(path, 3, [*first, *later, *same])
    assert [(r.sequence, r.status) for r in read_newest(newest(path))] == [(5, "void"), (17, "open")]


def test_void_is_not_open(path: str) -> None:
    """A void row is kept, and is nobody's work any more."""
    append(
        path, 3, closed_rejects(new_rejects([BAD], run_id=3, recorded_at=AT), run_id=3, recorded_at=AT, status="void")
    )
    assert read_open(newest(path)) == []
    assert [r.status for r in read_newest(newest(path))] == ["void"]


def test_nothing_to_record_commits_nothing(path: str) -> None:
    """No version, no marker."""
    assert append(path, 3, []) == 0
    assert newest(path).version() == 0


def test_a_superseded_run_records_nothing(path: str) -> None:
    """A run that was overtaken resolves no reject."""
    append(path, 4, new_rejects([BAD], run_id=4, recorded_at=AT))
    with pytest.raises(Superseded):
        append(path, 3, closed_rejects(read_open(newest(path)), run_id=3, recorded_at=AT))
    assert [r.sequence for r in read_open(newest(path))] == [17]


def test_no_uid_in_the_log(path: str) -> None:
    """Bounds of run id and sequence alone."""
    marked = InvalidEntry(17, 0, "CANARY", "CANARY", "CANARY", "CANARY", "uid-missing")
    append(path, 3, new_rejects([marked], run_id=3, recorded_at=AT))
    assert [r.study for r in read_open(newest(path))] == ["CANARY"]
    logs = list((Path(path) / "_delta_log").glob("*.json"))
    assert len(logs) == 2
    assert not any("CANARY" in log.read_text() for log in logs)


def test_a_closed_reject_keeps_the_text_of_why(path: str) -> None:
    """In a column that comes with the first text, once; what was written before and comes later has none."""
    append(path, 1, new_rejects([BAD, OTHER], run_id=1, recorded_at=AT))
    for run_id, reject in enumerate(read_open(newest(path)), start=2):
        (done,) = closed_rejects([reject], run_id=run_id, recorded_at=AT, status="void")
        append_closed(newest(path), done, f"text {run_id}", app_id=APP)
        assert (done.status, done.run_id, done.reason) == ("void", run_id, reject.reason)
    append(path, 4, new_rejects([replace(BAD, sequence=18)], run_id=4, recorded_at=AT))

    rows = read_rows(newest(path), ["runId", "sequence", "status", "why"]).to_pylist()
    assert sorted(tuple(row.values()) for row in rows if row["why"]) == [
        (2, 5, "void", "text 2"), (3, 17, "void", "text 3"),
    ]  # fmt: skip
    assert len(rows) == 5
    assert [field.name for field in newest(path).schema().fields] == [*rejected_schema().names, "why"]
    # A service that was restored gives a sequence again, at another time.
    again = replace(BAD, ticks=BAD.ticks + 10_000_000)
    assert closed_among(newest(path), [BAD, replace(OTHER, sequence=18)]) == {17}
    assert closed_among(newest(path), [again, OTHER]) == {5}
    assert [reject.sequence for reject in read_open(newest(path))] == [18]
    assert newest(path).version() == 5, "a column, and four commits of rows"
    assert {file.stat().st_mode & 0o777 for file in Path(path).rglob("*") if file.is_file()} == {0o600}


def test_the_rows_that_a_run_knew_are_those_of_it_and_of_earlier_ones(path: str) -> None:
    """Run 30 closed what run 3 had rejected: run 20 did not know of that."""
    append(path, 3, new_rejects([BAD], run_id=3, recorded_at=AT))
    append(path, 30, closed_rejects(read_open(newest(path)), run_id=30, recorded_at=AT, status="void"))
    assert [(row.run_id, row.status) for row in read_history(newest(path))] == [(3, "open"), (30, "void")]
    assert [(row.run_id, row.status) for row in read_history(newest(path), 20)] == [(3, "open")]
