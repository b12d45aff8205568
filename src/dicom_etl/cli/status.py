"""The commands that show coverage, lag and the ledger: `dicom-etl status`, `dicom-etl runs`."""

from __future__ import annotations

from typing import Any

import click

from dicom_etl.cli.jsonlines import print_json
from dicom_etl.cli.options import common, json_option
from dicom_etl.cli.output import print_rows
from dicom_etl.core.errors import UsageError
from dicom_etl.core.logs import said
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import TICKS_PER_SECOND, format_instant, parse_duration


@click.command()
@common
@click.option("--max-lag", metavar="DURATION", help="Exit with 1 when the tables are further behind, such as 3h.")
@json_option
def status(settings: Settings, max_lag: str | None, as_json: bool) -> int:
    """Show coverage, lag, open rejects and the last runs; needs neither Spark nor the service."""
    from dicom_etl.lake.status import status as verb  # noqa: PLC0415

    try:
        most = None if max_lag is None else parse_duration(max_lag) / TICKS_PER_SECOND
    except ValueError as error:
        raise UsageError(f"--max-lag: {error}") from error
    found = verb(settings)
    facts = {
        "coveredUntil": format_instant(found.covered_until),
        "lagSeconds": found.lag_seconds,
        "windowsDue": found.windows_due,
        "entriesPerSecond": found.entries_per_second,
        "eta": found.eta_seconds,
        "openRejects": found.open_rejects,
        "lastError": found.last_error,
    }
    if as_json:
        print_json(facts)
    else:
        print_rows(["", ""], [(name, _rounded(value)) for name, value in facts.items()])
        _print_runs(found.last_runs)
    if most is None or found.lag_seconds <= most:
        return 0
    click.echo(said(f"the tables are further behind than {max_lag}: see lastError and windowsDue"), err=True)
    return 1


def _rounded(value: Any) -> Any:
    """A measured number as a person reads it; --json has all its digits."""
    return f"{value:.1f}" if isinstance(value, float) else value


@click.command()
@common
@json_option
def runs(settings: Settings, as_json: bool) -> int:
    """Print the ledger: one row a run."""
    from dicom_etl.lake.status import all_runs  # noqa: PLC0415

    found = all_runs(settings)
    if as_json:
        for run in found:
            print_json(run.as_row())
    else:
        _print_runs(found)
    return 0


_SHOWN = (
    "runId", "verb", "status", "windowStart", "windowEnd", "coveredUntil", "entriesRead", "inserted", "updated",
    "deleted", "superseded", "rejected", "errorClass",
)  # fmt: skip


def _print_runs(found: Any) -> None:
    rows = [run.as_row() for run in found]
    print_rows(_SHOWN, [[row[name] for name in _SHOWN] for row in rows])
