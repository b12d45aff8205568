"""Prints rows on standard output: as a table, as CSV or as JSON."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from dicom_etl.cli.jsonlines import as_text, print_json
from dicom_etl.cli.screen import console, on_terminal, plain, side_by_side
from dicom_etl.core.errors import OutputClosed

RowFormat = Literal["table", "csv", "json"]

# A pipe has no width; a table that is folded there cannot be read by anything.
_NO_TERMINAL_WIDTH = 100_000
# A person reads the beginning of a longer value, such as a header; a UID, and most paths, are shorter.
_LONGEST_SHOWN = 200
# A column of a table can be read when it has this width; with less, the rows stand one below the other.
_LEAST_WIDTH = 16


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[Any]], row_format: RowFormat = "table") -> None:
    """Print the rows; JSON is one object a line, with null for null; CSV has a header and "" for null.

    Columns without names are printed without a header. CSV and JSON hold the values as they are, a table `plain` ones.
    On a terminal long values are cut; where it is too narrow for a table, each row is a block with one value a line.
    Raises OutputClosed when the reader of standard output has stopped.
    """
    try:
        _print_rows(columns, rows, row_format)
    except BrokenPipeError as error:
        raise OutputClosed from error


def _print_rows(columns: Sequence[str], rows: Iterable[Sequence[Any]], row_format: RowFormat) -> None:
    if row_format == "json":
        for row in rows:
            print_json(dict(zip(columns, row, strict=True)))
    elif row_format == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(["" if value is None else as_text(value) for value in row] for row in rows)
    else:
        cells = [["" if value is None else _shown(as_text(value)) for value in row] for row in rows]
        _print_table([plain(column) for column in columns], cells)


def _shown(text: str) -> str:
    """The value as a table has it; on a terminal a long one ends in an ellipsis."""
    if on_terminal() and len(text) > _LONGEST_SHOWN:
        text = text[: _LONGEST_SHOWN - 1] + "…"
    return plain(text)


def _print_table(columns: Sequence[str], rows: list[list[str]]) -> None:
    if on_terminal() and _least_width(columns, rows) > console().width:
        _print_blocks(columns, rows)
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_header=any(columns))
    for column in columns:
        # Folded, not cut: the end of a UID counts.
        table.add_column(column, no_wrap=not on_terminal(), overflow="fold" if on_terminal() else "ellipsis")
    for row in rows:
        table.add_row(*row)
    console(width=None if on_terminal() else _NO_TERMINAL_WIDTH).print(table)


def _least_width(columns: Sequence[str], rows: list[list[str]]) -> int:
    """The width at which a table can still be read, with two spaces between its columns."""
    widths = [max(cell_len(cell) for cell in cells) for cells in zip(columns, *rows, strict=True)]
    return sum(min(width, _LEAST_WIDTH) + 2 for width in widths) - 2


def _print_blocks(columns: Sequence[str], rows: list[list[str]]) -> None:
    screen = console()
    for number, row in enumerate(rows, 1):
        screen.print(Text(f"row {number}", style="bold"))
        screen.print(side_by_side(zip(columns, row, strict=True)))
