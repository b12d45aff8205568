"""Reads a range of the feed into files for ``change`` that no version of it holds yet.

design/architecture.md: Reading the feed, Landing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Event

from dicom_etl.core.entry import Entry
from dicom_etl.dicomweb.feed.reader import FeedReadResult, feed_reader, read_feed
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.lake.statistics import rows_within
from dicom_etl.landing.landing import Landing
from dicom_etl.run.plan import RunPlan
from dicom_etl.run.write_session import WriteSession
from dicom_etl.tables.engine.session import QUICK_ROWS
from dicom_etl.tables.file_skipping import study_ranges

# Rows that a MERGE only looks at cost a thirtieth of those that it lands, those of files that it rewrites a half: a
# cold window on 10^5 instances took 14.3 s with plans that are interpreted and 17.5 s compiled, on 10^6 17.5 s and
# 19.2 s; on 10^7, warm, 26 s and 9.7 s. One of updates on 10^5, warm, as long with both, and on 10^6 44 s interpreted.
_LOOKED_AT = 30
_REWRITTEN = 2


@dataclass(frozen=True, slots=True)
class Fetched:
    """What the feed gave: the reading, its files, which can still be added to, the work they mean, and what it took."""

    reading: FeedReadResult
    landing: Landing
    rows: int
    seconds: float
    retries: int


def new_landing(session: WriteSession, plan: RunPlan) -> Landing:
    """The files of a run, none yet; a context manager that removes them unless they are finished."""
    return Landing(
        session.lake.folder("change"),
        run_id=session.run_id,
        read_at=plan.started_at,
        keep_metadata=session.settings.lake.keep_metadata,
    )


def fetch(session: WriteSession, plan: RunPlan, landing: Landing, stop: Event | None = None) -> Fetched:
    """The plan's range of the feed, read into ``landing``; Spark is told to start as soon as there is work for it.

    Raises as ``read_feed``: Cancelled, too, when another thread has set ``stop``.
    """
    settings, client, engine = session.settings, session.client, session.engine
    began, retries = time.monotonic(), client.retries

    def land(entries: list[Entry]) -> None:
        landing.add(entries)
        if landing.entries >= QUICK_ROWS:
            engine.begin(landing.entries)

    reading = read_feed(
        feed_reader(client, settings, progress=session.progress.read, stop=stop),
        plan.stretch,
        land,
        max_entries=None if plan.exact else settings.feed.max_entries_per_run,
        grid_ticks=settings.feed.window,
    )
    rows = estimated_rows(session.snapshot, landing)
    if landing.entries:
        engine.begin(rows)
    return Fetched(reading, landing, rows, time.monotonic() - began, client.retries - retries)


def estimated_rows(snapshot: LakeSnapshot, landing: Landing) -> int:
    """To how many landed rows the MERGEs of this landing amount, by the files that they will have to look into.

    An estimate: the files may be those of the claim, or of the run before.
    """
    if not landing.entries:
        return 0
    in_reach = rows_within(snapshot, study_ranges(landing.studies))
    return landing.entries + in_reach // (_LOOKED_AT if landing.only_creates else _REWRITTEN)
