"""The ledger: every column, who counts as coverage, and the fence of its own commits."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from dicom_etl.core.errors import AnotherWriter, DataError, Superseded
from dicom_etl.core.timerange import Window, parse_instant
from dicom_etl.lake.delta.table import open_table, properties
from dicom_etl.lake.lake_id import LakeIdentity, check_identity
from dicom_etl.lake.ledger import Run, covered, create_ledger, last_succeeded, record, runs

LAKE = LakeIdentity(uuid.UUID("6f1f8a52-3a52-4c8e-9f0e-4f1f0f6b7f11"), "localhost")

WHOLE = Run(
    run_id=12,
    verb="sync",
    status="succeeded",
    window_start=parse_instant("2026-03-29T00:00:00.1234561Z"),
    window_end=parse_instant("2026-03-29T01:00:00.7654329Z"),
    covered_until=parse_instant("2026-03-29T00:45:00.9999999Z"),
    started_at=datetime(2026, 3, 29, 1, 0, 1, 5, tzinfo=UTC),
    finished_at=datetime(2026, 3, 29, 1, 0, 9, 250000, tzinfo=UTC),
    entries_read=21,
    inserted=6,
    updated=5,
    deleted=4,
    superseded=3,
    rejected=3,
    repeated=2,
    pages=1,
    retries=7,
    start_seconds=4.5,
    fetch_seconds=1.25,
    land_seconds=0.5,
    merge_seconds=2.75,
    rollup_seconds=3.5,
    change_version=31,
    instance_version=32,
    series_version=33,
    study_version=34,
    writer_version="0.1.0",
    host="etl-1",
    settings_digest="0123456789ab",
    error_class="ServiceUnavailable",
)

# The columns of docs/tables.md, one by one; times are microseconds, narrowed inwards.
COLUMNS: list[tuple[str, str, Any]] = [
    ("runId", "int64", 12),
    ("verb", "string", "sync"),
    ("status", "string", "succeeded"),
    ("windowStart", "timestamp[us, tz=UTC]", datetime(2026, 3, 29, 0, 0, 0, 123457, tzinfo=UTC)),
    ("windowEnd", "timestamp[us, tz=UTC]", datetime(2026, 3, 29, 1, 0, 0, 765432, tzinfo=UTC)),
    ("coveredUntil", "timestamp[us, tz=UTC]", datetime(2026, 3, 29, 0, 45, 0, 999999, tzinfo=UTC)),
    ("startedAt", "timestamp[us, tz=UTC]", datetime(2026, 3, 29, 1, 0, 1, 5, tzinfo=UTC)),
    ("finishedAt", "timestamp[us, tz=UTC]", datetime(2026, 3, 29, 1, 0, 9, 250000, tzinfo=UTC)),
    ("entriesRead", "int64", 21),
    ("inserted", "int64", 6),
    ("updated", "int64", 5),
    ("deleted", "int64", 4),
    ("superseded", "int64", 3),
    ("rejected", "int64", 3),
    ("repeated", "int64", 2),
    ("pages", "int64", 1),
    ("retries", "int64", 7),
    ("startSeconds", "double", 4.5),
    ("fetchSeconds", "double", 1.25),
    ("landSeconds", "double", 0.5),
    ("mergeSeconds", "double", 2.75),
    ("rollupSeconds", "double", 3.5),
    ("changeVersion", "int64", 31),
    ("instanceVersion", "int64", 32),
    ("seriesVersion", "int64", 33),
    ("studyVersion", "int64", 34),
    ("writerVersion", "string", "0.1.0"),
    ("host", "string", "etl-1"),
    ("settingsDigest", "string", "0123456789ab"),
    ("errorClass", "string", "ServiceUnavailable"),
]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "run")


def reopened(path: str) -> DeltaTable:
    table = open_table(path)
    assert table is not None
    return table


def plain(run_id: int, start: int, until: int, **changes: Any) -> Run:
    """A run over [start, until), in ticks."""
    row = dataclasses.replace(WHOLE, run_id=run_id, window_start=start, window_end=until, covered_until=until)
    return dataclasses.replace(row, **changes)


def test_the_table_has_the_columns_of_the_design_in_its_order(path: str) -> None:
    """Read back by pyarrow and not by us."""
    record(create_ledger(path, LAKE), WHOLE, LAKE)

    (file,) = reopened(path).file_uris()
    written = pq.read_table(file)
    assert [(f.name, str(f.type)) for f in written.schema] == [(name, kind) for name, kind, _ in COLUMNS]
    assert written.to_pylist() == [{name: value for name, _, value in COLUMNS}]
    fields = json.loads(reopened(path).schema().to_json())["fields"]
    kinds = {"int64": "long", "string": "string", "double": "double", "timestamp[us, tz=UTC]": "timestamp"}
    assert [(f["name"], f["type"]) for f in fields] == [(name, kinds[kind]) for name, kind, _ in COLUMNS]


def test_a_run_comes_back_as_it_was_with_times_in_microseconds(path: str) -> None:
    """What has no value is null, and comes back as None."""
    table = create_ledger(path, LAKE)
    bare = Run(run_id=3, verb="maintain", status="failed", started_at=WHOLE.started_at, finished_at=WHOLE.finished_at)
    assert record(table, bare, LAKE) == 1
    assert record(reopened(path), WHOLE, LAKE) == 2

    assert runs(reopened(path)) == [
        bare,
        dataclasses.replace(
            WHOLE,
            window_start=parse_instant("2026-03-29T00:00:00.123457Z"),
            window_end=parse_instant("2026-03-29T01:00:00.765432Z"),
            covered_until=parse_instant("2026-03-29T00:45:00.999999Z"),
        ),
    ]


def test_a_new_ledger_is_empty_and_says_whose_lake_it_is(path: str) -> None:
    """Its properties are the identity; statistics hold the id and nothing else."""
    create_ledger(path, LAKE)

    assert runs(reopened(path)) == []
    stored = properties(reopened(path))
    assert check_identity(stored, "localhost") == LAKE
    assert stored["delta.dataSkippingStatsColumns"] == "runId"


def test_a_ledger_is_made_once(path: str) -> None:
    """The second to make it learns that somebody else did."""
    create_ledger(path, LAKE)

    with pytest.raises(AnotherWriter, match=r"^run: "):
        create_ledger(path, LAKE)


@pytest.mark.parametrize("late", [11, 12])
def test_a_run_that_is_not_the_newest_cannot_write_its_row(path: str, late: int) -> None:
    """The fence of the ledger itself: coverage of a superseded run is never recorded, nor a row twice."""
    record(create_ledger(path, LAKE), WHOLE, LAKE)

    with pytest.raises(Superseded, match=f"run {late} may not write"):
        record(reopened(path), dataclasses.replace(WHOLE, run_id=late), LAKE)
    assert [run.run_id for run in runs(reopened(path))] == [12]


def test_a_run_that_holds_an_old_snapshot_cannot_write_its_row(path: str) -> None:
    """Somebody wrote since it looked: also a lower id would not have been seen."""
    stale = create_ledger(path, LAKE)
    record(reopened(path), WHOLE, LAKE)

    with pytest.raises(Superseded):
        record(stale, dataclasses.replace(WHOLE, run_id=11), LAKE)
    assert [run.run_id for run in runs(reopened(path))] == [12]


def test_the_marker_of_the_ledger_is_the_run(path: str) -> None:
    """Under the lake's own name, so that two lakes cannot share the table."""
    record(create_ledger(path, LAKE), WHOLE, LAKE)

    assert reopened(path).transaction_version("6f1f8a52-3a52-4c8e-9f0e-4f1f0f6b7f11/run") == 12


def test_runs_come_in_the_order_of_their_ids(path: str) -> None:
    """Whatever the order of the files."""
    table = create_ledger(path, LAKE)
    for run_id in (1, 2, 10, 11):
        record(table, dataclasses.replace(WHOLE, run_id=run_id), LAKE)
        table = reopened(path)

    assert [run.run_id for run in runs(table)] == [1, 2, 10, 11]


def test_coverage_is_the_union_of_succeeded_runs_that_read() -> None:
    """Failed and superseded runs cover nothing, nor do verbs that do not read the feed."""
    history = [
        plain(1, 0, 100),
        plain(2, 100, 200),
        plain(3, 300, 400, verb="repair"),
        plain(4, 200, 300, status="failed"),
        plain(5, 200, 300, status="superseded"),
        plain(6, 200, 300, verb="maintain"),
        plain(7, 500, 600, covered_until=500),
        plain(8, 500, 600, covered_until=None),
        plain(9, 500, 600, window_start=None),
    ]

    assert covered(history) == [Window(0, 200), Window(300, 400)]
    assert covered([]) == []


@pytest.mark.parametrize(
    ("start", "until", "expected"),
    [
        (10, 40, [(10, 40)]),
        (11, 49, [(20, 40)]),
        (19, 41, [(20, 40)]),
        (11, 20, []),
        (11, 29, []),
        (11, 15, []),
    ],
)
def test_coverage_is_narrowed_to_whole_microseconds(start: int, until: int, expected: list[tuple[int, int]]) -> None:
    """What the table can say was covered must have been; before and after the round trip the same."""
    run = plain(1, start, until)
    windows = [Window(*pair) for pair in expected]

    assert covered([run]) == windows
    assert covered([Run.from_row(run.as_row())]) == windows


def test_the_last_succeeded_run_is_the_one_with_the_highest_id() -> None:
    """Not the last in time or order; none when none succeeded."""
    history = [plain(2, 0, 10), plain(7, 0, 10), plain(9, 0, 10, status="failed"), plain(5, 0, 10)]

    found = last_succeeded(history)

    assert found is not None
    assert found.run_id == 7
    assert last_succeeded(history[2:3]) is None


def test_columns_of_a_newer_version_are_left_out(path: str) -> None:
    """An older program reads a ledger that a newer one has extended."""
    record(create_ledger(path, LAKE), WHOLE, LAKE)
    wider = pa.Table.from_pylist(
        [{"runId": 13, "extra": "x"}], pa.schema([("runId", pa.int64()), ("extra", pa.string())])
    )
    write_deltalake(path, wider, mode="append", schema_mode="merge")

    table = reopened(path)
    assert "extra" in [field.name for field in table.schema().fields]
    assert Run.from_row({name: value for name, _, value in COLUMNS} | {"extra": "x"}).run_id == 12


def test_a_table_of_another_schema_is_refused(path: str) -> None:
    """65, in one line, without the engine's own text."""
    write_deltalake(path, pa.table({"runId": [1], "patientName": ["CANARY"]}))

    with pytest.raises(DataError, match=r"^run: .*restore it from a backup") as caught:
        runs(reopened(path))
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize("damage", ["missing", "cut", "empty"])
def test_a_damaged_file_is_refused(path: str, damage: str) -> None:
    """65: a ledger that is only partly read would make windows due again, or look covered."""
    record(create_ledger(path, LAKE), WHOLE, LAKE)
    (file,) = Path(path).glob("*.parquet")
    if damage == "missing":
        file.unlink()
    else:
        os.truncate(file, 100 if damage == "cut" else 0)

    with pytest.raises(DataError, match=r"^run: .*restore it from a backup"):
        runs(reopened(path))


def test_the_log_of_the_ledger_holds_ids_and_counts_only(path: str) -> None:
    """Neither host nor times are needed there; the details of a commit are the id, the verb, the status."""
    record(create_ledger(path, LAKE), WHOLE, LAKE)

    (commit,) = (
        line["commitInfo"]
        for line in map(json.loads, (Path(path) / f"_delta_log/{1:020d}.json").read_text().splitlines())
        if "commitInfo" in line
    )
    assert {key: commit[key] for key in ("runId", "verb", "status")} == {
        "runId": "12",
        "verb": "sync",
        "status": "succeeded",
    }


def test_reading_the_ledger_ends_the_process_in_good_order(path: str) -> None:
    """Arrow's threads must not be in Python when the interpreter ends: delta-rs's filesystem aborts with 134."""
    record(create_ledger(path, LAKE), WHOLE, LAKE)
    script = (
        "import sys; from dicom_etl.lake import ledger; from dicom_etl.lake.delta.table import open_table\n"
        "assert len(ledger.runs(open_table(sys.argv[1]))) == 1"
    )

    ends = [subprocess.run([sys.executable, "-c", script, path], check=False).returncode for _ in range(3)]

    assert ends == [0, 0, 0]


def test_the_ledger_needs_no_spark() -> None:
    """`status` answers in well under a second, without a JVM."""
    script = (
        "import sys; import dicom_etl.lake.claims.claim, dicom_etl.lake.ledger, dicom_etl.lake.coverage\n"
        "sys.exit('pyspark' in sys.modules or 'py4j' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
