"""The tables of a lake at one moment: what they answer before and after a refresh."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from deltalake import DeltaTable

from dicom_etl.core.errors import DataError
from dicom_etl.core.settings.load import load_settings
from dicom_etl.lake import ledger
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.open import init_lake, lake_at, make_lake, make_private_tables
from dicom_etl.lake.paths import LakePaths, lake_paths
from dicom_etl.lake.snapshot import LakeSnapshot

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def run_row(run_id: int) -> Run:
    return Run(run_id=run_id, verb="maintain", status="succeeded", started_at=NOW, finished_at=NOW)


@pytest.fixture
def where(tmp_path: Path) -> LakePaths:
    return lake_paths(load_settings(None, [f"lake.root={tmp_path / 'lake'}"], {}, tmp_path))


@pytest.fixture
def snapshot(where: LakePaths) -> LakeSnapshot:
    init_lake(where, "localhost")
    return lake_at(where)


def test_a_snapshot_answers_as_of_its_opening_until_it_is_refreshed(snapshot: LakeSnapshot, where: LakePaths) -> None:
    assert [snapshot.has(name) for name in ("run", "change", "rejected", "instance")] == [True, True, True, False]
    lake_at(where).record(run_row(7))
    assert (snapshot.runs(), snapshot.txn_version("run"), snapshot.version("run")) == ([], 0, 0)
    snapshot.refresh("change")
    assert snapshot.version("run") == 0, "a table that was not named stays"
    snapshot.refresh()
    assert ([run.run_id for run in snapshot.runs()], snapshot.txn_version("run"), snapshot.version("run")) == (
        [7],
        7,
        1,
    )


def test_a_snapshot_commits_to_the_ledger_as_it_is_now(snapshot: LakeSnapshot, where: LakePaths) -> None:
    lake_at(where).record(run_row(7))
    snapshot.record(run_row(8))
    assert [run.run_id for run in lake_at(where).runs()] == [7, 8]


def test_a_table_that_was_made_since_is_opened_by_a_refresh(where: LakePaths) -> None:
    snapshot = make_lake(where, "localhost")
    make_private_tables(lake_at(where))
    assert not snapshot.has("change")
    assert snapshot.refresh("change").has("change")


def test_a_table_that_vanished_since_is_missing_after_a_refresh(snapshot: LakeSnapshot, where: LakePaths) -> None:
    """delta-rs says nothing when it refreshes such a table: that is why its log is looked for."""
    change = snapshot.table("change")
    shutil.rmtree(where.change)
    change.update_incremental()
    assert change.version() == 0, "broken: delta-rs alone"
    snapshot.refresh("change")
    assert not snapshot.has("change")
    with pytest.raises(DataError, match="no run has finished here yet"):
        snapshot.table("change")
    assert snapshot.txn_version("change") == 0


def test_the_files_of_the_ledger_are_read_once_for_each_version(
    snapshot: LakeSnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, read = ledger.runs, []

    def runs(table: DeltaTable) -> list[Run]:
        read.append(table.version())
        return real(table)

    monkeypatch.setattr(ledger, "runs", runs)
    snapshot.runs().append(run_row(1))
    assert snapshot.runs() == [], "a caller's list is its own"
    snapshot.record(run_row(7))
    snapshot.refresh("run")
    assert [run.run_id for run in (*snapshot.runs(), *snapshot.runs())] == [7, 7]
    assert read == [0, 1]
