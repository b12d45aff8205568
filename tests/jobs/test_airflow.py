"""The DAGs in deploy/airflow under a real Airflow, with a stand-in for dicom-etl that writes down how it was called.

Runs only when DICOM_ETL_AIRFLOW names the virtual environment of an Airflow: it is large, and no part of ours. `make
test-airflow` runs this file on 2.10, 3.0, 3.1 and the newest.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

VENV = os.environ.get("DICOM_ETL_AIRFLOW", "")
DAGS = Path(__file__).parents[2] / "deploy" / "airflow"
DRIVE = Path(__file__).parents[1] / "runtimes" / "airflow" / "drive.py"

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not VENV, reason="DICOM_ETL_AIRFLOW names no virtual environment with Airflow"),
]


@dataclass(frozen=True)
class Outcome:
    """How a run of a DAG ended, the words that dicom-etl was called with, and what a person was told."""

    state: str
    calls: list[str]
    told: str


class Airflow:
    """An Airflow of its own in a folder: database, and a dicom-etl that ends with the code it is told."""

    def __init__(self, folder: Path) -> None:
        self.calls, self.told = folder / "calls", folder / "told"
        program = folder / "dicom-etl"
        program.write_text(f'#!/bin/sh\necho "$*" >>"{self.calls}"\nexit "$STAND_IN_EXIT"\n', encoding="utf-8")
        program.chmod(0o755)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "AIRFLOW"))},
            "PATH": f"{VENV}/bin:{os.environ['PATH']}",
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            # Parsing of a file has 30 s by default; machines that test may be slow.
            "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",
            "AIRFLOW_VAR_DICOM_ETL_WINDOWS_START": "2026-01-30T00:00:00Z",
            "DICOM_ETL_PROGRAM": str(program),
            "DICOM_ETL_NOTIFY": f"cat >>'{self.told}'",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self("airflow", "db", "migrate")
        self("airflow", "dags", "reserialize")

    def __call__(self, *words: str, **more: str) -> str:
        done = subprocess.run(
            words, env=self.environment | more, capture_output=True, text=True, check=False, timeout=900
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def described(self, **more: str) -> dict[str, Any]:
        return json.loads(self("python", str(DRIVE), str(DAGS), **more).splitlines()[-1])  # type: ignore[no-any-return]

    def run(self, dag: str, date: str, code: int) -> Outcome:
        for path in (self.calls, self.told):
            path.write_text("", encoding="utf-8")
        said = self("python", str(DRIVE), str(DAGS), dag, date, STAND_IN_EXIT=str(code))
        state = json.loads(said.splitlines()[-1])["state"]
        return Outcome(
            state.removeprefix("DagRunState.").lower(),
            self.calls.read_text(encoding="utf-8").splitlines(),
            self.told.read_text(encoding="utf-8"),
        )


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    return Airflow(tmp_path_factory.mktemp("airflow"))


def test_airflow_imports_the_files(airflow: Airflow) -> None:
    found = airflow.described()
    assert found["errors"] == {}
    dags = found["dags"]
    assert sorted(dags) == ["dicom_etl", "dicom_etl_maintain", "dicom_etl_verify", "dicom_etl_windows"]
    assert {name: dag["tasks"] for name, dag in dags.items()} == {
        "dicom_etl": ["sync"], "dicom_etl_maintain": ["maintain"], "dicom_etl_verify": ["verify"],
        "dicom_etl_windows": ["delay", "sync"],
    }  # fmt: skip
    assert {name: dag["catchup"] for name, dag in dags.items() if dag["catchup"]} == {"dicom_etl_windows": True}
    assert {dag["max_active_runs"] for dag in dags.values()} == {1}
    assert {dag["limit_hours"] for dag in dags.values()} == {12}
    assert {dag["retry_minutes"] for dag in dags.values()} == {10}
    assert {name: dag["retries"] for name, dag in dags.items()} == {
        "dicom_etl": 18, "dicom_etl_maintain": 80, "dicom_etl_verify": 18, "dicom_etl_windows": 18,
    }  # fmt: skip
    assert [name for name, dag in dags.items() if dag["depends_on_past"]] == ["dicom_etl_windows"]


def test_the_windows_have_no_start_that_nobody_chose(airflow: Airflow) -> None:
    """Without the Variable the file is broken and says which it wants; the default DAGs are there."""
    found = airflow.described(AIRFLOW_VAR_DICOM_ETL_WINDOWS_START="")
    assert list(found["errors"]) == ["dicom_etl_windows_dag.py"]
    assert sorted(found["dags"]) == ["dicom_etl", "dicom_etl_maintain", "dicom_etl_verify"]


def test_a_run_that_succeeds_is_a_plain_sync_and_tells_nobody(airflow: Airflow) -> None:
    assert airflow.run("dicom_etl", "2026-01-31T08:20:00+00:00", 0) == Outcome(
        "success", ["sync --config /etc/dicom-etl/config.toml --log-format json"], ""
    )


def test_a_window_is_the_hour_that_has_ended(airflow: Airflow) -> None:
    done = airflow.run("dicom_etl_windows", "2026-01-31T08:00:00+00:00", 0)
    assert done.state == "success"
    assert done.calls == [
        "sync --config /etc/dicom-etl/config.toml --log-format json"
        " --start 2026-01-31T07:00:00+00:00 --end 2026-01-31T08:00:00+00:00"
    ]


@pytest.mark.parametrize(
    ("code", "calls", "date"), [(75, 2, "2026-01-31T09:20:00+00:00"), (78, 1, "2026-01-31T10:20:00+00:00")]
)
def test_only_a_code_that_waiting_may_cure_is_tried_again_and_a_person_is_told_once(
    airflow: Airflow, code: int, calls: int, date: str
) -> None:
    """The runs here have one retry, at once."""
    done = airflow.run("dicom_etl", date, code)
    assert (done.state, len(done.calls)) == ("failed", calls)
    assert done.told.count("dicom-etl: task sync of DAG dicom_etl has failed: ") == 1
    assert str(code) in done.told
