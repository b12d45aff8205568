"""Prints rows on standard output: as a table, as CSV or as JSON."""

from __future__ import annotations

import csv
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from dicom_etl.cli.jsonlines import as_text, print_json

RowFormat = Literal["table", "csv", "json"]

# A pipe has no width; a table that is folded there cannot be read by anything.
_NO_TERMINAL_WIDTH = 100_000


# A value may come from a file that anybody made: an escape sequence in it could change what the terminal shows or does.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def plain(text: str) -> str:
    """The text for standard output: on a terminal its control characters are escaped, but for tab and newline."""
    return _CONTROL.sub(lambda one: f"\\x{ord(one[0]):02x}", text) if sys.stdout.isatty() else text


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[Any]], row_format: RowFormat = "table") -> None:
    """Print the rows; JSON is one object a line, with null for null; CSV has a header and "" for null.

    Columns without names are printed without a header. CSV and JSON hold the values as they are, a table `plain` ones.
    """
    if row_format == "json":
        for row in rows:
            print_json(dict(zip(columns, row, strict=True)))
    elif row_format == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(["" if value is None else as_text(value) for value in row] for row in rows)
    else:
        _print_table(columns, rows)


def _print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_header=any(columns))
    for column in columns:
        table.add_column(plain(column), no_wrap=not sys.stdout.isatty())
    for row in rows:
        table.add_row(*("" if value is None else plain(as_text(value)) for value in row))
    width = None if sys.stdout.isatty() else _NO_TERMINAL_WIDTH
    # No markup: a value with [brackets] is a value.
    Console(width=width, markup=False, emoji=False, highlight=False).print(table)
