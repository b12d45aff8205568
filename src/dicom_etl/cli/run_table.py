"""The table of runs on a terminal, the same for `status`, `runs` and `sync`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from dicom_etl.cli import wording
from dicom_etl.cli.screen import Column, print_fitting
from dicom_etl.core.timerange import Window
from dicom_etl.lake.ledger import Run

_COLUMNS = (
    Column("run", right=True),
    Column("verb"),
    Column("status"),
    Column("window (UTC)"),
    Column("entries", right=True),
    Column("inserted", 1, right=True),
    Column("updated", 2, right=True),
    Column("deleted", 3, right=True),
    Column("rejected", 4, right=True),
    Column("no effect", 5, right=True),
    Column("took", 6),
)
_FINISHED = Column("finished (UTC)", 1)


def print_runs(runs: Iterable[Run], *, finished: bool = False) -> None:
    """Print one row a run; the class of its error stands in place of its status. ``finished``: and when it ended."""
    rows = [_cells(run) + ((_end(run),) if finished else ()) for run in runs]
    print_fitting((*_COLUMNS, _FINISHED) if finished else _COLUMNS, rows, "dicom-etl runs --json")


def _end(run: Run) -> str:
    """The end up to a second: what is printed, given as --as-of, names this run."""
    return wording.timestamp(run.finished_at + timedelta(microseconds=-run.finished_at.microsecond % 1_000_000))


def _cells(run: Run) -> tuple[str, ...]:
    counts = (run.entries_read, run.inserted, run.updated, run.deleted, run.rejected, run.superseded)
    return (
        str(run.run_id),
        run.verb,
        run.error_class or run.status,
        ""
        if run.window_start is None or run.window_end is None
        else wording.span(Window(run.window_start, run.window_end)),
        *(wording.number(count) for count in counts),
        wording.duration((run.finished_at - run.started_at).total_seconds()),
    )
