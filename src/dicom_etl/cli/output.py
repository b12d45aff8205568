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
from dicom_etl.cli.screen import console, on_terminal, plain
from dicom_etl.core.errors import OutputClosed

RowFormat = Literal["table", "csv", "json"]

# A pipe has no width; a table that is folded there cannot be read by anything.
_NO_TERMINAL_WIDTH = 100_000
# A person reads the beginning of a longer value, such as a header; a UID, and most paths, are shorter.
_LONGEST_SHOWN = 200
# A column of a table can be read when it has this width; with less, the rows stand one below the other. So they do
# where a UID, which has up to 64 characters, would be folded: a folded one cannot be copied.
_LEAST_WIDTH = 16
_LONGEST_UID = 64


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
    least = [_least_width(cells) for cells in zip(columns, *rows, strict=True)]
    if on_terminal() and sum(least) + 2 * (len(least) - 1) > console().width:
        _print_blocks(columns, rows)
        return
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_header=any(columns))
    for column, width in zip(columns, least, strict=True):
        # Folded, not cut: the end of a path counts.
        overflow: Literal["fold", "ellipsis"] = "fold" if on_terminal() else "ellipsis"
        table.add_column(column, no_wrap=not on_terminal(), overflow=overflow, min_width=width)
    for row in rows:
        table.add_row(*row)
    console(width=None if on_terminal() else _NO_TERMINAL_WIDTH).print(table)


def _least_width(cells: Sequence[str]) -> int:
    """The width at which a column can still be read."""
    uids = (word for cell in cells for word in cell.split() if word.replace(".", "").isdigit())
    longest_uid = max(map(cell_len, uids), default=0)
    return max(min(longest_uid, _LONGEST_UID), min(max(map(cell_len, cells)), _LEAST_WIDTH))


def _print_blocks(columns: Sequence[str], rows: list[list[str]]) -> None:
    """One value a line; where it has no room beside its name, a line of its own, which only the terminal wraps."""
    screen = console()
    names = max(map(cell_len, columns)) + 2
    for number, row in enumerate(rows, 1):
        screen.print(Text(f"row {number}", style="bold"))
        for name, value in zip(columns, row, strict=True):
            if names + cell_len(value) <= screen.width:
                screen.print(Text(f"{name:{names}}{value}"))
            else:
                screen.print(Text(f"{name}\n  {value}"), soft_wrap=True)
