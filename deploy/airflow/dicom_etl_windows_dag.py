"""Optional, in place of the DAG `dicom_etl`: one run of Airflow for each hour of the feed, so that an hour can be
cleared and read again by itself. Pause `dicom_etl` then, and leave `dicom_etl_maintain` on.

Copy it beside dicom_etl_task.py, and set the Variable `dicom_etl_windows_start` to the first hour, such as
2026-05-01T00:00:00Z: what is older is read by one `dicom-etl sync`, not by thousands of runs. Without the Variable
Airflow shows this file as broken, and nothing runs.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.timetables.interval import CronDataIntervalTimetable
from dicom_etl_task import COMMON, SYNC, SYNC_RETRIES, DicomEtl

try:  # Airflow 3
    from airflow.providers.standard.sensors.time_delta import TimeDeltaSensor
    from airflow.sdk import DAG, Variable
except ImportError:  # Airflow 2.10
    from airflow import DAG
    from airflow.models import Variable
    from airflow.sensors.time_delta import TimeDeltaSensor

WINDOW = "--start {{ data_interval_start | ts }} --end {{ data_interval_end | ts }}"

with DAG(
    dag_id="dicom_etl_windows",
    # Not "@hourly": in Airflow 3 that has no interval, its start and end are the same.
    schedule=CronDataIntervalTimetable("@hourly", timezone="UTC"),
    start_date=datetime.fromisoformat(Variable.get("dicom_etl_windows_start")),
    catchup=True,
    max_active_runs=1,
    # A window that failed for good stops the later ones, and a person is told; else it would stay a hole.
    default_args=COMMON | {"retries": SYNC_RETRIES, "depends_on_past": True},
    tags=["dicom"],
):
    # Rows become visible late, so a window is read when it has been over for 15 minutes. Old windows do not wait.
    delay = TimeDeltaSensor(task_id="delay", delta=timedelta(minutes=15), mode="reschedule", poke_interval=60)
    delay >> DicomEtl(task_id="sync", bash_command=f"{SYNC} {WINDOW}")
