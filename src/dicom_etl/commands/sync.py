"""Brings the tables up to the service: every due window, or exactly one range.

design/architecture.md: Flow of a run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from pyspark.sql import SparkSession

from dicom_etl.commands.adopt import adopt, strangers
from dicom_etl.commands.sync_request import Request
from dicom_etl.core.clock import utc_now
from dicom_etl.core.progress import Progress, Silent
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import Window, from_datetime
from dicom_etl.dicomweb.feed.reader import service_now
from dicom_etl.lake import coverage, ledger
from dicom_etl.lake.claims.claim import Claim
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
from dicom_etl.lake.paths import Places, places
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.remote.http.client import DicomClient, connect
from dicom_etl.remote.identity import dicom_tokens
from dicom_etl.run.feed_continuity import refuse_a_feed_that_went_back
from dicom_etl.run.pipeline import Read, run
from dicom_etl.run.plan import Task
from dicom_etl.run.prefetch import ReadAhead
from dicom_etl.run.read import fetch, new_landing
from dicom_etl.run.roll_up import rollups_outstanding
from dicom_etl.run.write_session import failure_recorded, writing
from dicom_etl.tables.engine.session import Engine


def sync(
    settings: Settings,
    request: Request,
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
    where = places(settings)
    with Engine(settings.spark, spark, where) as engine:
        yield from sync_in(engine, settings, request, where=where, progress=progress, clock=clock, sleep=sleep)


def sync_in(
    engine: Engine,
    settings: Settings,
    request: Request,
    *,
    where: Places | None = None,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Run]:
    """The same in an engine that the caller keeps, so that the next sync finds it warm.

    ``where`` are the places of ``settings``, for a caller that has them: each time they are made, Azure is asked
    for a token.
    """
    where = where or places(settings)
    service = service_fingerprint(settings.dicom.base_url)
    progress = progress or Silent()
    with connect(settings.dicom, dicom_tokens(settings.dicom), sleep=sleep) as client, ReadAhead() as ahead:
        tools = _Tools(settings, where, service, client, engine, ahead, progress, clock, sleep)
        if request.adopt and strangers(where):
            yield _adopted(tools)
        if request.init:
            init_lake(where, service)
        plan: _Plan | None = None
        done = 0
        while plan is None or (plan.left and done != request.max_runs):
            done += 1
            ended = _next_run(tools, request, plan, last=done == request.max_runs)
            if ended is None:
                return
            row, plan = ended
            progress.windows_left(coverage.windows_in(plan.left, settings.feed.window))
            yield row


@dataclass(frozen=True, slots=True)
class _Tools:
    """What every run of one sync works with."""

    settings: Settings
    where: Places
    service: str
    client: DicomClient
    engine: Engine
    ahead: ReadAhead
    progress: Progress
    clock: Callable[[], datetime]
    sleep: Callable[[float], None]

    def claimed(
        self, verb: str, snapshot: LakeSnapshot | None, holding: Collection[int] = ()
    ) -> AbstractContextManager[Claim]:
        floor = highest_run_id(snapshot)
        return writing(self.where, verb, floor, self.client, self.engine, self.clock, self.sleep, holding)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is left to read, oldest first, and the instant (ticks) by which that was decided."""

    left: list[Window]
    now: int
    exact: bool

    def task(self, run_id: int, started_at: datetime) -> Task:
        return Task(run_id, "sync", self.left[0], self.exact, self.now, started_at)

    def after(self, read_until: int | None) -> _Plan:
        """What is left after a run that may have been cut at a window's edge."""
        first, *others = self.left
        if read_until is not None and read_until < first.end:
            others = [Window(read_until, first.end), *others]
        return replace(self, left=others)


def _adopted(tools: _Tools) -> Run:
    settings, where, service = tools.settings, tools.where, tools.service
    with tools.claimed("adopt", find_lake(where, service, adopting=True)) as held:
        return adopt(settings, where, service, tools.engine, held.run_id, clock=tools.clock, progress=tools.progress)


def _next_run(tools: _Tools, request: Request, plan: _Plan | None, *, last: bool) -> tuple[Run, _Plan] | None:
    """One run and what is left after it; None when nothing is due. Without a ``plan`` it is made, after the claim."""
    settings = tools.settings
    begun = tools.ahead.take()
    with ExitStack() as stack:
        if begun is not None:
            stack.push(begun.stack)
            held = begun.claim
            # Opened again, and not the last run's refreshed: a table that was taken away or put back meanwhile shows.
            snapshot = lake_at(tools.where, tools.service)
        else:
            snapshot = lake_at(tools.where, tools.service)
            held = stack.enter_context(tools.claimed("sync", snapshot))
            snapshot.refresh()
        reading = list(plan.left) if plan is not None else []
        with failure_recorded(held.run_id, "sync", reading, settings, snapshot, tools.clock):
            if plan is None:
                plan = _planned(tools, request, snapshot)
                reading += plan.left
                refuse_restored(snapshot)
                refuse_a_feed_that_went_back(tools.client, snapshot)
            if not plan.left and rollups_outstanding(snapshot):
                plan = replace(plan, left=[Window(plan.now, plan.now)])  # nothing to read, but a dead run's work
            if not plan.left:
                refuse_incomplete(snapshot)
                return None
            tools.progress.windows_left(coverage.windows_in(plan.left, settings.feed.window))
            make_private_tables(snapshot)
            row = run(
                begun.task if begun is not None else plan.task(held.run_id, tools.clock()),
                settings,
                snapshot,
                tools.client,
                tools.engine,
                clock=tools.clock,
                progress=tools.progress,
                begun=begun.reading if begun is not None else None,
                landed=_nothing if last else partial(_read_on, tools, snapshot, plan, held.run_id),
            )
    return row, plan.after(row.window_end)


def _planned(tools: _Tools, request: Request, snapshot: LakeSnapshot) -> _Plan:
    now = _now(tools.client, tools.clock)
    return _Plan(_stretches(tools.settings, request, snapshot, now), now, request.exactly is not None)


def _nothing(read: Read) -> None:
    del read


def _read_on(tools: _Tools, snapshot: LakeSnapshot, plan: _Plan, run_id: int, read: Read) -> None:
    """Let the next run's range be read while this run merges.

    The highest run id of this run's claim will do: its own claim is a file above it.
    """
    rest = plan.after(read.reading.window.end)
    if not rest.left:
        return
    settings, client, engine = tools.settings, tools.client, tools.engine
    tools.ahead.begin(
        tools.claimed("sync", snapshot, holding=(run_id,)),
        lambda next_id: rest.task(next_id, tools.clock()),
        lambda task: new_landing(task, settings, snapshot.lake),
        lambda task, landing, stop: fetch(task, settings, snapshot, client, engine, landing, Silent(), stop),
    )


def planned(settings: Settings, request: Request, *, clock: Callable[[], datetime] = utc_now) -> list[Window]:
    """What `sync` would read now (--dry-run): no claim is taken and nothing is written."""
    where = places(settings)
    service = service_fingerprint(settings.dicom.base_url)
    if request.init or (request.adopt and strangers(where)):  # the sync itself would make the lake
        snapshot = find_lake(where, service, adopting=request.adopt)
    else:
        snapshot = lake_at(where, service)
    if snapshot is not None and not request.adopt:
        refuse_incomplete(snapshot)
        refuse_restored(snapshot)
    with connect(settings.dicom, dicom_tokens(settings.dicom)) as client:
        return _stretches(settings, request, snapshot, _now(client, clock))


def _now(client: DicomClient, clock: Callable[[], datetime]) -> int:
    """The earlier of our clock and the service's, in ticks: neither may run ahead.

    design/architecture.md: Coverage and the ledger.
    """
    theirs = service_now(client)
    ours = from_datetime(clock())
    return ours if theirs is None else min(ours, theirs)


def _stretches(settings: Settings, request: Request, snapshot: LakeSnapshot | None, now: int) -> list[Window]:
    """The ranges to read, oldest first."""
    if request.exactly is not None:
        return [request.exactly]
    coverage.refuse_a_start_to_come(settings.feed.start, now)
    covered = ledger.covered(snapshot.runs()) if snapshot is not None else []
    feed = settings.feed
    if request.until is not None:
        return coverage.until(request.until, start=feed.start, covered=covered)
    return coverage.due(now, start=feed.start, window=feed.window, delay=feed.delay, covered=covered)
