"""What `sync` and `watch` print of their runs: sentences and a table on a terminal, one line a run in a pipe."""

from __future__ import annotations

import click

from dicom_etl.cli import wording
from dicom_etl.cli.jsonlines import print_json
from dicom_etl.cli.run_table import print_runs
from dicom_etl.cli.screen import Tone, print_verdict
from dicom_etl.core.timerange import TICKS_PER_SECOND, format_instant, from_datetime
from dicom_etl.lake.ledger import Run


def show_sync(runs: list[Run], *, delay: int, all_due: bool) -> None:
    """Print what the runs read and changed in all, up to when that covers the feed, and a row a run.

    ``all_due``: every window that is due was asked for. ``delay`` is `feed.delay` in ticks.
    """
    if not runs:
        over = wording.duration(delay / TICKS_PER_SECOND)
        rest = f"nothing is due. A window is read when it has been over for {over}; --until T reads up to T now"
        print_verdict("Up to date", rest)
        return
    tone: Tone = "attention" if any(run.rejected for run in runs) else "good"
    print_verdict("Up to date" if all_due else "Done", "; ".join(_summary(runs, _in_runs(runs))), tone)
    print_runs(runs)


def show_stopped(runs: list[Run]) -> None:
    """Print what the runs did that ended before an error or a signal did."""
    print_verdict("Stopped", "; ".join(("before all was read", *_summary(runs, _in_runs(runs)))), "bad")
    print_runs(runs)


def show_run(run: Run) -> None:
    """Print one run of `watch` as a sentence."""
    print_verdict(f"Run {run.run_id}", "; ".join(_summary([run])), "attention" if run.rejected else "good")


def _in_runs(runs: list[Run]) -> str:
    return f" in {wording.counted(len(runs), 'run')}"


def _summary(runs: list[Run], in_runs: str = "") -> list[str]:
    entries = wording.counted(sum(run.entries_read for run in runs), "entry", "entries")
    parts = [f"{entries} read{in_runs}{_outcomes(runs)}"]
    if any(run.verb == "adopt" for run in runs):
        parts.append("the template's tables are adopted")
    parts += [completed.removeprefix("; ") for run in runs if (completed := _completed(run))]
    covered = [run.covered_until for run in runs if run.covered_until is not None]
    if covered:
        parts.append(f"covered until {wording.since(max(covered), from_datetime(runs[-1].finished_at))}")
    return parts


def _outcomes(runs: list[Run]) -> str:
    names = {name: name for name in ("inserted", "updated", "deleted")}
    names |= {"superseded": "without effect", "rejected": "rejected"}
    counts = {word: sum(getattr(run, name) for run in runs) for name, word in names.items()}
    outcomes = [f"{wording.number(count)} {word}" for word, count in counts.items() if count]
    return f" ({', '.join(outcomes)})" if outcomes else ""


def print_run(run: Run, as_json: bool) -> None:
    """Print one run as one line."""
    if as_json:
        print_json(run.as_row())
        return
    if run.window_start is None or run.window_end is None:
        click.echo(f"run {run.run_id}: the template's tables are adopted")
        return
    click.echo(
        f"run {run.run_id}: {format_instant(run.window_start)} to {format_instant(run.window_end)}: "
        f"{run.entries_read} entries, {run.inserted} inserted, {run.updated} updated, {run.deleted} deleted, "
        f"{run.superseded} superseded, {run.rejected} rejected{_not_covered(run)}{_completed(run)}"
    )


def _completed(run: Run) -> str:
    """What an earlier run had merged into ``instance`` and not yet into ``series`` and ``study``."""
    return "" if run.completes is None else f"; the roll-up that run {run.completes} left is completed"


def _not_covered(run: Run) -> str:
    """What is to be read again, because rows may still come there."""
    if run.covered_until is None or run.window_start is None or run.window_end is None:
        return ""
    if run.covered_until >= run.window_end:
        return ""
    if run.covered_until <= run.window_start:
        return "; covers nothing yet"
    return f"; covers what is before {format_instant(run.covered_until)}"
