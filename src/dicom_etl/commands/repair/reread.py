"""What a repair reads again and lands, and the row that it leaves in the ledger.

design/architecture.md: Landing, Coverage and the ledger.
"""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from pyspark.sql import DataFrame

from dicom_etl.commands.verify.unread import Unread
from dicom_etl.core.entry import Entry
from dicom_etl.core.timerange import Window, windows_around
from dicom_etl.dicomweb.feed.reader import feed_reader, read_feed
from dicom_etl.lake.delta.errors import FAILURES
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.rejected import Reject, read_open
from dicom_etl.landing.landing import Landed
from dicom_etl.run.land import commit_landing
from dicom_etl.run.merge import RunResult
from dicom_etl.run.plan import RunPlan
from dicom_etl.run.read import new_landing
from dicom_etl.run.record import row_results
from dicom_etl.run.write_session import WriteSession, row_origin

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
        return cls(sequences, tuple(windows_around(ticks)))

    def __contains__(self, sequence: int) -> bool:
        index = bisect_left(self.sequences, sequence)
        return index < len(self.sequences) and self.sequences[index] == sequence

    def __len__(self) -> int:
        return len(self.sequences)


@dataclass(frozen=True, slots=True)
class Reread:
    """What was landed and how; ``rejects_seen`` are the open rejects among it."""

    landed: Landed
    rejects_seen: tuple[Reject, ...]
    pages: int
    repeated: int
    fetch_seconds: float
    land_seconds: float


def reread(session: WriteSession, plan: RunPlan, wanted: Wanted | None = None) -> Reread:
    """The wanted entries with their metadata, or all of the plan's stretch: in files, not part of ``change`` yet.

    The open rejects are those of the claim.
    """
    began = time.monotonic()
    settings = session.settings
    rejects = {reject.sequence: reject for reject in read_open(session.snapshot.table("rejected"))}
    seen: set[int] = set()
    pages = repeated = end = 0
    with new_landing(session, plan) as landing:

        def land(entries: list[Entry]) -> None:
            taken = entries if wanted is None else [entry for entry in entries if entry.sequence in wanted]
            seen.update(rejects.keys() & {entry.sequence for entry in taken})
            landing.add(taken)

        for window in (plan.stretch,) if wanted is None else wanted.windows:
            reading = read_feed(feed_reader(session.client, settings, progress=session.progress.read), window, land)
            pages += reading.pages
            repeated += reading.repeated if wanted is None else 0
            end = window.end
        fetched = time.monotonic()
        landed = landing.finish(end)
    return Reread(
        landed=landed,
        rejects_seen=tuple(rejects[sequence] for sequence in sorted(seen)),
        pages=pages,
        repeated=repeated + landed.repeated,
        fetch_seconds=fetched - began,
        land_seconds=time.monotonic() - fetched,
    )


def commit(session: WriteSession, read: Reread) -> Reread:
    """The same, part of ``change``. Raises as ``commit_landing``."""
    return replace(read, landed=commit_landing(session, read.landed))


def discard(read: Reread) -> None:
    """Remove the files of a reading that is not committed; what cannot be removed is left to a vacuum."""
    for file in read.landed.files:
        with suppress(*FAILURES):
            read.landed.folder.remove(file.path)


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair found and left, as numbers of rows by table (of instances also by kind), and the ledger's row.

    ``unread`` is what no run has read or will read; a repair does not read it either, a rebuild does.

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
    unread: Unread = Unread()  # noqa: RUF009 - frozen

    @property
    def equal(self) -> bool:
        return not any(self.left.values()) and not self.unlisted and self.search_refused is None

    def as_row(self) -> dict[str, Any]:
        """By name, as a command and a job print it."""
        return {
            "runId": self.run.run_id,
            "equal": self.equal,
            **{f"{table}Differences": count for table, count in self.found.items()},
            "inserted": self.run.inserted,
            "updated": self.run.updated,
            "deleted": self.run.deleted,
            "rejected": self.run.rejected,
            "markedVoid": self.voided,
            "restored": self.restored,
            "missingInFeed": self.unlisted,
            "notRead": self.unread.text,
            "search": self.search_refused or "compared",
            **{f"{table}Remaining": count for table, count in self.left.items()},
            "feedWentBack": self.feed_went_back,
            "leftByKind": self.kinds_left,
        }


def repair_row(
    session: WriteSession,
    plan: RunPlan,
    read: Reread | None,
    outcome: RunResult | None,
    *,
    covered_until: int,
    retries: int,
) -> Run:
    """The row of the ledger, written. Read are the entries that were landed, and one for each row that was removed
    without one: so read = inserted + updated + deleted + superseded + rejected holds here too.
    """
    row = Run(
        run_id=session.run_id,
        verb=session.verb,
        status="succeeded",
        window_start=plan.stretch.start,
        window_end=plan.stretch.end,
        covered_until=covered_until,
        started_at=plan.started_at,
        finished_at=session.now(),
        repeated=read.repeated if read else 0,
        pages=read.pages if read else 0,
        retries=retries,
        fetch_seconds=read.fetch_seconds if read else 0.0,
        land_seconds=read.land_seconds if read else 0.0,
        **row_results(session.snapshot, read.landed if read else None, outcome),
        **row_origin(session.settings),
    )
    session.snapshot.record(row)
    return row
