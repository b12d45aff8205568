"""Airflow 3: one sync for each hour of the feed, oldest first, one at a time; and maintenance once a day.

Copy this file into the folder of DAGs. The workers need dicom-etl at PROGRAM and its settings at /etc/dicom-etl.toml.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.timetables.trigger import CronTriggerTimetable

PROGRAM = os.environ.get("DICOM_ETL_PROGRAM", "/opt/dicom-etl/.venv/bin/dicom-etl")
SYNC = (
    "sync --config /etc/dicom-etl.toml --log-format json"
    " --start {{ data_interval_start | ts }} --end {{ data_interval_end | ts }}"
)
MAINTAIN = "maintain --config /etc/dicom-etl.toml --log-format json"

# 74: the storage; 75: throttled, unavailable, another writer; 130 and 143: interrupted, as by a worker that stops.
WORTH_TRYING_AGAIN = (74, 75, 130, 143)
RETRIES = {"retries": 4, "retry_delay": timedelta(minutes=10)}
# The first window of the schedule. Load what is older by one `dicom-etl sync`, not by thousands of runs.
START = datetime(2026, 1, 1, tzinfo=UTC)


class DicomEtl(BashOperator):
    """A command of dicom-etl; it is tried again only when its exit code says that waiting may help."""

    def execute(self, context: Any) -> Any:
        try:
            return super().execute(context)
        except AirflowException as error:
            process = self.subprocess_hook.sub_process
            if process is None or process.returncode < 0 or process.returncode in WORTH_TRYING_AGAIN:
                raise
            raise AirflowFailException(f"dicom-etl ended with {process.returncode}: not tried again") from error


with DAG(
    dag_id="dicom_etl",
    # Not "@hourly": in Airflow 3 that has no interval, its start and end are the same.
    schedule=CronDataIntervalTimetable("@hourly", timezone="UTC"),
    start_date=START,
    catchup=True,
    max_active_runs=1,
    default_args=RETRIES,
    tags=["dicom"],
):
    # Rows become visible late, so a window is read when it has been over for 15 minutes. Old windows do not wait.
    delay = TimeDeltaSensor(task_id="delay", delta=timedelta(minutes=15), mode="reschedule", poke_interval=60)
    sync = DicomEtl(task_id="sync", bash_command=f"{PROGRAM} {SYNC}")
    delay >> sync

with DAG(
    dag_id="dicom_etl_maintain",
    schedule=CronTriggerTimetable("5 3 * * *", timezone="UTC"),
    start_date=START,
    catchup=False,
    max_active_runs=1,
    default_args=RETRIES,
    tags=["dicom"],
):
    DicomEtl(task_id="maintain", bash_command=f"{PROGRAM} {MAINTAIN}")
