"""Rows that became visible after their window was read, found by reading that time again.

design/architecture.md: Late rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from dicom_etl.core.entry import Entry
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import (
    TICKS_PER_SECOND,
    Window,
    floor_to_grid,
    from_datetime,
    subtract,
    union,
    windows_around,
)
from dicom_etl.dicomweb.feed.reader import feed_reader, read_feed
from dicom_etl.lake import ledger
from dicom_etl.lake.coverage import coverage_end
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.sequences import landed_sequences
from dicom_etl.remote.http.client import HttpClient
from dicom_etl.run.write_session import WriteSession

log = logging.getLogger(__name__)

DAY = 24 * 3600 * TICKS_PER_SECOND
# Each instant with late rows costs a request. Of more instants the near ones are read as one, with what lies between.
MOST_INSTANTS = 1000

Sink = Callable[[list[Entry]], None]


def find_late_rows(session: WriteSession, window: Window, now: int, sink: Sink) -> int:
    """How many late rows were found, after ``sink`` has got them with their metadata.

    ``window`` is what this run has read, ``now`` (ticks) what decides how much of it counts as covered. The lake
    may be that of the claim: no run that succeeded later, and none whose landing counts, is missing in it. Raises as
    ``read_feed`` and ``read_rows`` do.
    """
    client, settings = session.client, session.settings
    runs = reading_runs(session.snapshot.runs())
    covered_until = coverage_end(window, now, settings.feed.delay)
    compared = late_rows = 0
    for stretch in second_look(runs, window, covered_until, settings.feed.look_back):
        rest = stretch
        while not rest.empty:
            piece, listed = _listed(client, settings, rest)
            known = landed_sequences(session.snapshot.table("change"), _who_may_have_landed(runs, piece), piece)
            late = {sequence: ticks for sequence, ticks in listed.items() if sequence not in known}
            _fetch(client, settings, late, sink)
            compared, late_rows = compared + len(listed), late_rows + len(late)
            rest = Window(piece.end, rest.end)
    if compared:
        log.info("late-row search done", extra={"run_id": session.run_id, "compared": compared, "found": late_rows})
    return late_rows


def reading_runs(runs: Iterable[Run]) -> list[Run]:
    """The runs whose landings were merged; one that found a late row and died has not brought it.

    From the last rebuild on: it reads everything, and a service that was restored before it gives sequences again.
    """
    all_runs = list(runs)
    first = ledger.last_rebuild(all_runs)
    merged = (run for run in all_runs if run.status == "succeeded" and run.verb in ledger.READING_VERBS)
    return [run for run in merged if run.run_id >= first]


def second_look(runs: Sequence[Run], window: Window, covered_until: int, look_back: int) -> list[Window]:
    """The covered stretches before the end of ``window`` that the run which reads it reads again, in order.

    They begin ``look_back`` before the end of what ``runs`` cover: measured from there and not from now, so that a row
    as late as that is found whenever the next run comes. Once a day, when the run's own coverage (up to
    ``covered_until``) passes midnight UTC, they begin a day before the midnight at which that happened last.
    """
    end = max((covered.end for covered in ledger.covered(runs)), default=None)
    if end is None or not look_back:
        return []
    since = _since_midnight(end, look_back) if covered_until // DAY > end // DAY else end - look_back
    young = union(_young(run, since, window.end, look_back) for run in runs)
    return [part for stretch in young for part in subtract(stretch, [window])]


def oldest_compared(runs: Sequence[Run], look_back: int) -> int | None:
    """The oldest run whose landing a run to come may need for its second look; None when there is none."""
    end = max((covered.end for covered in ledger.covered(runs)), default=None)
    if end is None or not look_back:
        return None
    since = _since_midnight(end, look_back)
    return min((run.run_id for run in runs if not _young(run, since, end, look_back).empty), default=None)


def _since_midnight(end: int, look_back: int) -> int:
    return min(floor_to_grid(end, DAY) - DAY, end - look_back)


def _young(run: Run, since: int, until: int, look_back: int) -> Window:
    """What of [since, until) the run covered when it was less than a day old, or ``look_back`` where that is more.

    Windows of long ago, which a run catches up with, are not read twice: their rows have been visible for as long.
    """
    covered = run.coverage or Window(since, since)
    start = max(covered.start, since, from_datetime(run.started_at) - max(look_back, DAY))
    return Window(start, max(start, min(covered.end, until)))


def _who_may_have_landed(runs: Sequence[Run], piece: Window) -> list[int]:
    """The ids from the first run on that covered any of ``piece``: it has read all that was visible before."""
    covering = [r.run_id for r in runs if r.coverage and r.coverage.start < piece.end and piece.start < r.coverage.end]
    return [run.run_id for run in runs if run.run_id >= min(covering)] if covering else []


def _listed(client: HttpClient, settings: Settings, stretch: Window) -> tuple[Window, dict[int, int]]:
    """The sequences and times that the service shows by now in the front of ``stretch``, and how far that goes.

    As much as a run may read at once: that bounds the memory.
    """
    listed: dict[int, int] = {}
    reading = read_feed(
        feed_reader(client, settings, metadata=False),
        stretch,
        lambda entries: listed.update((entry.sequence, entry.ticks) for entry in entries),
        max_entries=settings.feed.max_entries_per_run,
        grid_ticks=settings.feed.window,
    )
    return reading.window, {sequence: ticks for sequence, ticks in listed.items() if ticks < reading.window.end}


def _fetch(client: HttpClient, settings: Settings, late: dict[int, int], sink: Sink) -> None:
    """Give ``sink`` the late entries with their metadata; one whose metadata cannot be had carries its code."""
    for instant in windows_around(late.values(), MOST_INSTANTS):
        read_feed(
            feed_reader(client, settings),
            instant,
            lambda entries: sink([entry for entry in entries if entry.sequence in late]),
        )
