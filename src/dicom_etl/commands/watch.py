"""Syncs every window as it becomes due, in one warm process: a scheduler for those who have none."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from datetime import datetime
from typing import Protocol

from pyspark.sql import SparkSession

from dicom_etl.commands.sync import follow_in, sync_in
from dicom_etl.commands.sync_request import SyncRequest
from dicom_etl.core.clock import utc_now
from dicom_etl.core.errors import DicomEtlError, StorageError, TemporaryError
from dicom_etl.core.progress import NullProgress, Progress
from dicom_etl.core.settings.model import Feed, Settings
from dicom_etl.core.timerange import TICKS_PER_SECOND, floor_to_grid, format_duration, from_datetime
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.paths import LakePaths, lake_paths
from dicom_etl.run.write_session import Resources
from dicom_etl.tables.engine.errors import named_errors
from dicom_etl.tables.engine.session import Engine

log = logging.getLogger(__name__)

# After a failure that waiting may solve: soon at first, then ever later.
FIRST_PAUSE_SECONDS = 15.0
LONGEST_PAUSE_SECONDS = 600.0
# A clock that is set, or a laptop that slept, is noticed after so long.
_LONGEST_SLEEP_SECONDS = 60.0
# The service's clock may be behind ours: its window is over a little later.
_AFTER_DUE_SECONDS = 2.0


class Stop(Protocol):
    """Whether the process was asked to stop, and a wait that such a request ends; a `threading.Event` is one."""

    def is_set(self) -> bool: ...
    def wait(self, timeout: float) -> object: ...


def watch(
    settings: Settings,
    *,
    stop: Stop,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Run]:
    """The runs, without end, each given when its row stands in the ledger.

    Ends between two runs when ``stop`` is set. Goes on after what waiting may solve (74, 75), later and later while
    it lasts; raises whatever else ends a sync.
    """
    failures = 0
    paths = lake_paths(settings)
    window, delay = format_duration(settings.feed.window), format_duration(settings.feed.delay)
    log.info("watching", extra={"window": window, "delay": delay})
    with ExitStack() as started:
        engine = started.enter_context(Engine(settings.spark, spark, paths))
        while not stop.is_set():
            try:
                with named_errors("Spark"):
                    resources = Resources(settings, None, engine, progress or NullProgress(), clock, sleep)
                    for run in sync_in(resources, SyncRequest(), paths):
                        failures = 0
                        yield run
                        if stop.is_set():
                            return
                    _follow(resources, paths)
                failures = 0
            except (TemporaryError, StorageError) as error:
                failures += 1
                details = {"error": type(error).__name__, "failures": failures, "seconds": _patience(failures)}
                log.warning("sync failed, retrying", extra=details)
                # A JVM that has ended, or one whose disk was full, is of no use any more.
                started.close()
                engine = started.enter_context(Engine(settings.spark, spark, paths))
            _wait(settings.feed, failures, stop, clock)


def _follow(resources: Resources, paths: LakePaths) -> None:
    """Bring the outputs up; what ends one of them stands in its row, and keeps no window from being read."""
    with suppress(DicomEtlError):
        follow_in(resources, paths)


def _wait(feed: Feed, failures: int, stop: Stop, clock: Callable[[], datetime]) -> None:
    """Until the next window is due, or for as long as the last failure deserves."""
    if failures:
        stop.wait(_patience(failures))
        return
    due = next_due(feed, from_datetime(clock()))
    while not stop.is_set():
        left = (due - from_datetime(clock())) / TICKS_PER_SECOND + _AFTER_DUE_SECONDS
        if left <= 0:
            return
        stop.wait(min(left, _LONGEST_SLEEP_SECONDS))


def next_due(feed: Feed, now: int) -> int:
    """When the next window of the grid will have been over for `feed.delay` (ticks); always after ``now``."""
    return floor_to_grid(now - feed.delay, feed.window) + feed.window + feed.delay


def _patience(failures: int) -> float:
    return min(FIRST_PAUSE_SECONDS * 2.0 ** (failures - 1), LONGEST_PAUSE_SECONDS)
