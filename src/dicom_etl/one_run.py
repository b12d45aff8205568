"""One run: reads a range of the feed, lands it, merges it, and records it last (architecture §5)."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dicom_etl import __version__
from dicom_etl.deltalog import local_folder
from dicom_etl.dicomweb.changefeed import Reading, read_at, read_feed
from dicom_etl.dicomweb.client import DicomClient
from dicom_etl.entry import Entry
from dicom_etl.errors import DataError, DicomEtlError
from dicom_etl.lake.session import Engine
from dicom_etl.lake.tables import Merged
from dicom_etl.landing.commit import commit_change
from dicom_etl.landing.files import Landed, Landing
from dicom_etl.landing.highest import highest_landed
from dicom_etl.landing.rejects import Reject, append_rejects, new_rejects, read_open, settled
from dicom_etl.late_rows import find_late_rows
from dicom_etl.merging import Outcome, make_shared_tables, merge_landed, rollups_outstanding
from dicom_etl.open_lake import Lake, missing_tables
from dicom_etl.progress import Progress
from dicom_etl.runs import ledger
from dicom_etl.runs.due import coverage_end
from dicom_etl.runs.ledger import Run
from dicom_etl.settings import Settings
from dicom_etl.window import Window, from_datetime

log = logging.getLogger(__name__)

# Thousands of bad entries must not cost thousands of requests in every run.
MOST_REJECTS_RETRIED = 200


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
    read = _read_and_land(task, settings, lake, client, progress)
    if not read.landed.entries and not missing_tables(lake) and not rollups_outstanding(lake):
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


def _read_and_land(task: Task, settings: Settings, lake: Lake, client: DicomClient, progress: Progress) -> Read:
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
        for reject in _to_try_again([r for s, r in rejects.items() if s not in met], task.run_id):
            again = read_at(client, from_datetime(reject.timestamp), [reject.sequence])
            land([entry for entry in again if not _as_bad_as_before(entry)])
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
    if landed.entries:
        commit_change(
            lake.table("change"),
            landed,
            app_id=lake.app_id("change"),
            run_id=task.run_id,
            details={"runId": str(task.run_id)},
        )
    log.info(
        "landed",
        extra={"run_id": task.run_id, "entries": landed.entries, "pages": reading.pages, "window": reading.window},
    )
    met_again = tuple(rejects[sequence] for sequence, ticks in met.items() if ticks < reading.window.end)
    return Read(reading, landed, met_again, fetched - began, time.monotonic() - fetched)


def _to_try_again(rejects: list[Reject], run_id: int) -> list[Reject]:
    """Some of the open rejects; when there are many, each run takes others: its id says where it begins."""
    first = run_id * MOST_REJECTS_RETRIED % len(rejects) if rejects else 0
    return (rejects[first:] + rejects[:first])[:MOST_REJECTS_RETRIED]


def _as_bad_as_before(entry: Entry) -> bool:
    """Whether there is nothing new to merge: the metadata still cannot be had of an entry that is still current."""
    return entry.unreadable is not None and (entry.state or "").lower() == "current"


def record_rejects(
    task: Task,
    lake: Lake,
    landed: Landed,
    met_again: Collection[Reject],
    rejected: Collection[int],
    moment: datetime,
    more: Iterable[Reject] = (),
) -> None:
    """One commit of ``rejected``: what is new, what has become usable, and ``more`` of this run (voids)."""
    known = {reject.sequence for reject in met_again}
    new = [u for u in landed.unusable if u.sequence in rejected and u.sequence not in known]
    healed = [reject for reject in met_again if reject.sequence not in rejected]
    append_rejects(
        lake.table("rejected"),
        [
            *new_rejects(new, run_id=task.run_id, recorded_at=moment),
            *settled(healed, run_id=task.run_id, recorded_at=moment),
            *more,
        ],
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
    merged = outcome.instance if outcome else Merged(0, 0, 0, lake.version("instance"))
    rejected = len(outcome.rejected) if outcome else 0
    row = Run(
        run_id=task.run_id,
        verb=task.verb,
        status="succeeded",
        window_start=read.reading.window.start,
        window_end=read.reading.window.end,
        covered_until=coverage_end(read.reading.window, task.now, settings.feed.delay),
        started_at=task.started_at,
        finished_at=clock(),
        entries_read=read.landed.entries,
        inserted=merged.inserted,
        updated=merged.updated,
        deleted=merged.deleted,
        superseded=superseded_entries(read.landed.entries, merged, rejected),
        rejected=rejected,
        repeated=read.landed.repeated + read.reading.repeated,
        pages=read.reading.pages,
        retries=retries,
        start_seconds=start_seconds,
        fetch_seconds=read.fetch_seconds,
        land_seconds=read.land_seconds,
        merge_seconds=outcome.merge_seconds if outcome else 0.0,
        rollup_seconds=outcome.rollup_seconds if outcome else 0.0,
        change_version=lake.version("change"),
        instance_version=merged.version,
        series_version=outcome.series_version if outcome else lake.version("series"),
        study_version=outcome.study_version if outcome else lake.version("study"),
        **row_origin(settings),
    )
    ledger.record(lake.table("run"), row, lake.identity)
    return row


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
        raise DicomEtlError("the accounting of this run does not add up; please report it")
    return superseded
