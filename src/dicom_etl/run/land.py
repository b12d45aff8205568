"""Lands what a run has read, and what other windows owe, by one commit of ``change``.

design/architecture.md: Landing, Late rows, Rejects.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future
from dataclasses import dataclass, replace

from dicom_etl.dicomweb.feed.reader import FeedReadResult
from dicom_etl.lake.rejected import Reject, read_open
from dicom_etl.landing.commit import commit_change
from dicom_etl.landing.landing import Landed
from dicom_etl.run.late_rows import find_late_rows
from dicom_etl.run.plan import RunPlan
from dicom_etl.run.read import Fetched, fetch, new_landing
from dicom_etl.run.rejects import RejectRetry
from dicom_etl.run.write_session import WriteSession

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Read:
    """What the feed gave: the reading, its landing, the open rejects seen again, and the estimated rows.

    ``gone`` are the open rejects of which the instance is gone.
    """

    reading: FeedReadResult
    landed: Landed
    rejects_seen: tuple[Reject, ...]
    gone: tuple[Reject, ...]
    rows: int
    fetch_seconds: float
    land_seconds: float
    retries: int


def read_and_land(session: WriteSession, plan: RunPlan, prefetched: Future[Fetched] | None = None) -> Read:
    """What the plan's range gave, part of ``change``; ``prefetched`` is its reading, where that was begun ahead."""
    session.progress.step("read")
    if prefetched is not None:
        return _land(session, plan, prefetched.result())
    with new_landing(session, plan) as landing:
        return _land(session, plan, fetch(session, plan, landing))


def _land(session: WriteSession, plan: RunPlan, fetched: Fetched) -> Read:
    """Add what other windows owe, and make it all part of ``change``.

    ``rejected`` is asked as it is now: the feed may have been read for long since the claim.
    """
    began, retries = time.monotonic(), session.client.retries
    reading, landing = fetched.reading, fetched.landing
    rejected = session.snapshot.refresh("rejected").table("rejected")
    rejects = {reject.sequence: reject for reject in read_open(rejected)}
    landed_before = landing.already_landed(rejects)
    retry = RejectRetry(session, plan)
    for entries in retry.usable([r for s, r in rejects.items() if s not in landed_before]):
        landing.add(entries)
    find_late_rows(session, reading.window, plan.now, landing.add)
    landed_before = landing.already_landed(rejects)
    searched = time.monotonic()
    landed = commit_landing(session, landing.finish(reading.window.end))
    log.info(
        "landed",
        extra={"run_id": session.run_id, "entries": landed.entries, "pages": reading.pages, "window": reading.window},
    )
    return Read(
        reading,
        landed,
        rejects_seen=tuple(
            rejects[s] for s, t in landed_before.items() if t < reading.window.end and rejects[s] not in retry.gone
        ),
        gone=tuple(retry.gone),
        rows=max(fetched.rows, landed.entries),
        fetch_seconds=fetched.seconds + searched - began,
        land_seconds=time.monotonic() - searched,
        retries=fetched.retries + session.client.retries - retries,
    )


def commit_landing(session: WriteSession, landed: Landed) -> Landed:
    """The landing with the version of ``change`` that holds it: all of it, by one commit; nothing commits nothing.

    Made on ``change`` as it is now, so that what a run that was overtaken has committed since the claim is no conflict.
    """
    version = commit_change(
        session.snapshot.refresh("change").table("change"),
        landed,
        app_id=session.lake.app_id("change"),
        run_id=session.run_id,
        details={"runId": str(session.run_id)},
    )
    return replace(landed, version=version)
