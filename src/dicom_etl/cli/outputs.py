"""The command that shows what stands on the tables: `dicom-etl outputs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dicom_etl.cli import wording
from dicom_etl.cli.jsonlines import print_json
from dicom_etl.cli.options import common, json_option
from dicom_etl.cli.output import print_rows
from dicom_etl.cli.screen import Column, on_terminal, print_fitting, print_verdict
from dicom_etl.core.settings.model import Settings

if TYPE_CHECKING:
    from dicom_etl.outputs.state import OutputState


@click.command(epilog="Example: dicom-etl outputs --json")
@common
@json_option
def outputs(settings: Settings, as_json: bool) -> int:
    """Show how far each output is behind the tables; needs neither Spark nor the service."""
    from dicom_etl.outputs.state import outputs as verb  # noqa: PLC0415

    states = verb(settings)
    if as_json:
        for state in states:
            print_json(state.as_row())
    elif on_terminal():
        show_outputs(states)
    else:
        print_rows(_PRINTED, [list(state.as_row().values()) for state in states])
    return 0


_PRINTED = (
    "output", "reachedRun", "lastRun", "runsBehind", "lagSeconds", "lastEnded", "lastError", "holdsPurge",
)  # fmt: skip
_COLUMNS = (
    Column("output"),
    Column("reached run", right=True),
    Column("runs behind", right=True),
    Column("for"),
    Column("last ended", 1),
    Column("last error"),
)


def show_outputs(states: list[OutputState]) -> None:
    """Print whether the outputs have what the tables have, and the table of them."""
    if not states:
        print_verdict("No outputs", "nothing stands on the tables yet: dicom-etl columns update makes the tag tables")
        return
    failing = [state.output for state in states if state.failed is not None]
    behind = [state.output for state in states if state.runs_behind]
    if failing:
        print_verdict("Failing", f"the last execution ended with an error: {', '.join(failing)}", "bad")
    elif behind:
        print_verdict("Behind", f"runs are not taken yet: {', '.join(behind)}", "attention")
    else:
        print_verdict("Up to date", f"{wording.counted(len(states), 'output')} of what the last run left")
    print_fitting(_COLUMNS, [_cells(state) for state in states])


def _cells(state: OutputState) -> tuple[str, ...]:
    lag = wording.duration(state.lag_seconds) if state.runs_behind else "-"
    ended = wording.timestamp(state.last_ended)
    return state.output, str(state.reached_run), str(state.runs_behind), lag, ended, state.failed or "-"
