"""What `dicom-etl verify --columns N` prints: counts and names of columns, and no values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dicom_etl.cli import wording
from dicom_etl.cli.jsonlines import print_json
from dicom_etl.cli.output import print_rows
from dicom_etl.cli.screen import Column, on_terminal, print_fitting, print_verdict
from dicom_etl.core.errors import DataError
from dicom_etl.core.settings.model import Settings

if TYPE_CHECKING:
    from dicom_etl.commands.columns.verify import ColumnsVerification


def compare_columns(settings: Settings, rows: int, *, as_json: bool) -> int:
    """Compare so many rows and print the result; 0. Raises DataError when rows differ."""
    from dicom_etl.cli.terminal import terminal_progress  # noqa: PLC0415
    from dicom_etl.commands.columns.verify import verify_columns  # noqa: PLC0415

    with terminal_progress() as progress:
        result = verify_columns(settings, rows, progress=progress)
    if as_json:
        print_json(result.as_row())
    elif on_terminal():
        show_columns(result)
    else:
        _print(result)
    if result.differing:
        raise DataError(
            f"{wording.counted(result.differing, 'row')} of instance_tags differ from the service's headers; instances "
            "that changed since the last sync are among them: run dicom-etl sync and columns update, and verify again"
        )
    return 0


def show_columns(result: ColumnsVerification) -> None:
    """Print the verdict, and how many rows differ in which column."""
    gone = f"; {wording.number(result.gone)} the service has no longer" if result.gone else ""
    compared = f"of {wording.counted(result.compared, 'row')} taken at random, "
    if result.differing:
        print_verdict("Different", f"{compared}{wording.number(result.differing)} differ from the headers{gone}", "bad")
        columns = [Column("column"), Column("rows", right=True)]
        print_fitting(columns, [(name, wording.number(count)) for name, count in result.columns.items()])
    else:
        print_verdict("Equal", f"{compared}{wording.number(result.equal)} equal the headers{gone}")


def _print(result: ColumnsVerification) -> None:
    row = result.as_row()
    del row["columnDifferences"]
    print_rows(
        ["", ""], [*map(list, row.items()), *([f"{name} differs", count] for name, count in result.columns.items())]
    )
