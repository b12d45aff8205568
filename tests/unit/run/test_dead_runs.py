"""Runs that ended without a row in the ledger: who gets one, what it counts, and that it covers nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from dicom_etl import __version__
from dicom_etl.core.errors import DataError, Superseded
from dicom_etl.core.settings.load import load_settings
from dicom_etl.lake import ledger
from dicom_etl.lake import snapshot as snapshot_module
from dicom_etl.lake.claims.file import ClaimFile
from dicom_etl.lake.delta.table import create_table
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.open import init_lake, lake_at
from dicom_etl.lake.paths import lake_paths
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.run import dead_runs
from dicom_etl.run.dead_runs import record_dead_runs

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
LAST_BEAT = NOON + timedelta(seconds=70)
# As Spark's MERGE leaves them in the log (Delta 3.2 to 4.4): numbers as text.
THIRTEEN_DELETED = {"numTargetRowsInserted": "1", "numTargetRowsUpdated": "0", "numTargetRowsDeleted": "13"}


@pytest.fixture
def snapshot(tmp_path: Path) -> LakeSnapshot:
    """A new lake with a table ``instance`` that no run has written yet."""
    where = lake_paths(load_settings(None, [f"lake.root={tmp_path / 'lake'}"], {}, tmp_path))
    init_lake(where, "localhost")
    properties = lake_at(where).lake.identity.properties
    create_table(where.instance, pa.schema([("sequence", pa.int64())]), name="instance", properties=properties)
    return lake_at(where)


def commit(snapshot: LakeSnapshot, run_id: int | None, operation: str, metrics: dict[str, str]) -> None:
    """One commit of ``instance`` as Spark would write it; without a run's id it carries no marker."""
    version = snapshot.refresh("instance").version("instance") + 1
    lines: list[dict[str, Any]] = [
        {"commitInfo": {"timestamp": 1, "operation": operation, "operationMetrics": metrics, "operationParameters": {}}}
    ]
    if run_id is not None:
        lines.append({"txn": {"appId": snapshot.lake.app_id("instance"), "version": run_id}})
    log = Path(snapshot.lake.path("instance")) / "_delta_log" / f"{version:020d}.json"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    snapshot.refresh("instance")


def a_claim(run_id: int, *, pid: int = 4242, overtaken_by: int | None = None) -> ClaimFile:
    return ClaimFile(
        run_id=run_id,
        nonce=f"{run_id}",
        verb="sync",
        host="etl-1",
        pid=pid,
        process_started=99,
        boot_id="boot-a",
        pid_namespace="pid:[1]",
        claimed_at=NOON,
        heartbeat_at=LAST_BEAT,
        released=True,
        overtaken_by=overtaken_by,
    )


def rows(snapshot: LakeSnapshot) -> list[tuple[int, str, str | None]]:
    return [(run.run_id, run.status, run.error_class) for run in snapshot.refresh("run").runs()]


def test_a_killed_run_is_recorded_with_what_its_merge_committed(snapshot: LakeSnapshot) -> None:
    """Once: what joins files above the MERGE does not hide it, and a second look finds nothing more."""
    commit(snapshot, 2, "MERGE", THIRTEEN_DELETED)
    commit(snapshot, None, "OPTIMIZE", {"numRemovedFiles": "3"})
    claims = [a_claim(1), a_claim(2, overtaken_by=3)]
    record_dead_runs(snapshot, claims)
    assert snapshot.refresh("run").runs() == [
        Run(
            run_id=2,
            verb="sync",
            status="killed",
            started_at=NOON,
            finished_at=LAST_BEAT,
            entries_read=14,
            inserted=1,
            deleted=13,
            instance_version=1,
            writer_version=__version__,
            host="etl-1",
            error_class="Killed",
        )
    ]
    record_dead_runs(snapshot, claims)
    assert rows(snapshot) == [(2, "killed", "Killed")]


def test_a_killed_run_covers_nothing() -> None:
    """Whatever window its row had; as a row of a run that succeeded, the twin, it would."""
    killed = Run(
        run_id=2, verb="sync", status="killed", window_start=0, window_end=10**10, covered_until=10**10,
        started_at=NOON, finished_at=NOON,
    )  # fmt: skip
    assert ledger.covered([killed]) == []
    assert len(ledger.covered([replace(killed, status="succeeded")])) == 1
    assert ledger.last_succeeded([killed]) is None


def test_a_run_that_died_before_its_merge_is_recorded_with_no_counts(snapshot: LakeSnapshot) -> None:
    commit(snapshot, 1, "MERGE", THIRTEEN_DELETED)
    snapshot.record(Run(run_id=1, verb="sync", status="succeeded", started_at=NOON, finished_at=NOON))
    record_dead_runs(snapshot.refresh(), [a_claim(1), a_claim(2, overtaken_by=3)])
    (_, dead) = snapshot.refresh("run").runs()
    assert (dead.run_id, dead.status, dead.entries_read, dead.deleted, dead.instance_version) == (
        2,
        "killed",
        0,
        0,
        None,
    )


def test_a_run_that_was_begun_ahead_by_a_dead_process_gets_no_row(snapshot: LakeSnapshot) -> None:
    """Only the run that was at work; also when a crash came between its row and the next look. Other processes do."""
    claims = [a_claim(2, overtaken_by=4), a_claim(3, overtaken_by=4)]
    record_dead_runs(snapshot, claims[:1])
    record_dead_runs(snapshot.refresh(), claims)
    assert rows(snapshot) == [(2, "killed", "Killed")]
    record_dead_runs(snapshot.refresh(), [*claims, a_claim(4, pid=77, overtaken_by=5)])
    assert rows(snapshot) == [(2, "killed", "Killed"), (4, "killed", "Killed")]


def test_a_run_whose_own_row_stands_leaves_the_death_to_the_one_begun_ahead(snapshot: LakeSnapshot) -> None:
    """The process died between its row and the release of its claim."""
    snapshot.record(Run(run_id=2, verb="sync", status="succeeded", started_at=NOON, finished_at=NOON))
    record_dead_runs(snapshot.refresh(), [a_claim(2, overtaken_by=4), a_claim(3, overtaken_by=4)])
    assert rows(snapshot) == [(2, "succeeded", None), (3, "killed", "Killed")]


def test_a_run_that_merged_and_left_by_itself_without_a_row_is_recorded(snapshot: LakeSnapshot) -> None:
    """By a signal, or where the ledger could not be written; a run that merely found nothing to do is not."""
    commit(snapshot, 2, "MERGE", THIRTEEN_DELETED)
    record_dead_runs(snapshot, [a_claim(1), a_claim(2), a_claim(3)])
    assert rows(snapshot) == [(2, "killed", "Unrecorded")]


def test_a_run_that_was_taken_for_dead_and_recorded_itself_is_left_so(snapshot: LakeSnapshot) -> None:
    """It was overtaken while it was suspended; the look at the ledger came before its row."""
    early = lake_at(snapshot.lake.paths)
    snapshot.record(Run(run_id=2, verb="sync", status="superseded", started_at=NOON, finished_at=NOON))
    record_dead_runs(early, [a_claim(2, overtaken_by=3)])
    assert rows(snapshot) == [(2, "superseded", None)]


def test_commits_that_cannot_be_counted_fail_no_run(
    snapshot: LakeSnapshot, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The row stands without counts, and a line in the log says so."""
    commit(snapshot, 2, "MERGE", THIRTEEN_DELETED)

    def gone(*_: object) -> None:
        raise DataError("instance: its _delta_log cannot be read")

    monkeypatch.setattr("dicom_etl.lake.committed.history", gone)
    record_dead_runs(snapshot, [a_claim(2, overtaken_by=3)])
    assert rows(snapshot) == [(2, "killed", "Killed")]
    assert "commits not counted" in caplog.text


def test_metrics_of_another_writer_fail_no_run(snapshot: LakeSnapshot) -> None:
    """A null where a number belongs would else end each later run at the same place."""
    commit(snapshot, 2, "MERGE", THIRTEEN_DELETED | {"numTargetRowsUpdated": None})  # type: ignore[dict-item]
    record_dead_runs(snapshot, [a_claim(2, overtaken_by=3)])
    assert rows(snapshot) == [(2, "killed", "Killed")]
    assert snapshot.runs()[0].deleted == 13


def test_a_newer_row_ends_the_run_that_would_record_a_dead_one(snapshot: LakeSnapshot) -> None:
    """Run 5 was overtaken before it recorded run 2: it must not go on beside a ledger newer than its tables."""
    early = lake_at(snapshot.lake.paths)
    snapshot.record(Run(run_id=7, verb="sync", status="succeeded", started_at=NOON, finished_at=NOON))
    with pytest.raises(Superseded):
        record_dead_runs(early, [a_claim(2, overtaken_by=5)])
    assert rows(snapshot) == [(7, "succeeded", None)]


def test_a_marker_is_looked_up_once_for_each_version(snapshot: LakeSnapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """delta-rs reads every commit since the last checkpoint for it, on Azure a request each."""
    commit(snapshot, 2, "MERGE", THIRTEEN_DELETED)
    asked: list[str] = []

    def txn_version(table: DeltaTable, app_id: str) -> int:
        asked.append(app_id)
        return original(table, app_id)

    original = snapshot_module.txn_version
    monkeypatch.setattr(snapshot_module, "txn_version", txn_version)
    assert [snapshot.txn_version("instance") for _ in range(3)] == [2, 2, 2]
    assert len(asked) == 1
    commit(snapshot, 3, "MERGE", THIRTEEN_DELETED)
    assert snapshot.txn_version("instance") == 3
    assert len(asked) == 2


def test_what_joins_files_is_no_merge(snapshot: LakeSnapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin takes the newest commit, whatever it is, and counts nothing."""
    commit(snapshot, 2, "MERGE", THIRTEEN_DELETED)
    commit(snapshot, None, "OPTIMIZE", {"numRemovedFiles": "3"})
    assert dead_runs.counted(snapshot, 2, "sync")["deleted"] == 13
    monkeypatch.setattr("dicom_etl.lake.committed._NEWEST_COMMITS", 1)
    assert dead_runs.counted(snapshot, 2, "sync").get("deleted", 0) == 0


def test_the_claim_of_a_dead_run_has_times_that_utc_has() -> None:
    """Else its file does not count as one: nothing could be recorded of it."""
    assert a_claim(1).plausible
    assert not msgspec.structs.replace(a_claim(1), heartbeat_at=datetime(2026, 5, 1)).plausible  # noqa: DTZ001
