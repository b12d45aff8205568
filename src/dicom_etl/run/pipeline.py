"""One run: reads a range of the feed, lands it, merges it, and records it last.

design/architecture.md: Flow of a run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future

from dicom_etl.core.errors import DataError
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.rejected import closed_rejects
from dicom_etl.lake.statistics import shared_rows
from dicom_etl.run.land import Read, read_and_land
from dicom_etl.run.merge import RunResult, check_shared_tables, make_shared_tables, merge_landed
from dicom_etl.run.plan import RunPlan
from dicom_etl.run.read import Fetched
from dicom_etl.run.record import record
from dicom_etl.run.rejects import record_rejects
from dicom_etl.run.roll_up import unfinished_run
from dicom_etl.run.write_session import WriteSession

log = logging.getLogger(__name__)


def run(
    session: WriteSession,
    plan: RunPlan,
    prefetched: Future[Fetched] | None = None,
    on_landed: Callable[[Read], None] | None = None,
) -> Run:
    """The ledger's row of this run, after everything else is written.

    ``prefetched`` is its reading, where that was begun ahead; ``on_landed`` is called when everything that it has read
    is part of ``change``, and there is something to merge. Raises Superseded when a newer run has committed; whatever
    is raised, nothing is recorded as covered.
    """
    missing = check_shared_tables(session.snapshot)
    unfinished = unfinished_run(session.snapshot)
    read = read_and_land(session, plan, prefetched)
    if not read.landed.entries and not missing and unfinished is None:
        _record_rejects(session, read, frozenset())
        return record(session, plan, read, None)
    if on_landed is not None:
        on_landed(read)
    outcome, start_seconds = _merge(session, read)
    _refuse_doubled(outcome)
    _record_rejects(session, read, outcome.rejected)
    if unfinished is not None:
        log.info("earlier roll-up completed", extra={"run_id": session.run_id, "completes": unfinished})
    return record(session, plan, read, outcome, start_seconds, unfinished)


def _merge(session: WriteSession, read: Read) -> tuple[RunResult, float]:
    """What the MERGEs did, and how long Spark took to start."""
    began = time.monotonic()
    session.progress.step("start Spark")
    spark = session.engine.session(read.rows or shared_rows(session.snapshot))
    make_shared_tables(spark, session)
    start_seconds = time.monotonic() - began
    return merge_landed(spark, session, read.landed), start_seconds


def _refuse_doubled(outcome: RunResult) -> None:
    if outcome.doubled:
        raise DataError(
            "instance holds a key in several rows, so somebody else has written to it: run dicom-etl repair --rebuild"
        )


def _record_rejects(session: WriteSession, read: Read, rejected: Collection[int]) -> None:
    now = session.now()
    void = closed_rejects(read.gone, run_id=session.run_id, recorded_at=now, status="void")
    record_rejects(session, read.landed, read.rejects_seen, rejected, now, void)
