"""How far the lake has come: lag, what is due, the last runs; without a JVM and without the service."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dicom_etl.core.clock import utc_now
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import TICKS_PER_SECOND, format_instant, from_datetime
from dicom_etl.lake import coverage, ledger
from dicom_etl.lake.coverage import require_past_start
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.open import existing_lake, refuse_incomplete
from dicom_etl.lake.rejected import read_open
from dicom_etl.lake.snapshot import LakeSnapshot

LAST_RUNS = 5


@dataclass(frozen=True, slots=True)
class Status:
    """``lake_id`` is the lake's own; ``covered_until`` in ticks: everything of the feed before it is in the tables.

    ``entries_per_second`` is that of the last run that read any; ``eta_seconds`` how long what is due may take
    at its pace, null when it cannot be told. ``last_error`` is the error class of the newest row that read the feed or
    failed, null when that succeeded, and ``last_error_at`` when it ended: a sync that finds nothing due leaves no row.
    ``open_rejects`` is null for a user who may not read the private tables.
    """

    lake_id: uuid.UUID
    covered_until: int
    lag_seconds: float
    windows_due: int
    entries_per_second: float | None
    eta_seconds: float | None
    open_rejects: int | None
    last_error: str | None
    last_runs: tuple[Run, ...]
    last_error_at: datetime | None = None

    def as_row(self) -> dict[str, Any]:
        """By name, as a command and a job print it; without the runs, which have rows of their own."""
        return {
            "coveredUntil": format_instant(self.covered_until),
            "lagSeconds": self.lag_seconds,
            "windowsDue": self.windows_due,
            "entriesPerSecond": self.entries_per_second,
            "eta": self.eta_seconds,
            "openRejects": self.open_rejects,
            "lastError": self.last_error,
            "lastErrorAt": self.last_error_at,
        }


def status(settings: Settings, *, clock: Callable[[], datetime] = utc_now) -> Status:
    """The lake's state by its ledger, as of now.

    Raises ConfigurationError when there is no lake, DataError when one of its shared tables has vanished, whatever the
    ledger says.
    """
    require_past_start(settings.feed.start, from_datetime(clock()))
    snapshot = existing_lake(settings, private=False)
    result = _status(snapshot, snapshot.runs(), settings, clock)
    refuse_incomplete(snapshot, private=False)
    return result


def status_and_runs(
    settings: Settings, *, clock: Callable[[], datetime] = utc_now
) -> tuple[Status, list[Run], LakeSnapshot]:
    """The lake's state as of now, the whole ledger that tells it, and the lake.

    Raises ConfigurationError when there is no lake.

    Asks for no table that only data are in: metrics are to be written after a failed run above all.
    """
    snapshot = existing_lake(settings, private=False)
    runs = snapshot.runs()
    return _status(snapshot, runs, settings, clock), runs, snapshot


def _status(snapshot: LakeSnapshot, runs: list[Run], settings: Settings, clock: Callable[[], datetime]) -> Status:
    now = from_datetime(clock())
    feed = settings.feed
    covered = ledger.covered(runs)
    covered_until = min(now, coverage.covered_until(feed.start, covered))
    stretches = coverage.due(now, start=feed.start, window=feed.window, delay=feed.delay, covered=covered)
    windows_due = coverage.windows_in(stretches, feed.window)
    told = next((run for run in reversed(runs) if run.covers or run.error_class), None)
    return Status(
        lake_id=snapshot.lake.identity.lake_id,
        covered_until=covered_until,
        lag_seconds=max(0, now - covered_until) / TICKS_PER_SECOND,
        windows_due=windows_due,
        entries_per_second=_pace(runs),
        eta_seconds=_eta_seconds(runs, windows_due, feed.window),
        open_rejects=len(read_open(snapshot.table("rejected"))) if snapshot.readable("rejected") else None,
        last_error=None if told is None else told.error_class,
        last_runs=tuple(runs[-LAST_RUNS:]),
        last_error_at=told.finished_at if told and told.error_class else None,
    )


def all_runs(settings: Settings) -> list[Run]:
    """The ledger, by run id. Raises ConfigurationError when there is no lake."""
    return existing_lake(settings, private=False).runs()


def _seconds(run: Run) -> float:
    return (run.finished_at - run.started_at).total_seconds()


def _pace(runs: list[Run]) -> float | None:
    """Entries a second of the newest run that read any."""
    reading = [run for run in runs if run.status == "succeeded" and run.entries_read and _seconds(run) > 0]
    return reading[-1].entries_read / _seconds(reading[-1]) if reading else None


def _eta_seconds(runs: list[Run], windows_due: int, window: int) -> float | None:
    """Windows due at the newest run's pace in windows; what they hold is not known before they are read."""
    if not windows_due:
        return 0.0
    for run in reversed(runs):
        if run.covers and run.coverage is not None:
            windows = max(1, coverage.windows_in([run.coverage], window))
            return windows_due * _seconds(run) / windows
    return None
