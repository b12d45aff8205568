"""What the DAGs beside this file share: the commands, their limits and retries, and who is told of a failure."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
from datetime import timedelta
from typing import Any

try:  # Airflow 3
    from airflow.providers.standard.operators.bash import BashOperator
except ImportError:  # Airflow 2.10
    from airflow.operators.bash import BashOperator
try:  # Airflow 3.2
    from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowTaskTimeout
except ImportError:
    from airflow.exceptions import AirflowException, AirflowFailException, AirflowTaskTimeout

PROGRAM = os.environ.get("DICOM_ETL_PROGRAM", "/opt/dicom-etl/bin/dicom-etl")
SYNC = f"{PROGRAM} sync --config /etc/dicom-etl/config.toml --log-format json"
MAINTAIN = f"{PROGRAM} maintain --config /etc/dicom-etl/config.toml --log-format json"
VERIFY = f"{PROGRAM} verify --config /etc/dicom-etl/config.toml --log-format json"

# 74: the storage; 75: throttled, unavailable, another writer; 130 and 143: interrupted, as by a worker that stops.
WORTH_TRYING_AGAIN = (74, 75, 130, 143)
# The same two, where the process could not make a code of them. SIGKILL (137) is not among them: mostly it was the
# memory, and that wakes a person at the first.
SIGNALS = (-signal.SIGINT, -signal.SIGTERM)


def tell(context: Any) -> None:
    """Tell a person that a task has failed for good: what a retry may cure was tried again until then."""
    task = context["task_instance"]
    # Airflow 3.0 and 3.1 may give no exception to a callback.
    reason = context.get("exception") or DicomEtl.ended or "see its log"
    text = f"dicom-etl: task {task.task_id} of DAG {task.dag_id} has failed: {reason}\n"
    command = os.environ.get("DICOM_ETL_NOTIFY", "")
    if task.task_id == "verify" and "ended with 65" in str(reason):
        # Differences: a person in working hours.
        text, command = f"not urgent: {text}", os.environ.get("DICOM_ETL_TICKET", command)
    if not command:
        logging.getLogger(__name__).error("DICOM_ETL_NOTIFY is not set, nobody is told: %s", text)
        return
    subprocess.run(command, shell=True, input=text, text=True, check=True, timeout=60)  # noqa: S602


COMMON = {
    "retry_delay": timedelta(minutes=10),
    # The limit of one run.
    "execution_timeout": timedelta(hours=12),
    "on_failure_callback": tell,
}
# What still fails after three hours of retries wakes a person: that is the rule of lag for 74 and 75.
SYNC_RETRIES = 18
# They outlast a sync that takes its whole 12 hours.
MAINTAIN_RETRIES = 80


class DicomEtl(BashOperator):
    """A command of dicom-etl; it is tried again only when its exit code says that waiting may help."""

    # Of the class: Airflow 3.0 executes a copy of the task, and a process runs one task.
    ended = ""

    def execute(self, context: Any) -> Any:
        try:
            return super().execute(context)
        except AirflowException as error:
            process = self.subprocess_hook.sub_process
            if process is None or process.returncode in SIGNALS:
                raise
            DicomEtl.ended = f"dicom-etl ended with {process.returncode}"
            if process.returncode in WORTH_TRYING_AGAIN:
                raise
            raise AirflowFailException(f"{DicomEtl.ended}: not tried again") from error
        except AirflowTaskTimeout as error:
            # The SIGTERM that releases the claim.
            self.on_kill()
            DicomEtl.ended = f"dicom-etl took longer than {self.execution_timeout}"
            raise AirflowFailException(DicomEtl.ended) from error
