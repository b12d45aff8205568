"""Rows that became visible after their window had been read, found by their missing sequence (architecture §5.10)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc

from dicom_etl.dicomweb.changefeed import read_at, read_feed
from dicom_etl.dicomweb.client import DicomClient
from dicom_etl.dicomweb.poison import Budget
from dicom_etl.dicomweb.sequences import FeedRefused, complete, latest_by_sequence, list_sequences
from dicom_etl.entry import Entry
from dicom_etl.landing.numbers import lowest_later_than, numbers_from
from dicom_etl.open_lake import Lake
from dicom_etl.runs import gaps, ledger
from dicom_etl.runs.ledger import Run
from dicom_etl.settings import Settings
from dicom_etl.window import TICKS_PER_MICROSECOND, Window, subtract, union

log = logging.getLogger(__name__)

# Without the v1 feed each instant with late rows costs requests of its own; what is beyond is the next run's.
MOST_INSTANTS = 200

Sink = Callable[[list[Entry]], None]


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for: ``missing`` numbers, in order, whose rows lie in one of ``stretches``.

    ``highest`` is the largest known number, None when none is known. ``stretches`` end where the run's window ends:
    what lies beyond is the business of windows to come, or of a run that reads as far.
    """

    missing: list[gaps.Numbers]
    highest: int | None
    stretches: list[Window]

    def late(self, entry: Entry, missing: list[gaps.Numbers]) -> bool:
        """Whether it is one of ``missing``, and no window will bring it any more."""
        inside = any(stretch.start <= entry.ticks < stretch.end for stretch in self.stretches)
        return inside and gaps.contains(missing, entry.sequence)


def find_late_rows(
    lake: Lake,
    client: DicomClient,
    settings: Settings,
    *,
    run_id: int,
    window: Window,
    now: int,
    landed: pa.Table,
    sink: Sink,
) -> int:
    """How many late rows were found, after ``sink`` has got them with their metadata.

    ``window`` is what this run has read, ``landed`` the numbers that it brought, ``now`` in ticks. A run that
    catches up with windows of long ago asks nothing: their rows have been visible for as long. Raises as
    ``read_feed`` and ``deltalog.read_rows`` do.
    """
    # What a run has landed and not merged is not known: it may have found a late row, and died.
    runs = [run for run in lake.runs() if run.status == "succeeded" and run.verb in ledger.READING_VERBS]
    covered = ledger.covered(runs)
    since = gaps.young_since(covered, now)
    if window.end <= since:
        return 0
    known = _known(lake, runs, since, landed)
    stretches = [Window(w.start, min(w.end, window.end)) for w in union([*covered, window]) if w.start < window.end]
    search = Search(gaps.missing(known, since), pc.max(known["sequence"]).as_py(), stretches)
    found = 0
    try:
        pages = _by_sequence(client, search, turn=len(runs))
        for late in pages:
            found += len(late)
            sink(late)
    except FeedRefused:
        for late in _by_time(client, settings, search, since, window):
            found += len(late)
            sink(late)
    if search.missing or found:
        log.info("late rows looked for", extra={"run_id": run_id, "gaps": len(search.missing), "found": found})
    return found


def _known(lake: Lake, runs: list[Run], since: int, landed: pa.Table) -> pa.Table:
    """The numbers of the last day and the last one before them, of ``runs`` and of this run."""
    change = lake.table("change")
    recent = [run.run_id for run in runs if run.window_end is not None and run.window_end > since]
    young = landed.filter(pc.greater(landed["timestampTicks"], since))
    lowest = [lowest_later_than(change, recent, since), pc.min(young["sequence"]).as_py()]
    earlier = numbers_from(
        change, [run.run_id for run in runs], min((number for number in lowest if number is not None), default=None)
    )
    return pa.concat_tables([earlier, landed])


def _by_sequence(client: DicomClient, search: Search, turn: int) -> Iterator[list[Entry]]:
    """The late rows, asked for by their numbers. Raises FeedRefused where the service has no v1 feed.

    Without metadata first: nearly every answer is empty, or holds rows of windows to come.
    """
    latest = latest_by_sequence(client)
    missing = list(search.missing)
    if latest is not None:
        missing += gaps.above(search.highest, latest.sequence)
    budget = Budget()
    for numbers in gaps.probes(missing, turn):
        late = [e for e in list_sequences(client, numbers.first, numbers.last) if search.late(e, missing)]
        if late:
            yield complete(client, late, budget)


def _by_time(
    client: DicomClient, settings: Settings, search: Search, since: int, window: Window
) -> Iterator[list[Entry]]:
    """The late rows, by reading the last day once more without metadata and comparing the sequences."""
    missing = [*search.missing, gaps.above_all(search.highest)]
    late: list[Entry] = []
    recent = [Window(max(w.start, since), w.end) for w in search.stretches if w.end > since]
    for stretch in (part for whole in recent for part in subtract(whole, [window])):
        read_feed(
            client,
            stretch,
            batch_size=settings.feed.batch_size,
            connections=settings.dicom.connections,
            sink=lambda entries: late.extend(e for e in entries if search.late(e, missing)),
            include_metadata=False,
        )
    late.sort(key=lambda entry: (entry.ticks, entry.sequence))
    instants = [list(tie) for _, tie in groupby(late, key=lambda entry: entry.ticks // TICKS_PER_MICROSECOND)]
    for tie in instants[:MOST_INSTANTS]:
        yield read_at(client, tie[0].ticks, [entry.sequence for entry in tie])
