"""One run: reads a range of the feed, lands it, merges it, and records it last (architecture §5)."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from dicom_etl import __version__
from dicom_etl.deltalog import local_folder
from dicom_etl.dicomweb.changefeed import Reading, read_again, read_at, read_feed
from dicom_etl.dicomweb.client import DicomClient
from dicom_etl.dicomweb.poison import Budget
from dicom_etl.entry import Entry
from dicom_etl.errors import DataError, Superseded
from dicom_etl.lake.session import QUICK_ROWS, Engine
from dicom_etl.lake.tables import Merged
from dicom_etl.landing.commit import commit_change
from dicom_etl.landing.files import Landed, Landing
from dicom_etl.landing.highest import highest_landed
from dicom_etl.landing.rejects import Reject, append_rejects, new_rejects, read_open, settled
from dicom_etl.landing.rows import rows_of
from dicom_etl.late_rows import find_late_rows
from dicom_etl.merging import Outcome, check_shared_tables, make_shared_tables, merge_landed, rollups_outstanding
from dicom_etl.open_lake import Lake
from dicom_etl.progress import Progress
from dicom_etl.runs import ledger
from dicom_etl.runs.due import coverage_end
from dicom_etl.runs.ledger import Run
from dicom_etl.settings import Settings
from dicom_etl.window import Window, from_datetime

log = logging.getLogger(__name__)

# Thousands of bad entries must not cost thousands of requests in every run: so many for those that stay bad,
REQUESTS_FOR_REJECTS = 300
# and so many entries when they heal, which costs two requests each.
MOST_REJECTS_RETRIED = 1000
# The next run begins so many further on; no more of them use the requests up than stand at one instant.
REJECTS_A_TURN = 100


@dataclass(frozen=True, slots=True)
class Task:
    """What one run is to do: read ``stretch``, with ``now`` (ticks) deciding what of it counts as covered.

    ``exact``: read all of it, however many entries it holds. ``started_at`` is aware UTC.
    """

    run_id: int
    verb: str
    stretch: Window
    exact: bool
    now: int
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Read:
    """What the feed gave: the reading, its landing, and the open rejects that were met again."""

    reading: Reading
    landed: Landed
    met_again: tuple[Reject, ...]
    fetch_seconds: float
    land_seconds: float


def run(
    task: Task,
    settings: Settings,
    lake: Lake,
    client: DicomClient,
    engine: Engine,
    *,
    clock: Callable[[], datetime],
    progress: Progress,
) -> Run:
    """The ledger's row of this run, after everything else is written.

    Raises Superseded when a newer run has committed; whatever is raised, nothing is recorded as covered.
    """
    retries_before = client.retries
    missing = check_shared_tables(lake)
    read = _read_and_land(task, settings, lake, client, engine, progress)
    if not read.landed.entries and not missing and not rollups_outstanding(lake):
        return _record(task, settings, lake, read, None, client.retries - retries_before, 0.0, clock)
    began = time.monotonic()
    progress.step("start Spark")
    spark = engine.session(max(read.landed.entries, lake.rows()))
    make_shared_tables(spark, lake, settings)
    start_seconds = time.monotonic() - began
    outcome = merge_landed(spark, lake, task.run_id, read.landed, progress)
    record_rejects(task, lake, read.landed, read.met_again, outcome.rejected, clock())
    return _record(task, settings, lake, read, outcome, client.retries - retries_before, start_seconds, clock)


def refuse_a_feed_that_went_back(client: DicomClient, lake: Lake) -> None:
    """Raise DataError when the highest entry that was ever landed is no longer served at its time.

    A service made anew starts its sequences again, and the guard by sequence would ignore it for ever.
    """
    highest = highest_landed(lake.table("change")) if lake.has("change") else None
    if highest is None:
        return
    sequence, ticks = highest
    if not any(e.sequence == sequence for e in read_at(client, ticks, [sequence], include_metadata=False)):
        raise DataError(
            f"the feed has gone back: entry {sequence}, which this lake has read, is no longer served. Was the "
            "service created anew? Then give it a new lake (lake.root)"
        )


def _read_and_land(
    task: Task, settings: Settings, lake: Lake, client: DicomClient, engine: Engine, progress: Progress
) -> Read:
    began = time.monotonic()
    progress.step("read")
    rejects = {reject.sequence: reject for reject in read_open(lake.table("rejected"))}
    met: dict[int, int] = {}
    with Landing(
        local_folder(lake.path("change"), private=True),
        run_id=task.run_id,
        read_at=task.started_at,
        keep_metadata=settings.lake.keep_metadata,
    ) as landing:

        def land(entries: list[Entry]) -> None:
            met.update((entry.sequence, entry.ticks) for entry in entries if entry.sequence in rejects)
            landing.add(entries)
            if landing.entries >= QUICK_ROWS:
                engine.begin(landing.entries)

        reading = read_feed(
            client,
            task.stretch,
            batch_size=settings.feed.batch_size,
            connections=settings.dicom.connections,
            sink=land,
            max_entries=None if task.exact else settings.feed.max_entries_per_run,
            grid_ticks=settings.feed.window,
            progress=progress.read,
        )
        if landing.entries:
            engine.begin(max(landing.entries, lake.rows()))
        for entries in _usable_by_now(client, [r for s, r in rejects.items() if s not in met], task):
            land(entries)
        find_late_rows(
            lake,
            client,
            settings,
            run_id=task.run_id,
            window=reading.window,
            now=task.now,
            landed=landing.numbers(reading.window.end),
            sink=land,
        )
        fetched = time.monotonic()
        landed = landing.finish(reading.window.end)
    commit_landing(task, lake, landed)
    log.info(
        "landed",
        extra={"run_id": task.run_id, "entries": landed.entries, "pages": reading.pages, "window": reading.window},
    )
    met_again = tuple(rejects[sequence] for sequence, ticks in met.items() if ticks < reading.window.end)
    return Read(reading, landed, met_again, fetched - began, time.monotonic() - fetched)


def commit_landing(task: Task, lake: Lake, landed: Landed) -> None:
    """Make what was landed part of ``change``, in one commit; nothing was landed: no commit."""
    if landed.entries:
        commit_change(
            lake.table("change"),
            landed,
            app_id=lake.app_id("change"),
            run_id=task.run_id,
            details={"runId": str(task.run_id)},
        )


def _usable_by_now(client: DicomClient, rejects: list[Reject], task: Task) -> Iterator[list[Entry]]:
    """The open rejects that have become usable, by instants; those that are as bad as before cost requests only.

    When there are many, each run takes others: its id says where it begins.
    """
    first = task.run_id * REJECTS_A_TURN % len(rejects) if rejects else 0
    in_turn = (rejects[first:] + rejects[:first])[:MOST_REJECTS_RETRIED]
    budget = Budget(REQUESTS_FOR_REJECTS)
    for begin in range(0, len(in_turn), REJECTS_A_TURN):
        for moment, tie in groupby(in_turn[begin : begin + REJECTS_A_TURN], key=lambda reject: reject.timestamp):
            if budget.spent:
                return
            again = read_again(client, from_datetime(moment), [reject.sequence for reject in tie], budget)
            still_bad = {u.sequence for u in rows_of(again, run_id=task.run_id, read_at=task.started_at).unusable}
            usable = [entry for entry in again if entry.sequence not in still_bad]
            budget.give(2 * len(usable))
            yield usable


def record_rejects(
    task: Task,
    lake: Lake,
    landed: Landed,
    met_again: Collection[Reject],
    rejected: Collection[int],
    moment: datetime,
    more: Iterable[Reject] = (),
) -> None:
    """One commit of ``rejected``: what is new, what has become usable, and ``more`` of this run (voids).

    Raises Superseded when a newer run has merged: one that met nothing bad leaves no marker here.
    """
    known = {reject.sequence for reject in met_again}
    new = [u for u in landed.unusable if u.sequence in rejected and u.sequence not in known]
    healed = [reject for reject in met_again if reject.sequence not in rejected]
    rows = [
        *new_rejects(new, run_id=task.run_id, recorded_at=moment),
        *settled(healed, run_id=task.run_id, recorded_at=moment),
        *more,
    ]
    if rows and lake.marker("instance") > task.run_id:
        raise Superseded("rejected: a newer run has written; this one stops and covers nothing")
    append_rejects(
        lake.table("rejected"),
        rows,
        app_id=lake.app_id("rejected"),
        run_id=task.run_id,
        details={"runId": str(task.run_id)},
    )


def _record(
    task: Task,
    settings: Settings,
    lake: Lake,
    read: Read,
    outcome: Outcome | None,
    retries: int,
    start_seconds: float,
    clock: Callable[[], datetime],
) -> Run:
    row = Run(
        run_id=task.run_id,
        verb=task.verb,
        status="succeeded",
        window_start=read.reading.window.start,
        window_end=read.reading.window.end,
        covered_until=coverage_end(read.reading.window, task.now, settings.feed.delay),
        started_at=task.started_at,
        finished_at=clock(),
        repeated=read.landed.repeated + read.reading.repeated,
        pages=read.reading.pages,
        retries=retries,
        start_seconds=start_seconds,
        fetch_seconds=read.fetch_seconds,
        land_seconds=read.land_seconds,
        **row_results(lake, read.landed.entries, outcome),
        **row_origin(settings),
    )
    ledger.record(lake.table("run"), row, lake.identity)
    return row


def row_results(lake: Lake, entries: int, outcome: Outcome | None) -> dict[str, Any]:
    """What became of the entries, how long the merging took, and the tables' versions; without one, those they have."""
    merged = outcome.instance if outcome else Merged(0, 0, 0, lake.version("instance"))
    rejected = len(outcome.rejected) if outcome else 0
    return {
        "entries_read": entries,
        "inserted": merged.inserted,
        "updated": merged.updated,
        "deleted": merged.deleted,
        "superseded": superseded_entries(entries, merged, rejected),
        "rejected": rejected,
        "merge_seconds": outcome.merge_seconds if outcome else 0.0,
        "rollup_seconds": outcome.rollup_seconds if outcome else 0.0,
        "change_version": lake.version("change"),
        "instance_version": merged.version,
        "series_version": outcome.series_version if outcome else lake.version("series"),
        "study_version": outcome.study_version if outcome else lake.version("study"),
    }


def row_origin(settings: Settings) -> dict[str, Any]:
    """Who writes a row of the ledger: version, host and settings."""
    return {
        "writer_version": __version__,
        "host": socket.gethostname(),
        "settings_digest": settings.digest,
    }


def superseded_entries(read: int, merged: Merged, rejected: int) -> int:
    """Entries that changed nothing: not the last of their key, Replaced, refused by the guard, nothing to remove.

    A test classifies every entry by itself and compares.
    """
    superseded = read - merged.inserted - merged.updated - merged.deleted - rejected
    if superseded < 0:
        # One entry changed several rows: of our own writing there is one for each key.
        raise DataError(
            "instance holds a key in several rows, so somebody else has written to it: run dicom-etl repair --rebuild"
        )
    return superseded
