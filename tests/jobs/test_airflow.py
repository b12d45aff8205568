"""The DAG in deploy/airflow under a real Airflow 3, with a stand-in for dicom-etl that writes down how it was called.

Runs only when DICOM_ETL_AIRFLOW names the virtual environment of an Airflow 3: it is large, and no part of ours.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

VENV = os.environ.get("DICOM_ETL_AIRFLOW", "")
DAGS = Path(__file__).parents[2] / "deploy" / "airflow"

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not VENV, reason="DICOM_ETL_AIRFLOW names no virtual environment with Airflow 3"),
]


class Airflow:
    """An Airflow of its own in a folder: database, and a dicom-etl that ends with the code it is told."""

    def __init__(self, folder: Path) -> None:
        self.calls = folder / "calls"
        program = folder / "dicom-etl"
        program.write_text(f'#!/bin/sh\necho "$*" >>"{self.calls}"\nexit "${{STAND_IN_EXIT:-0}}"\n', encoding="utf-8")
        program.chmod(0o755)
        self.environment = {
            **os.environ,
            "PATH": f"{VENV}/bin:{os.environ['PATH']}",
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "DICOM_ETL_PROGRAM": str(program),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self("db", "migrate")
        self("dags", "reserialize")

    def __call__(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [f"{VENV}/bin/airflow", *words], env={**self.environment, "STAND_IN_EXIT": str(code)},
            capture_output=True, text=True, check=False, timeout=200,
        )  # fmt: skip


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Airflow:
    return Airflow(tmp_path_factory.mktemp("airflow"))


def test_airflow_imports_the_file(airflow: Airflow) -> None:
    # Airflow writes warnings to standard output as well.
    dags = json.loads(airflow("dags", "list", "--output", "json").stdout.splitlines()[-1])
    assert sorted(dag["dag_id"] for dag in dags) == ["dicom_etl", "dicom_etl_maintain"]
    assert "No data found" in airflow("dags", "list-import-errors").stdout


def test_a_run_asks_for_the_hour_that_has_ended(airflow: Airflow) -> None:
    done = airflow("dags", "test", "dicom_etl", "2026-01-31T08:00:00+00:00")
    assert done.returncode == 0, done.stdout[-2000:]
    assert airflow.calls.read_text(encoding="utf-8").splitlines()[-1] == (
        "sync --config /etc/dicom-etl.toml --log-format json"
        " --start 2026-01-31T07:00:00+00:00 --end 2026-01-31T08:00:00+00:00"
    )


@pytest.mark.parametrize(("code", "final"), [(75, False), (78, True)])
def test_only_a_code_that_waiting_may_mend_is_tried_again(airflow: Airflow, code: int, final: bool) -> None:
    """Airflow never tries a task again that failed with AirflowFailException."""
    done = airflow("tasks", "test", "dicom_etl", "sync", "2026-01-31T09:00:00+00:00", code=code)
    said = done.stdout + done.stderr
    assert f"non-zero exit code {code}" in said
    assert (f"dicom-etl ended with {code}: not tried again" in said) is final
