"""The table `output`: every column, two outputs at once, and an execution that a later one has overtaken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from deltalake import DeltaTable

from dicom_etl.core.errors import DataError, Superseded
from dicom_etl.core.settings.load import load_settings
from dicom_etl.lake.lake_id import LAKE_ID
from dicom_etl.lake.open import init_lake
from dicom_etl.lake.paths import lake_paths
from dicom_etl.lake.snapshot import Lake
from dicom_etl.outputs import execution
from dicom_etl.outputs.execution import Counts, Execution, executions, made_executions, open_executions, record
from dicom_etl.outputs.failures import unrecorded_logged
from support.results import NOW

WHOLE = Execution(
    output="columns",
    execution_id=3,
    mode="compare",
    status="failed",
    from_run=4,
    to_run=9,
    started_at=NOW,
    finished_at=NOW.replace(minute=3),
    counts=Counts(21, 6, 5, 4, 3, 3),
    versions={"instance_tags": 7, "series_tags": 8},
    design_digest="0c9be1b5d2a7f3e4",
    error_class="StorageError",
    writer_version="0.1.0",
    host="etl-1",
)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return init_lake(lake_paths(load_settings(None, [f"lake.root={tmp_path / 'lake'}"], {}, tmp_path)), "localhost")[0]


def test_an_execution_comes_back_as_it_was_recorded(lake: Lake) -> None:
    assert executions(open_executions(lake)) == [], "no table yet"
    record(lake, WHOLE)
    assert executions(open_executions(lake)) == [WHOLE]
    assert list(WHOLE.as_row()) == [field.name for field in execution.SCHEMA]


def test_outputs_write_their_rows_beside_each_other(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another output commits between the opening of the table and the own commit: it is tried again."""
    other = replace(WHOLE, output="fhir", execution_id=8)
    real = execution.append_rows

    def overtaken(table: DeltaTable, *args: object, **named: object) -> int:
        monkeypatch.setattr(execution, "append_rows", real)
        record(lake, other)
        return real(table, *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(execution, "append_rows", overtaken)
    record(lake, WHOLE)
    assert executions(open_executions(lake)) == [WHOLE, other]


def test_an_execution_that_a_later_one_has_overtaken_leaves_no_row(lake: Lake) -> None:
    record(lake, replace(WHOLE, execution_id=4))
    with pytest.raises(Superseded):
        record(lake, WHOLE)
    assert [one.execution_id for one in executions(open_executions(lake))] == [4]


def test_a_failure_that_cannot_be_recorded_is_logged_and_hides_no_error(
    lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    record(lake, replace(WHOLE, execution_id=4))
    with unrecorded_logged("columns"):
        record(lake, WHOLE)
    assert [(one.message, vars(one)["output"], vars(one)["error"]) for one in caplog.records] == [
        ("failure not recorded", "columns", "Superseded")
    ]
    with pytest.raises(ZeroDivisionError), unrecorded_logged("columns"):
        raise ZeroDivisionError  # no error of ours


def test_the_table_of_another_lake_is_refused(lake: Lake) -> None:
    table = made_executions(lake)
    table.alter.set_table_properties({LAKE_ID: "6f1f8a52-3a52-4c8e-9f0e-4f1f0f6b7f11"}, raise_if_not_exists=False)
    with pytest.raises(DataError, match="belongs to another lake"):
        open_executions(lake)
