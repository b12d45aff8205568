"""What a repair reads again and lands, and the row that it leaves in the ledger.

design/architecture.md: Landing, Coverage and the ledger.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from pyspark.sql import DataFrame

from dicom_etl.core.entry import Entry
from dicom_etl.core.progress import Progress
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.stretches import stretches_around
from dicom_etl.core.timerange import Window
from dicom_etl.dicomweb.feed.reader import read_feed
from dicom_etl.lake.delta.errors import FAILURES
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.rejected import Reject, read_open
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.landing.landing import Landed
from dicom_etl.remote.http.client import DicomClient
from dicom_etl.run.merge import Outcome
from dicom_etl.run.pipeline import commit_landing, row_origin, row_results
from dicom_etl.run.plan import Task
from dicom_etl.run.read import new_landing

# The instants of more entries than this are read again as one stretch of the feed.
_MOST_INSTANTS = 100_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """The entries that a repair reads again: their sequences, in order, and the windows that hold them.

    16 bytes an entry, since all 10^7 of a lake may differ.
    """

    sequences: array[int]
    windows: tuple[Window, ...]

    @classmethod
    def of(cls, entries: DataFrame) -> Wanted:
        """Of the frame's ``sequence`` and ``timestampTicks``."""
        sequences, ticks = array("q"), array("q")
        for row in entries.select("sequence", "timestampTicks").orderBy("sequence").toLocalIterator():
            sequences.append(row[0])
            ticks.append(row[1])
        if len(ticks) > _MOST_INSTANTS:
            return cls(sequences, (Window(min(ticks), max(ticks) + 1),))
        return cls(sequences, tuple(stretches_around(ticks)))

    def __contains__(self, sequence: int) -> bool:
        place = bisect_left(self.sequences, sequence)
        return place < len(self.sequences) and self.sequences[place] == sequence

    def __len__(self) -> int:
        return len(self.sequences)


@dataclass(frozen=True, slots=True)
class Reread:
    """What was landed and how; ``met`` are the open rejects among it."""

    landed: Landed
    met: tuple[Reject, ...]
    pages: int
    repeated: int
    fetch_seconds: float
    land_seconds: float


def reread(
    task: Task,
    settings: Settings,
    snapshot: LakeSnapshot,
    client: DicomClient,
    progress: Progress,
    wanted: Wanted | None = None,
) -> Reread:
    """The wanted entries with their metadata, or all of the task's stretch: in files, not part of ``change`` yet."""
    began = time.monotonic()
    rejects = {reject.sequence: reject for reject in read_open(snapshot.table("rejected"))}
    met: set[int] = set()
    pages = repeated = end = 0
    with new_landing(task, settings, snapshot.lake) as landing:

        def land(entries: list[Entry]) -> None:
            taken = entries if wanted is None else [entry for entry in entries if entry.sequence in wanted]
            met.update(rejects.keys() & {entry.sequence for entry in taken})
            landing.add(taken)

        for window in (task.stretch,) if wanted is None else wanted.windows:
            reading = read_feed(
                client,
                window,
                batch_size=settings.feed.batch_size,
                connections=settings.dicom.connections,
                sink=land,
                progress=progress.read,
            )
            pages += reading.pages
            repeated += reading.repeated if wanted is None else 0
            end = window.end
        fetched = time.monotonic()
        landed = landing.finish(end)
    return Reread(
        landed=landed,
        met=tuple(rejects[sequence] for sequence in sorted(met)),
        pages=pages,
        repeated=repeated + landed.repeated,
        fetch_seconds=fetched - began,
        land_seconds=time.monotonic() - fetched,
    )


def commit(read: Reread, task: Task, snapshot: LakeSnapshot) -> Reread:
    """The same, part of ``change``. Raises as ``commit_landing``."""
    return replace(read, landed=commit_landing(task, snapshot, read.landed))


def discard(read: Reread) -> None:
    """Remove the files of a reading that is not committed; what cannot be removed is left to a vacuum."""
    for file in read.landed.files:
        with suppress(*FAILURES):
            read.landed.folder.remove(file.path)


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair found and left, as numbers of rows by table (of instances also by kind), and the ledger's row.

    ``voided`` counts the keys that the feed still shows and the service no longer has, ``restored`` those that it has
    again. ``unlisted`` are keys that the service has and the feed does not show: no repair reads them. A rebuild
    compares nothing first: ``found`` is empty then. ``search_refused`` says why the service's search could not be
    asked, null when it was. ``feed_went_back``: the service was restored to an earlier state, and the tables followed.
    """

    run: Run
    found: dict[str, int]
    left: dict[str, int]
    kinds_left: dict[str, int]
    voided: int
    restored: int
    unlisted: int
    search_refused: str | None
    feed_went_back: bool = False

    @property
    def equal(self) -> bool:
        return not any(self.left.values()) and not self.unlisted and self.search_refused is None


def repair_row(
    task: Task,
    settings: Settings,
    snapshot: LakeSnapshot,
    read: Reread | None,
    outcome: Outcome | None,
    *,
    removed: int = 0,
    covered_until: int,
    retries: int,
    finished_at: datetime,
) -> Run:
    """The row of the ledger, written. Read are the entries that were landed, and one for each of the rows ``removed``
    without one: so read = inserted + updated + deleted + superseded + rejected holds here too.
    """
    row = Run(
        run_id=task.run_id,
        verb=task.verb,
        status="succeeded",
        window_start=task.stretch.start,
        window_end=task.stretch.end,
        covered_until=covered_until,
        started_at=task.started_at,
        finished_at=finished_at,
        repeated=read.repeated if read else 0,
        pages=read.pages if read else 0,
        retries=retries,
        fetch_seconds=read.fetch_seconds if read else 0.0,
        land_seconds=read.land_seconds if read else 0.0,
        **row_results(snapshot, read.landed if read else None, (read.landed.entries if read else 0) + removed, outcome),
        **row_origin(settings),
    )
    snapshot.record(row)
    return row
