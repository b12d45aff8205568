"""Reads the range of the next run, under a claimed id of its own, while Spark merges the last.

design/architecture.md: Claims.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from threading import Event

from dicom_etl.core.errors import DicomEtlError
from dicom_etl.run.plan import RunPlan
from dicom_etl.run.read import Fetched, fetch, new_landing
from dicom_etl.run.write_session import WriteSession, next_session

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PrefetchedRun:
    """A run whose claim is held and whose range is being read; ``stack`` ends both, and removes the files.

    The lake of ``session`` is that of the run before: its ledger lacks that run's row.
    """

    session: WriteSession
    plan: RunPlan
    reading: Future[Fetched]
    stack: ExitStack


class Prefetcher:
    """At most one run that was begun ahead; a context manager that abandons it at the end.

    The later run merges only after the earlier one's row stands in the ledger: its caller sees to that.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._begun: PrefetchedRun | None = None

    def begin(self, session: WriteSession, plan: RunPlan) -> None:
        """Claim the id after that of ``session`` and let the range of ``plan`` be read, which begins now.

        A claim that cannot be had now is left for later.
        """
        stop = Event()
        with ExitStack() as stack:
            try:
                following = stack.enter_context(next_session(session))
            except DicomEtlError as error:
                log.info("prefetch skipped", extra={"error": type(error).__name__})
                return
            plan = replace(plan, started_at=following.now())
            landing = stack.enter_context(new_landing(following, plan))
            reading = self._pool.submit(fetch, following, plan, landing, stop)
            stack.callback(wait, [reading])
            stack.callback(stop.set)
            self._begun = PrefetchedRun(following, plan, reading, stack.pop_all())

    def take(self) -> PrefetchedRun | None:
        """The run that was begun, now the caller's to end; None when there is none."""
        begun, self._begun = self._begun, None
        return begun

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *_: object) -> None:
        if self._begun is not None:
            self._begun.stack.close()
        self._pool.shutdown()
