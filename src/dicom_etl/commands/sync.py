"""Brings the tables up to the service: every due window, or one range.

design/architecture.md: Flow of a run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from pyspark.sql import SparkSession

from dicom_etl.commands.adopt import adopt, foreign_tables
from dicom_etl.commands.columns.update import Tools
from dicom_etl.commands.outputs import follow
from dicom_etl.commands.sync_request import SyncRequest
from dicom_etl.core.clock import utc_now
from dicom_etl.core.progress import NullProgress, Progress
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import Window, format_instant, from_datetime
from dicom_etl.dicomweb.connect import connect
from dicom_etl.dicomweb.feed.reader import service_now
from dicom_etl.lake import coverage, ledger
from dicom_etl.lake.lake_id import service_fingerprint
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.open import (
    find_lake,
    highest_run_id,
    init_lake,
    lake_at,
    make_private_tables,
    refuse_incomplete,
    refuse_restored,
)
from dicom_etl.lake.paths import LakePaths, lake_paths
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.remote.http.client import HttpClient
from dicom_etl.remote.identity import dicom_tokens
from dicom_etl.run.feed_continuity import refuse_reset_feed
from dicom_etl.run.land import Read
from dicom_etl.run.pipeline import run
from dicom_etl.run.plan import RunPlan
from dicom_etl.run.prefetch import Prefetcher
from dicom_etl.run.roll_up import rollups_outstanding
from dicom_etl.run.write_session import Resources, WriteSession, claimed, failure_recorded, write_session
from dicom_etl.tables.engine.session import Engine

log = logging.getLogger(__name__)


def sync(
    settings: Settings,
    request: SyncRequest,
    *,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Run]:
    """The runs, oldest windows first, each given when its row stands in the ledger; none when nothing is due.

    ``spark`` is a cluster's own session; without it one is started when there is something to merge.
    Raises ConfigurationError when there is no lake and ``request`` does not ask for one, AnotherWriter when somebody
    else writes this lake, and what a run raises.
    """
    paths = lake_paths(settings)
    with Engine(settings.spark, spark, paths) as engine:
        resources = Resources(settings, None, engine, progress or NullProgress(), clock, sleep)
        yield from sync_in(resources, request, paths)
        follow_in(resources, paths)


def follow_in(resources: Resources, paths: LakePaths) -> None:
    """Bring the outputs of ``outputs.after_sync`` up to the last run, in the engine that the sync has warmed.

    Raises the first error of an output: the runs have their rows by then.
    """
    names, settings = resources.settings.outputs.after_sync, resources.settings
    if names:
        snapshot = lake_at(paths, service_fingerprint(settings.dicom.base_url))
        tools = Tools(settings, resources.engine, resources.progress, resources.clock, resources.sleep)
        follow(tools, snapshot, names)


def sync_in(resources: Resources, request: SyncRequest, paths: LakePaths | None = None) -> Iterator[Run]:
    """The same in an engine that the caller keeps, so that the next sync finds it warm; the client is opened here.

    ``paths`` are the places of the settings, for a caller that has them: each time they are made, Azure is asked for a
    token.
    """
    settings, progress = resources.settings, resources.progress
    paths = paths or lake_paths(settings)
    service = service_fingerprint(settings.dicom.base_url)
    tokens = dicom_tokens(settings.dicom)
    with connect(settings.dicom, tokens, sleep=resources.sleep) as client, Prefetcher() as prefetcher:
        resources = replace(resources, client=client)
        if request.adopt and foreign_tables(paths):
            yield _adopted(resources, paths, service)
        if request.init:
            init_lake(paths, service)
        work = _Sync(request, paths, service, resources, prefetcher)
        left: _Left | None = None
        done = 0
        try:
            while left is None or (left.stretches and done != request.max_runs):
                done += 1
                ended = _next_run(work, left, last=done == request.max_runs)
                if ended is None:
                    return
                row, left = ended
                progress.windows_left(coverage.windows_in(left.stretches, settings.feed.window))
                yield row
        finally:
            if request.exactly is not None and left is not None:
                _say_what_is_left(left.stretches)


def _say_what_is_left(stretches: list[Window]) -> None:
    """Log where a range that ended early goes on: the ledger cannot tell, a range is read whether covered or not."""
    if stretches:
        log.warning(
            "range not read to its end; go on there by --start and --end",
            extra={"read_until": format_instant(stretches[0].start), "end": format_instant(stretches[-1].end)},
        )


@dataclass(frozen=True, slots=True)
class _Sync:
    """What every run of one sync works with."""

    request: SyncRequest
    paths: LakePaths
    service: str
    resources: Resources
    prefetcher: Prefetcher

    def opened(self) -> LakeSnapshot:
        return lake_at(self.paths, self.service)


@dataclass(frozen=True, slots=True)
class _Left:
    """What is left to read, oldest first, and the instant (ticks) by which that was decided."""

    stretches: list[Window]
    now: int
    exact: bool

    def plan(self, started_at: datetime) -> RunPlan:
        return RunPlan(self.stretches[0], self.exact, self.now, started_at)

    def after(self, read_until: int | None) -> _Left:
        """What is left after a run that may have been cut at a window's edge."""
        first, *others = self.stretches
        if read_until is not None and read_until < first.end:
            others = [Window(read_until, first.end), *others]
        return replace(self, stretches=others)


def _adopted(resources: Resources, paths: LakePaths, service: str) -> Run:
    with claimed(resources, "adopt", paths, highest_run_id(find_lake(paths, service, adopting=True))) as own_claim:
        return adopt(resources, paths, service, own_claim)


def _next_run(work: _Sync, left: _Left | None, *, last: bool) -> tuple[Run, _Left] | None:
    """One run and what is left after it; None when nothing is due. What is ``left`` is decided after the first claim.

    For a run that was begun ahead the lake is opened again, and not the last run's refreshed: a table that was taken
    away or put back meanwhile shows.
    """
    begun = work.prefetcher.take()
    with ExitStack() as stack:
        if begun is None:
            session = stack.enter_context(write_session(work.resources, "sync", work.opened()))
        else:
            stack.push(begun.stack)
            session = replace(begun.session, snapshot=work.opened(), resources=work.resources)
        reading = list(left.stretches) if left is not None else []
        with failure_recorded(session, reading):
            if left is None:
                left = _decided(work.request, session)
                reading += left.stretches
                refuse_restored(session.snapshot)
                refuse_reset_feed(session.client, session.snapshot)
            if not left.stretches and rollups_outstanding(session.snapshot):
                left = replace(left, stretches=[Window(left.now, left.now)])  # nothing to read, but a dead run's work
            if not left.stretches:
                refuse_incomplete(session.snapshot)
                return None
            session.progress.windows_left(coverage.windows_in(left.stretches, session.settings.feed.window))
            make_private_tables(session.snapshot)
            row = run(
                session,
                left.plan(session.now()) if begun is None else begun.plan,
                None if begun is None else begun.reading,
                None if last else partial(_prefetch, work.prefetcher, session, left),
            )
    return row, left.after(row.window_end)


def _decided(request: SyncRequest, session: WriteSession) -> _Left:
    """What there is to read, by the ledger as it was after the claim."""
    now = _now(session.client, session.resources.clock)
    asked, window = request.exactly, session.settings.feed.window
    exact = asked is not None and asked.end - asked.start <= window  # a scheduler's window: one run of any size
    return _Left(_stretches(session.settings, request, session.snapshot, now), now, exact)


def _prefetch(prefetcher: Prefetcher, session: WriteSession, left: _Left, read: Read) -> None:
    """Let the next run's range be read while this run merges."""
    rest = left.after(read.reading.window.end)
    if rest.stretches:
        prefetcher.begin(session, rest.plan(session.now()))


def planned(settings: Settings, request: SyncRequest, *, clock: Callable[[], datetime] = utc_now) -> list[Window]:
    """What `sync` would read now (--dry-run): no claim is taken and nothing is written."""
    paths = lake_paths(settings)
    service = service_fingerprint(settings.dicom.base_url)
    if request.init or (request.adopt and foreign_tables(paths)):  # the sync itself would make the lake
        snapshot = find_lake(paths, service, adopting=request.adopt)
    else:
        snapshot = lake_at(paths, service)
    if snapshot is not None and not request.adopt:
        refuse_incomplete(snapshot)
        refuse_restored(snapshot)
    with connect(settings.dicom, dicom_tokens(settings.dicom)) as client:
        return _stretches(settings, request, snapshot, _now(client, clock))


def _now(client: HttpClient, clock: Callable[[], datetime]) -> int:
    """The earlier of our clock and the service's, in ticks: neither may run ahead.

    design/architecture.md: Coverage and the ledger.
    """
    theirs = service_now(client)
    ours = from_datetime(clock())
    return ours if theirs is None else min(ours, theirs)


def _stretches(settings: Settings, request: SyncRequest, snapshot: LakeSnapshot | None, now: int) -> list[Window]:
    """The ranges to read, oldest first."""
    if request.exactly is not None:
        return [request.exactly]
    coverage.require_past_start(settings.feed.start, now)
    covered = ledger.covered(snapshot.runs()) if snapshot is not None else []
    feed = settings.feed
    if request.until is not None:
        return coverage.until(request.until, start=feed.start, covered=covered)
    return coverage.due(now, start=feed.start, window=feed.window, delay=feed.delay, covered=covered)
