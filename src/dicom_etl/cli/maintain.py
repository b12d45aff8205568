"""The command that compacts and vacuums the tables: `dicom-etl maintain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dicom_etl.cli import wording
from dicom_etl.cli.options import common, json_option
from dicom_etl.cli.output import print_rows
from dicom_etl.cli.screen import Column, on_terminal, print_fitting, print_verdict
from dicom_etl.core.settings.model import Settings

if TYPE_CHECKING:
    from dicom_etl.commands.maintain import PlannedMaintenance
    from dicom_etl.tables.compact import MaintenanceResult


@click.command(epilog="Example: dicom-etl maintain --dry-run")
@common
@click.option("--dry-run", is_flag=True, help="Show the plan; change nothing.")
@json_option
def maintain(settings: Settings, dry_run: bool, as_json: bool) -> int:
    """Compact and vacuum the tables."""
    from dicom_etl.cli.terminal import terminal_progress  # noqa: PLC0415
    from dicom_etl.commands.maintain import maintain as verb  # noqa: PLC0415
    from dicom_etl.commands.maintain import planned  # noqa: PLC0415

    if dry_run:
        plans = list(planned(settings))
        if on_terminal() and not as_json:
            show_plans(plans)
        else:
            rows = [plan.as_row() for plan in plans]
            _print(rows if as_json else [{**row, "plannedSteps": _steps(row["plannedSteps"])} for row in rows], as_json)
        return 0
    with terminal_progress() as progress:
        results = list(verb(settings, progress=progress))
    if on_terminal() and not as_json:
        show_maintenance(results)
    else:
        _print([result.as_row() for result in results], as_json)
    return 0


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    print_rows(list(rows[0]), [list(row.values()) for row in rows], "json" if as_json else "table")


def _steps(steps: list[str]) -> str:
    return ", ".join(steps) or "nothing"


def show_plans(plans: list[PlannedMaintenance]) -> None:
    """Print how many tables need maintenance, and the steps of each."""
    due = sum(bool(plan.steps) for plan in plans)
    if due:
        verdict = f"{wording.number(due)} of {wording.counted(len(plans), 'table')} would be changed"
        print_verdict("Maintenance is due", verdict, "attention")
    else:
        print_verdict("Nothing to do", f"none of {wording.counted(len(plans), 'table')} needs maintenance")
    print_fitting((Column("table"), Column("planned steps")), [(plan.table, _steps(plan.steps)) for plan in plans])


def show_maintenance(results: list[MaintenanceResult]) -> None:
    """Print what was compacted and freed in all, and table by table."""
    compacted = sum(result.files_compacted for result in results)
    written = sum(result.files_written for result in results)
    freed, size = (sum(getattr(result, name) for result in results) for name in ("files_freed", "bytes_freed"))
    tables = wording.counted(len(results), "table")
    if compacted or freed:
        joined = f"{wording.counted(compacted, 'file')} joined into {wording.number(written)}"
        print_verdict("Maintained", f"{tables}: {joined}; {wording.counted(freed, 'file')} freed, {wording.size(size)}")
    else:
        print_verdict("Maintained", f"{tables}: no file had to be joined or freed")
    columns = (
        Column("table"),
        Column("files joined", right=True),
        Column("into", right=True),
        Column("files freed", right=True),
        Column("bytes freed", right=True),
    )
    print_fitting(columns, [_cells(result) for result in results])


def _cells(result: MaintenanceResult) -> tuple[str, ...]:
    counts = (result.files_compacted, result.files_written, result.files_freed)
    return (result.table, *(wording.number(count) for count in counts), wording.size(result.bytes_freed))
