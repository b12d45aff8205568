"""Airflow 2.10 to 3.3: a sync every hour, which reads all that is due, maintenance once a day, and a comparison
with the service once a week.

Copy this file and dicom_etl_task.py into the folder of DAGs. The workers need dicom-etl at /opt/dicom-etl, its settings
at /etc/dicom-etl/config.toml, and in DICOM_ETL_NOTIFY a command that sends what it reads to a person. What can
wait for working hours goes to DICOM_ETL_TICKET, where that is set.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.timetables.trigger import CronTriggerTimetable
from dicom_etl_task import COMMON, MAINTAIN, MAINTAIN_RETRIES, SYNC, SYNC_RETRIES, VERIFY, DicomEtl

try:  # Airflow 3
    from airflow.sdk import DAG
except ImportError:  # Airflow 2.10
    from airflow import DAG

with DAG(
    dag_id="dicom_etl",
    # 20 past: each window has been over for 15 minutes.
    schedule=CronTriggerTimetable("20 * * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    # One sync reads every window that was missed, so a run for each missed hour would have nothing to do.
    catchup=False,
    max_active_runs=1,
    default_args=COMMON | {"retries": SYNC_RETRIES},
    tags=["dicom"],
):
    DicomEtl(task_id="sync", bash_command=SYNC)

with DAG(
    dag_id="dicom_etl_maintain",
    schedule=CronTriggerTimetable("5 3 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=COMMON | {"retries": MAINTAIN_RETRIES},
    tags=["dicom"],
):
    DicomEtl(task_id="maintain", bash_command=MAINTAIN)

with DAG(
    dag_id="dicom_etl_verify",
    # Between two syncs: while one merges, the tables differ.
    schedule=CronTriggerTimetable("50 4 * * 0", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args=COMMON | {"retries": SYNC_RETRIES},
    tags=["dicom"],
):
    DicomEtl(task_id="verify", bash_command=VERIFY)
