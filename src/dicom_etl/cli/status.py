"""The commands that show coverage, lag and the ledger: `dicom-etl status`, `dicom-etl runs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dicom_etl.cli import wording
from dicom_etl.cli.jsonlines import print_json
from dicom_etl.cli.options import common, json_option
from dicom_etl.cli.output import print_rows
from dicom_etl.cli.run_table import print_runs
from dicom_etl.cli.screen import Tone, on_terminal, print_facts, print_line, print_verdict
from dicom_etl.core.clock import utc_now
from dicom_etl.core.errors import DicomEtlError, UsageError
from dicom_etl.core.logs import format_stderr
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import TICKS_PER_SECOND, parse_duration
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.status import Status

if TYPE_CHECKING:
    from dicom_etl.lake.claims.holder import Holder
    from dicom_etl.outputs.state import OutputState


@click.command(epilog="Example: dicom-etl status --max-lag 3h")
@common
@click.option("--max-lag", metavar="DURATION", help="Exit with 1 when the tables are further behind, such as 3h.")
@json_option
def status(settings: Settings, max_lag: str | None, as_json: bool) -> int:
    """Show coverage, lag, open rejects, who writes and the last runs; needs neither Spark nor the service."""
    from dicom_etl.lake.status import status as verb  # noqa: PLC0415
    from dicom_etl.outputs.state import outputs  # noqa: PLC0415

    try:
        most = None if max_lag is None else parse_duration(max_lag) / TICKS_PER_SECOND
    except ValueError as error:
        raise UsageError(f"--max-lag: {error}") from error
    result, states, writer = verb(settings), outputs(settings), _writer(settings)
    row = {**result.as_row(), "writer": writer and str(writer), "writerState": writer and writer.state}
    row |= {"outputs": [state.as_row() for state in states]} if states else {}
    if as_json:
        print_json(row)
    elif on_terminal():
        show_status(result, writer)
        if states:
            print_facts([(f"output {state.output}", _state(state)) for state in states])
    else:
        row |= {"outputs": "; ".join(f"{state.output}: {_state(state)}" for state in states)} if states else {}
        print_rows(["", "", ""], [(name, _rounded(value), _readable(name, value)) for name, value in row.items()])
        _print_ledger(result.last_runs)
    if most is None or result.lag_seconds <= most:
        return 0
    hint = "" if on_terminal() and not as_json else ": see lastError and windowsDue"
    text = f"the tables are further behind than {max_lag}{hint}"
    click.echo(format_stderr(text, exit_code=1, error_class=None, run_id=None), err=True)
    return 1


def _writer(settings: Settings) -> Holder | None:
    """Who writes the lake, or died while it did; None when nobody does, and when the claims may not be listed."""
    from dicom_etl.lake.claims.holder import holder  # noqa: PLC0415
    from dicom_etl.lake.paths import lake_paths  # noqa: PLC0415

    paths = lake_paths(settings)
    try:
        return holder(*paths.storage.filesystem(paths.claims), utc_now())
    except DicomEtlError:
        # Who reads the shared tables needs no right to the claims.
        return None


def show_status(result: Status, writer: Holder | None = None) -> None:
    """Print the verdict, who writes, how fast the last reading run was, and the last runs."""
    now = result.covered_until + round(result.lag_seconds * TICKS_PER_SECOND)
    rejects = result.open_rejects
    parts = [f"covered until {wording.since(result.covered_until, now)}", _due(result)]
    if rejects is None:
        parts.append("open rejects are not known, since you may not read the private tables")
    else:
        parts.append(wording.counted(rejects, "open reject") + (" (dicom-etl rejects)" if rejects else ""))
    print_verdict(*_verdict(result, "; ".join(parts)))
    facts = [] if writer is None else [("writer", str(writer))]
    if result.entries_per_second is not None:
        facts.append(("pace of the last run", f"{result.entries_per_second:,.1f} entries/s"))
    if facts:
        print_facts(facts)
    if result.last_runs:
        print_runs(result.last_runs)


def _verdict(result: Status, rest: str) -> tuple[str, str, Tone]:
    if result.last_error is not None:
        at = "" if result.last_error_at is None else f" at {wording.timestamp(result.last_error_at)} UTC"
        text = f"the last recorded run ended with {result.last_error}{at}; {rest}"
        # A sync that succeeds and finds nothing due leaves no row.
        return ("Failing", text, "bad") if result.windows_due else ("Up to date", text, "attention")
    if result.windows_due:
        return "Behind", rest, "attention"
    return "Up to date", rest, "attention" if result.open_rejects else "good"


def _due(result: Status) -> str:
    if not result.windows_due:
        return "nothing is due"
    due = f"{wording.counted(result.windows_due, 'window')} {'is' if result.windows_due == 1 else 'are'} due"
    return due if result.eta_seconds is None else f"{due}, about {wording.duration(result.eta_seconds)} of work"


def _state(state: OutputState) -> str:
    """How far an output is behind, in words."""
    behind = f"{wording.counted(state.runs_behind, 'run')} behind, for {wording.duration(state.lag_seconds)}"
    failed = "" if state.failed is None else f"; its last execution ended with {state.failed}"
    return (behind if state.runs_behind else "up to date") + failed


def _rounded(value: Any) -> Any:
    """A measured number as a person reads it; --json has all its digits."""
    return f"{value:.1f}" if isinstance(value, float) else value


def _readable(name: str, value: Any) -> str | None:
    """Beside a number of seconds what it is in words."""
    return f"({wording.duration(value)})" if name in ("lagSeconds", "eta") and value is not None else None


@click.command(epilog="Example: dicom-etl runs --json")
@common
@json_option
def runs(settings: Settings, as_json: bool) -> int:
    """Print the ledger: one row a run."""
    from dicom_etl.lake.status import all_runs  # noqa: PLC0415

    ledger = all_runs(settings)
    if as_json:
        for run in ledger:
            print_json(run.as_row())
    elif not on_terminal():
        _print_ledger(ledger)
    elif ledger:
        print_runs(ledger, finished=True)
    else:
        print_line("No run has finished here yet.")
    return 0


_COLUMNS = (
    "runId", "verb", "status", "windowStart", "windowEnd", "coveredUntil", "finishedAt", "entriesRead", "inserted",
    "updated", "deleted", "superseded", "rejected", "errorClass",
)  # fmt: skip


def _print_ledger(ledger: list[Run] | tuple[Run, ...]) -> None:
    rows = [run.as_row() for run in ledger]
    print_rows(_COLUMNS, [[row[name] for name in _COLUMNS] for row in rows])
