"""Reads the range of the next run, under a claimed id of its own, while Spark merges the last.

design/architecture.md: Claims.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from threading import Event

from dicom_etl.core.errors import DicomEtlError
from dicom_etl.lake.claims.claim import Claim
from dicom_etl.landing.landing import Landing
from dicom_etl.run.plan import Task
from dicom_etl.run.read import Fetched

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Begun:
    """A run whose claim is held and whose range is being read; ``stack`` ends both, and removes the files."""

    claim: Claim
    task: Task
    reading: Future[Fetched]
    stack: ExitStack


class ReadAhead:
    """At most one run that was begun ahead; a context manager that abandons it at the end.

    The later run merges only after the earlier one's row stands in the ledger: its caller sees to that.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._begun: Begun | None = None

    def begin(
        self,
        claimed: AbstractContextManager[Claim],
        task_of: Callable[[int], Task],
        landing_of: Callable[[Task], Landing],
        read: Callable[[Task, Landing, Event], Fetched],
    ) -> None:
        """Claim the next id and let its range be read; a claim that cannot be had now is left for later."""
        stop = Event()
        with ExitStack() as stack:
            try:
                held = stack.enter_context(claimed)
            except DicomEtlError as error:
                log.info("prefetch skipped", extra={"error": type(error).__name__})
                return
            task = task_of(held.run_id)
            landing = stack.enter_context(landing_of(task))
            reading = self._pool.submit(read, task, landing, stop)
            stack.callback(wait, [reading])
            stack.callback(stop.set)
            self._begun = Begun(held, task, reading, stack.pop_all())

    def take(self) -> Begun | None:
        """The run that was begun, now the caller's to end; None when there is none."""
        begun, self._begun = self._begun, None
        return begun

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *_: object) -> None:
        if self._begun is not None:
            self._begun.stack.close()
        self._pool.shutdown()
