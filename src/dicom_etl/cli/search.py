"""The verb `search`: what the service holds, by QIDO-RS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import click

from dicom_etl.cli.options import common
from dicom_etl.cli.output import RowFormat, print_rows
from dicom_etl.cli.query import format_option
from dicom_etl.core.settings.model import Settings

# Nobody reads more as a table, and all of it is held in memory to find out the widths of the columns.
_MOST_ROWS = 1000


@click.command(epilog="Example: dicom-etl search studies PatientID=1CT1 StudyDate=20040101-20041231")
@common
@click.argument("level", type=click.Choice(["studies", "series", "instances"]))
@click.argument("words", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--partition", help="The data partition to search, where the service has them.")
@click.option("--fields", multiple=True, metavar="NAME,…", help="Keywords or tags to print, instead of the usual ones.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Print the newest N matches.")
@format_option
def search(settings: Settings, level: Any, words: tuple[str, ...], row_format: RowFormat, **how: Any) -> int:
    """Search studies, series or instances in the service (QIDO-RS), newest first.

    KEY is a DICOM keyword or tag; all must match. Dates take ranges. What is printed are values of patients.
    """
    from dicom_etl.commands.search import search as verb  # noqa: PLC0415
    from dicom_etl.commands.search import search_request  # noqa: PLC0415

    request = search_request(level, words, **how)
    rows = verb(settings, request)
    if row_format == "table":
        _print_table(request.columns, rows)
    else:
        print_rows(request.columns, _joined(rows) if row_format == "csv" else rows, row_format)
    return 0


def _print_table(columns: tuple[str, ...], rows: Iterator[tuple[Any, ...]]) -> None:
    shown = list(islice(_joined(rows), _MOST_ROWS))
    print_rows(columns, shown)
    if next(rows, None) is not None:
        click.echo(f"The first {_MOST_ROWS} matches; --format csv or json has all of them.", err=True)
    elif not shown:
        click.echo("Nothing matches.", err=True)


def _joined(rows: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Lists as DICOM writes them, with a backslash between the values."""
    for row in rows:
        yield tuple("\\".join(map(_text, value)) if isinstance(value, list) else value for value in row)


def _text(value: Any) -> str:
    """An item of a sequence stays DICOM JSON."""
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return "" if value is None else str(value)
