"""Leaves a row for an execution that fails before its own row is begun (design/outputs.md: Executions)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from dicom_etl.core.clock import utc_now
from dicom_etl.core.errors import AnotherWriter, DicomEtlError, Superseded
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.outputs.claim import claimed
from dicom_etl.outputs.execution import Execution, executions, highest_id, last_succeeded, open_executions, record

log = logging.getLogger(__name__)


@contextmanager
def failure_recorded(
    snapshot: LakeSnapshot,
    output: str,
    *,
    clock: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Record, under a claim, what the block raises and has no row yet; the block's own error is raised in any case.

    An execution that found another at work has not failed.
    """
    started = clock()
    try:
        yield
    except (AnotherWriter, Superseded):
        raise
    except Exception as error:
        with unrecorded_logged(output):
            _record(snapshot, output, type(error).__name__, started, clock, sleep)
        raise


@contextmanager
def unrecorded_logged(output: str) -> Iterator[None]:
    """Log an error of ours in the block, which records a failure: what failed before is the error to raise."""
    try:
        yield
    except DicomEtlError as error:
        log.warning("failure not recorded", extra={"output": output, "error": type(error).__name__})


def _record(
    snapshot: LakeSnapshot,
    output: str,
    error_class: str,
    started: datetime,
    clock: Callable[[], datetime],
    sleep: Callable[[float], None],
) -> None:
    known = executions(open_executions(snapshot.lake))
    if any(one.output == output and one.error_class == error_class and one.finished_at >= started for one in known):
        return
    last = last_succeeded(known, output)
    target = max((run.run_id for run in snapshot.runs() if run.status == "succeeded"), default=0)
    with claimed(
        snapshot.lake, output, highest_id(known, output), clock=clock, sleep=sleep, pulse=lambda: 0
    ) as execution_id:
        record(
            snapshot.lake,
            Execution(
                output=output,
                execution_id=execution_id,
                mode="changed",
                status="failed",
                from_run=0 if last is None else last.to_run,
                to_run=target,
                started_at=started,
                finished_at=clock(),
                error_class=error_class,
            ),
        )
