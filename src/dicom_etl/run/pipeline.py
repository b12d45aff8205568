"""One run: reads a range of the feed, lands it, merges it, and records it last.

design/architecture.md: Flow of a run.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from dicom_etl import __version__
from dicom_etl.core.errors import DataError, Superseded
from dicom_etl.core.progress import Progress
from dicom_etl.core.settings.model import Settings
from dicom_etl.dicomweb.feed.reader import Reading
from dicom_etl.lake.coverage import coverage_end
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.rejected import Reject, append_rejects, new_rejects, read_open, settled
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.lake.statistics import shared_rows
from dicom_etl.landing.commit import commit_change
from dicom_etl.landing.landing import Landed
from dicom_etl.remote.http.client import DicomClient
from dicom_etl.run.late_rows import find_late_rows
from dicom_etl.run.merge import Outcome, check_shared_tables, make_shared_tables, merge_landed
from dicom_etl.run.plan import Task
from dicom_etl.run.read import Fetched, fetch, new_landing
from dicom_etl.run.rejects import RejectRetry
from dicom_etl.run.roll_up import fitting_versions, rollups_outstanding
from dicom_etl.tables.engine.session import Engine
from dicom_etl.tables.merge import Merged

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Read:
    """What the feed gave: the reading, its landing, the open rejects that were met again, and the work in rows.

    ``gone`` are the open rejects of which the instance is gone.
    """

    reading: Reading
    landed: Landed
    met_again: tuple[Reject, ...]
    gone: tuple[Reject, ...]
    rows: int
    fetch_seconds: float
    land_seconds: float
    retries: int


def run(
    task: Task,
    settings: Settings,
    snapshot: LakeSnapshot,
    client: DicomClient,
    engine: Engine,
    *,
    clock: Callable[[], datetime],
    progress: Progress,
    begun: Future[Fetched] | None = None,
    landed: Callable[[Read], None] = lambda _read: None,
) -> Run:
    """The ledger's row of this run, after everything else is written.

    ``begun`` is its reading, where that was begun ahead; ``landed`` is called when everything that it has read is
    part of ``change``. Raises Superseded when a newer run has committed; whatever is raised, nothing is recorded as
    covered.
    """
    missing = check_shared_tables(snapshot)
    read = _read_and_land(task, settings, snapshot, client, engine, progress, begun)
    if not read.landed.entries and not missing and not rollups_outstanding(snapshot):
        _record_rejects_of(task, snapshot, read, frozenset(), clock())
        return _record(task, settings, snapshot, read, None, 0.0, clock)
    landed(read)
    began = time.monotonic()
    progress.step("start Spark")
    spark = engine.session(read.rows or shared_rows(snapshot))
    make_shared_tables(spark, snapshot, settings)
    start_seconds = time.monotonic() - began
    outcome = merge_landed(spark, snapshot, task.run_id, read.landed, progress)
    _refuse_doubled(outcome)
    _record_rejects_of(task, snapshot, read, outcome.rejected, clock())
    return _record(task, settings, snapshot, read, outcome, start_seconds, clock)


def _refuse_doubled(outcome: Outcome) -> None:
    if outcome.doubled:
        raise DataError(
            "instance holds a key in several rows, so somebody else has written to it: run dicom-etl repair --rebuild"
        )


def _read_and_land(
    task: Task,
    settings: Settings,
    snapshot: LakeSnapshot,
    client: DicomClient,
    engine: Engine,
    progress: Progress,
    begun: Future[Fetched] | None = None,
) -> Read:
    progress.step("read")
    if begun is not None:
        return _land(task, settings, snapshot, client, begun.result())
    with new_landing(task, settings, snapshot.lake) as landing:
        fetched = fetch(task, settings, snapshot, client, engine, landing, progress)
        return _land(task, settings, snapshot, client, fetched)


def _land(task: Task, settings: Settings, snapshot: LakeSnapshot, client: DicomClient, fetched: Fetched) -> Read:
    """Add what other windows owe, and make it all part of ``change``.

    ``rejected`` is asked as it is now: the feed may have been read for long since the claim.
    """
    began, retries = time.monotonic(), client.retries
    reading, landing = fetched.reading, fetched.landing
    rejects = {reject.sequence: reject for reject in read_open(snapshot.refresh("rejected").table("rejected"))}
    met = landing.met(rejects)
    retry = RejectRetry(client, task)
    for entries in retry.usable([r for s, r in rejects.items() if s not in met]):
        landing.add(entries)
    find_late_rows(
        snapshot,
        client,
        settings,
        run_id=task.run_id,
        window=reading.window,
        now=task.now,
        sink=landing.add,
    )
    met = landing.met(rejects)
    searched = time.monotonic()
    landed = commit_landing(task, snapshot, landing.finish(reading.window.end))
    log.info(
        "landed",
        extra={"run_id": task.run_id, "entries": landed.entries, "pages": reading.pages, "window": reading.window},
    )
    return Read(
        reading,
        landed,
        met_again=tuple(rejects[s] for s, t in met.items() if t < reading.window.end and rejects[s] not in retry.gone),
        gone=tuple(retry.gone),
        rows=max(fetched.rows, landed.entries),
        fetch_seconds=fetched.seconds + searched - began,
        land_seconds=time.monotonic() - searched,
        retries=fetched.retries + client.retries - retries,
    )


def commit_landing(task: Task, snapshot: LakeSnapshot, landed: Landed) -> Landed:
    """The landing with the version of ``change`` that holds it: all of it, by one commit; nothing commits nothing.

    Made on ``change`` as it is now, so that what a run that was overtaken has committed since the claim is no conflict.
    """
    version = commit_change(
        snapshot.refresh("change").table("change"),
        landed,
        app_id=snapshot.lake.app_id("change"),
        run_id=task.run_id,
        details={"runId": str(task.run_id)},
    )
    return replace(landed, version=version)


def _record_rejects_of(
    task: Task, snapshot: LakeSnapshot, read: Read, rejected: Collection[int], moment: datetime
) -> None:
    void = settled(read.gone, run_id=task.run_id, recorded_at=moment, status="void")
    record_rejects(task, snapshot, read.landed, read.met_again, rejected, moment, void)


def record_rejects(
    task: Task,
    snapshot: LakeSnapshot,
    landed: Landed,
    met_again: Collection[Reject],
    rejected: Collection[int],
    moment: datetime,
    more: Iterable[Reject] = (),
) -> None:
    """One commit of ``rejected``: what is new, what has become usable, and ``more`` of this run (voids).

    Nothing commits nothing. Raises Superseded when a newer run has merged, as ``instance`` is now: one that met nothing
    bad leaves no marker here.
    """
    known = {reject.sequence for reject in met_again}
    new = [u for u in landed.unusable if u.sequence in rejected and u.sequence not in known]
    healed = [reject for reject in met_again if reject.sequence not in rejected]
    rows = [
        *new_rejects(new, run_id=task.run_id, recorded_at=moment),
        *settled(healed, run_id=task.run_id, recorded_at=moment),
        *more,
    ]
    if not rows:
        return
    lake = snapshot.lake
    if snapshot.refresh("instance").marker("instance") > task.run_id:
        raise Superseded("rejected: a newer run has written; this one stops and covers nothing")
    append_rejects(
        snapshot.refresh("rejected").table("rejected"),
        rows,
        app_id=lake.app_id("rejected"),
        run_id=task.run_id,
        details={"runId": str(task.run_id)},
        folder=lake.folder("rejected"),
    )


def _record(
    task: Task,
    settings: Settings,
    snapshot: LakeSnapshot,
    read: Read,
    outcome: Outcome | None,
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
        retries=read.retries,
        start_seconds=start_seconds,
        fetch_seconds=read.fetch_seconds,
        land_seconds=read.land_seconds,
        **row_results(snapshot, read.landed, read.landed.entries, outcome),
        **row_origin(settings),
    )
    snapshot.record(row)
    return row


def row_results(snapshot: LakeSnapshot, landed: Landed | None, entries: int, outcome: Outcome | None) -> dict[str, Any]:
    """What became of the entries, how long the merging took, and the tables' versions.

    The versions are the commits' own answers; of a table that this run did not commit to, that of the claim: whatever
    an overtaken or a newer run has written since need not fit the others.

    Superseded are the entries that changed nothing: not the last of their key, Replaced, refused by the guard, equal
    to the stored row, nothing to remove, or a closed reject. The fold has counted the entries, so that none is
    missing among them; a test classifies every entry by itself and compares. Rows that were changed beyond one for
    each key (which only a repair lets pass) count as read.
    """
    merged = outcome.instance if outcome else Merged(0, 0, 0, snapshot.version("instance"))
    rejected = len(outcome.rejected) if outcome else 0
    read = entries + (outcome.doubled if outcome else 0)
    return {
        "entries_read": read,
        "inserted": merged.inserted,
        "updated": merged.updated,
        "deleted": merged.deleted,
        "superseded": read - merged.changed - rejected,
        "rejected": rejected,
        "merge_seconds": outcome.merge_seconds if outcome else 0.0,
        "rollup_seconds": outcome.rollup_seconds if outcome else 0.0,
        "change_version": snapshot.version("change") if landed is None else landed.version,
        "instance_version": merged.version,
        "series_version": outcome.series_version if outcome else snapshot.version("series"),
        "study_version": outcome.study_version if outcome else snapshot.version("study"),
    }


def record_verb(
    settings: Settings, snapshot: LakeSnapshot, run_id: int, verb: str, started: datetime, finished: datetime
) -> Run:
    """The ledger's row, written, of a verb that succeeded and reads nothing of the feed."""
    row = Run(
        run_id=run_id,
        verb=verb,
        status="succeeded",
        started_at=started,
        finished_at=finished,
        **fitting_versions(snapshot),
        **row_origin(settings),
    )
    snapshot.record(row)
    return row


def row_origin(settings: Settings) -> dict[str, Any]:
    """Who writes a row of the ledger: version, host and settings."""
    return {
        "writer_version": __version__,
        "host": socket.gethostname(),
        "settings_digest": settings.digest,
    }
