"""Run by an Airflow's own Python: drive.py FOLDER prints what that Airflow makes of the DAG files in FOLDER, as JSON;
drive.py FOLDER DAG DATE runs the DAG once with one retry, without a pause, and prints how its run ended."""

from __future__ import annotations

import inspect
import json
import sys
from datetime import datetime, timedelta
from typing import Any

try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:
    from airflow.models import DagBag


def described(dag: Any) -> dict[str, Any]:
    """What a scheduler decides by."""
    task = next(dag.task_dict[name] for name in ("maintain", "verify", "sync") if name in dag.task_dict)
    return {
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "schedule": dag.timetable.summary if hasattr(dag.timetable, "summary") else str(dag.timetable),
        "tasks": sorted(dag.task_dict),
        "retries": task.retries,
        "retry_minutes": task.retry_delay.total_seconds() / 60,
        "limit_hours": task.execution_timeout.total_seconds() / 3600,
        "depends_on_past": task.depends_on_past,
        "command": task.bash_command,
    }


def run(dag: Any, moment: datetime) -> str:
    """The state in which a run of the DAG for that moment ends; every task has one retry, at once."""
    for task in dag.task_dict.values():
        task.retries, task.retry_delay = min(task.retries, 1), timedelta(0)
    names = inspect.signature(dag.test).parameters
    return str(dag.test(**{"logical_date" if "logical_date" in names else "execution_date": moment}).state)


def main(folder: str, dag_id: str = "", date: str = "") -> None:
    # As the DAG processor and the workers do: dicom_etl_task.py stands there.
    sys.path.append(folder)
    bag = DagBag(dag_folder=folder)
    if dag_id:
        answer: Any = {"state": run(bag.dags[dag_id], datetime.fromisoformat(date))}
    else:
        errors = {path.rsplit("/", 1)[-1]: text.strip().splitlines()[-1] for path, text in bag.import_errors.items()}
        answer = {"errors": errors, "dags": {name: described(dag) for name, dag in bag.dags.items()}}
    # Airflow writes to standard output as well: the answer is the last line.
    print("\n" + json.dumps(answer))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
