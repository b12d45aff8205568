"""Brings the tables up to the service: every due window, or exactly one range (architecture §5)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from pyspark.sql import SparkSession

from dicom_etl.adopt import adopt, strangers
from dicom_etl.azure import dicom_tokens
from dicom_etl.clock import utc_now
from dicom_etl.dicomweb.changefeed import service_now
from dicom_etl.dicomweb.client import DicomClient, connect
from dicom_etl.errors import UsageError
from dicom_etl.lake.session import Engine
from dicom_etl.merging import rollups_outstanding
from dicom_etl.one_run import Task, refuse_a_feed_that_went_back, run
from dicom_etl.open_lake import Lake, find_lake, highest_run_id, make_lake, make_private_tables
from dicom_etl.places import places
from dicom_etl.progress import Progress, Silent
from dicom_etl.runs import due, ledger
from dicom_etl.runs.identity import service_fingerprint
from dicom_etl.runs.ledger import Run
from dicom_etl.settings import Settings
from dicom_etl.window import Window, from_datetime, parse_instant
from dicom_etl.writer import failure_recorded, writing


@dataclass(frozen=True, slots=True)
class Request:
    """What to read: nothing given means every due window.

    ``exactly`` is one range in one run (--start/--end); ``until`` every uncovered stretch before it, once
    (--until, ticks). ``max_runs`` bounds the number of runs. ``adopt``: tables of the Data Factory template are
    taken over first.
    """

    exactly: Window | None = None
    until: int | None = None
    max_runs: int | None = None
    adopt: bool = False


def request(
    start: str | None, end: str | None, until: str | None, max_runs: int | None, *, adopt: bool = False
) -> Request:
    """The request of a command line, instants as RFC 3339. Raises UsageError when they make no sense."""
    begin, stop, last = (
        _instant(name, text) for name, text in (("--start", start), ("--end", end), ("--until", until))
    )
    if max_runs is not None and max_runs < 1:
        raise UsageError("--max-runs: expected a number of at least 1")
    if last is not None and (begin is not None or stop is not None):
        raise UsageError("--until does not go with --start and --end")
    if begin is None and stop is None:
        return Request(until=last, max_runs=max_runs, adopt=adopt)
    if begin is None or stop is None:
        raise UsageError("--start and --end go together")
    if stop <= begin:
        raise UsageError("--end must be after --start")
    return Request(exactly=Window(begin, stop), max_runs=max_runs, adopt=adopt)


def _instant(option: str, text: str | None) -> int | None:
    try:
        # The template's parameter StartTime begins with the year 1; no feed is older than 1970.
        return None if text is None else max(0, parse_instant(text))
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error


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
    Raises AnotherWriter when somebody else writes this lake, and what a run raises.
    """
    with Engine(settings.spark, spark) as engine:
        yield from sync_in(engine, settings, request, progress=progress, clock=clock, sleep=sleep)


def sync_in(
    engine: Engine,
    settings: Settings,
    request: Request,
    *,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Run]:
    """The same in an engine that the caller keeps, so that the next sync finds it warm."""
    where = places(settings.lake)
    service = service_fingerprint(settings.dicom.base_url)
    progress = progress or Silent()
    left: list[Window] | None = None
    now = 0
    done = 0
    with connect(settings.dicom, dicom_tokens(settings.dicom), sleep=sleep) as client:
        if request.adopt and strangers(where):
            floor = highest_run_id(find_lake(where, service, adopting=True))
            with writing(where, "adopt", floor, client, engine, clock, sleep) as held:
                row = adopt(settings, where, service, engine, held.run_id, clock=clock, progress=progress)
            yield row
        while left is None or (left and done != request.max_runs):
            floor = highest_run_id(find_lake(where, service))
            with writing(where, "sync", floor, client, engine, clock, sleep) as held:
                lake = find_lake(where, service)
                reading = list(left or [])
                with failure_recorded(held.run_id, "sync", reading, settings, lake, clock):
                    if left is None:
                        now = _now(client, clock)
                        left = _stretches(settings, request, lake, now)
                        reading += left
                        _refuse_what_cannot_be(client, lake)
                    if not left and lake is not None and rollups_outstanding(lake):
                        left = [Window(now, now)]  # nothing to read, but a dead run's work to finish
                    if not left:
                        return
                    progress.windows_left(due.windows_in(left, settings.feed.window))
                    lake = lake or make_lake(where, service)
                    make_private_tables(lake)
                    task = Task(held.run_id, "sync", left[0], request.exactly is not None, now, clock())
                    row = run(task, settings, lake, client, engine, clock=clock, progress=progress)
            left = _rest(left, row)
            progress.windows_left(due.windows_in(left, settings.feed.window))
            done += 1
            yield row


def _refuse_what_cannot_be(client: DicomClient, lake: Lake | None) -> None:
    if lake is not None:
        refuse_a_feed_that_went_back(client, lake)


def planned(settings: Settings, request: Request, *, clock: Callable[[], datetime] = utc_now) -> list[Window]:
    """What `sync` would read now (--dry-run): no claim is taken and nothing is written."""
    where = places(settings.lake)
    lake = find_lake(where, service_fingerprint(settings.dicom.base_url), adopting=request.adopt)
    with connect(settings.dicom, dicom_tokens(settings.dicom)) as client:
        return _stretches(settings, request, lake, _now(client, clock))


def _now(client: DicomClient, clock: Callable[[], datetime]) -> int:
    """The earlier of our clock and the service's, in ticks: neither may run ahead (architecture §5.3)."""
    theirs = service_now(client)
    ours = from_datetime(clock())
    return ours if theirs is None else min(ours, theirs)


def _stretches(settings: Settings, request: Request, lake: Lake | None, now: int) -> list[Window]:
    """The ranges to read, oldest first."""
    if request.exactly is not None:
        return [request.exactly]
    covered = ledger.covered(lake.runs()) if lake is not None else []
    feed = settings.feed
    if request.until is not None:
        return due.until(request.until, start=feed.start, covered=covered)
    return due.due(now, start=feed.start, window=feed.window, delay=feed.delay, covered=covered)


def _rest(stretches: list[Window], row: Run) -> list[Window]:
    """What is left after a run that may have been cut at a window's edge."""
    first, *others = stretches
    read_until = row.window_end if row.window_end is not None else first.end
    return [Window(read_until, first.end), *others] if read_until < first.end else others
