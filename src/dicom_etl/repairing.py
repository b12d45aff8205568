"""What a repair lands, and what it leaves in ``rejected`` and in the ledger (architecture §5.5, §5.8, §5.9)."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from dicom_etl.dicomweb.changefeed import read_feed
from dicom_etl.dicomweb.client import DicomClient
from dicom_etl.entry import Entry
from dicom_etl.fetching import new_landing
from dicom_etl.landing.files import Landed
from dicom_etl.landing.rejects import Reject, read_open
from dicom_etl.merging import Outcome
from dicom_etl.one_run import commit_landing, row_origin, row_results
from dicom_etl.open_lake import Lake
from dicom_etl.progress import Progress
from dicom_etl.runs.ledger import Run
from dicom_etl.settings import Settings
from dicom_etl.task import Task
from dicom_etl.window import Window


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
    lake: Lake,
    client: DicomClient,
    windows: Iterable[Window],
    progress: Progress,
    *,
    only: Collection[int] | None = None,
) -> Reread:
    """The entries of the windows with their metadata, or those of the sequences ``only``, landed in ``change``."""
    began = time.monotonic()
    rejects = {reject.sequence: reject for reject in read_open(lake.table("rejected"))}
    met: set[int] = set()
    pages = repeated = end = 0
    with new_landing(task, settings, lake) as landing:

        def land(entries: list[Entry]) -> None:
            wanted = entries if only is None else [entry for entry in entries if entry.sequence in only]
            met.update(rejects.keys() & {entry.sequence for entry in wanted})
            landing.add(wanted)

        for window in windows:
            reading = read_feed(
                client,
                window,
                batch_size=settings.feed.batch_size,
                connections=settings.dicom.connections,
                sink=land,
                progress=progress.read,
            )
            pages += reading.pages
            repeated += reading.repeated if only is None else 0
            end = window.end
        fetched = time.monotonic()
        landed = landing.finish(end)
    landed = commit_landing(task, lake, landed)
    return Reread(
        landed=landed,
        met=tuple(rejects[sequence] for sequence in sorted(met)),
        pages=pages,
        repeated=repeated + landed.repeated,
        fetch_seconds=fetched - began,
        land_seconds=time.monotonic() - fetched,
    )


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair found and left, as numbers of rows by table, and the ledger's row.

    ``voided`` counts the keys that the feed still shows and the service no longer holds, ``served_again`` those
    that it holds again. ``unlisted`` are keys that the service holds and the feed does not show: nothing mends them.
    A rebuild compares nothing first: ``found`` is empty then. ``search_refused`` says why the service's search
    could not be asked, null when it was.
    """

    run: Run
    found: dict[str, int]
    left: dict[str, int]
    voided: int
    served_again: int
    unlisted: int
    search_refused: str | None

    @property
    def equal(self) -> bool:
        return not any(self.left.values()) and not self.unlisted


def repair_row(
    task: Task,
    settings: Settings,
    lake: Lake,
    read: Reread | None,
    outcome: Outcome | None,
    *,
    removed: int,
    covered_until: int,
    retries: int,
    finished_at: datetime,
) -> Run:
    """The row of the ledger, written. Read are the entries that were landed, and one for each row removed of which
    no entry speaks (``removed``): so read = inserted + updated + deleted + superseded + rejected holds here too.
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
        **row_results(lake, (read.landed.entries if read else 0) + removed, outcome),
        **row_origin(settings),
    )
    lake.record(row)
    return row
