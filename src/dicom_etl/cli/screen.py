"""Results on a terminal: the verdict first, then facts and tables that fit the width."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dicom_etl.core.errors import OutputClosed

Tone = Literal["good", "attention", "bad"]
_STYLES: dict[Tone, str] = {"good": "bold green", "attention": "bold yellow", "bad": "bold red"}
_GAP = 2

# A value may come from a file that anybody made: an escape sequence in it could change what the terminal shows or does.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; the highest ``rank`` is left out first where the width is too small, 0 never."""

    name: str
    rank: int = 0
    right: bool = False


def on_terminal() -> bool:
    """Whether a person reads standard output; a program reads pipes and files."""
    return sys.stdout.isatty()


def plain(text: str) -> str:
    """The text for standard output: on a terminal its control characters are escaped, but for tab and newline."""
    return _CONTROL.sub(lambda one: f"\\x{ord(one[0]):02x}", text) if on_terminal() else text


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Not rich's own end of the process, with code 1."""
        raise OutputClosed


def console(width: int | None = None) -> Console:
    """Standard output; colour follows NO_COLOR and the terminal. A value with [brackets] is a value, no markup."""
    return _Console(width=width, markup=False, emoji=False, highlight=False)


def print_line(text: str) -> None:
    """Print a line, on a terminal wrapped at words to its width."""
    if on_terminal():
        console().print(Text(plain(text)))
    else:
        print(text)  # noqa: T201


def print_verdict(word: str, rest: str, tone: Tone = "good") -> None:
    """Print the sentence that a result begins with: ``Up to date: nothing is due.``, its first word in colour."""
    console().print(Text.assemble((plain(word), _STYLES[tone]), f": {plain(rest)}."))


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print names and values side by side, after an empty line; nothing when there are none."""
    grid = side_by_side((name, plain(value)) for name, value in facts)
    if grid.row_count:
        console().print()
        console().print(grid)


def side_by_side(pairs: Iterable[tuple[str, str]]) -> Table:
    """Names and values, one pair a line; a value is folded, not cut."""
    grid = Table.grid(padding=(0, _GAP, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(name, value)
    return grid


def print_fitting(columns: Sequence[Column], rows: Sequence[Sequence[str]], whole: str = "--json") -> None:
    """Print a table, after an empty line; where the width is too small, without the columns of highest rank.

    A last line names what is left out, and ``whole``, the command or option that prints it. What is still too wide is
    wrapped.
    """
    screen = console()
    shown = _fitting(columns, rows, screen.width)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
    for place in shown:
        column = columns[place]
        table.add_column(column.name, justify="right" if column.right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(plain(row[place]) for place in shown))
    screen.print()
    screen.print(table)
    if hidden := [column.name for place, column in enumerate(columns) if place not in shown]:
        screen.print(Text(f"Hidden: {', '.join(hidden)} ({whole})"))


def _fitting(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """The places of the columns to show."""
    widths = [
        max(cell_len(text) for text in (column.name, *(row[i] for row in rows))) for i, column in enumerate(columns)
    ]
    shown = list(range(len(columns)))
    while sum(widths[i] + _GAP for i in shown) - _GAP > width:
        last = max(shown, key=lambda i: columns[i].rank)
        if not columns[last].rank:
            break
        shown.remove(last)
    return shown
