"""The verb `query`: one statement, or a prompt for many."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import click

from dicom_etl.cli.options import common
from dicom_etl.cli.output import RowFormat, print_rows
from dicom_etl.cli.screen import on_terminal
from dicom_etl.core.errors import DicomEtlError, UsageError
from dicom_etl.core.settings.model import Settings

# Nobody reads more on a screen, and all of them are held in memory to find out the widths of the columns.
_MOST_ROWS = 1000
_HOW = "Statements end with ; or an empty line. Leave by exit or Ctrl-D."
_HELP = f"{_HOW}\nSHOW VIEWS; lists what can be asked, DESCRIBE instance; the columns of one view."
_PROMPT, _GOES_ON = "dicom-etl> ", "       ...> "

run_option = click.option("--run", "run_id", type=int, metavar="N", help="The tables as run N left them.")
as_of_option = click.option(
    "--as-of", metavar="T", help="The tables as the last run left them that had succeeded by T (RFC 3339)."
)
format_option = click.option(
    "--format", "row_format", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True
)


@click.command(epilog='Example: dicom-etl query --run 12 "SELECT count(*) FROM instance"')
@common
@click.argument("sql", required=False)
@run_option
@as_of_option
@format_option
def query(settings: Settings, sql: str | None, run_id: int | None, as_of: str | None, row_format: RowFormat) -> int:
    """Run a read-only Spark SQL query; - reads it from standard input.

    Without a statement, on a terminal, a prompt takes one after another. Views: instance, series, study, run; after
    `dicom-etl columns update` instance_tags, series_tags, study_tags, header_quality and output; for those who may read
    the private tables change, rejected and header.
    """
    from dicom_etl.commands.query import open_tables  # noqa: PLC0415
    from dicom_etl.lake.past import When  # noqa: PLC0415

    when = When.either(run_id, as_of)
    if sql is None and not (sys.stdin.isatty() and on_terminal()):
        raise UsageError("query: give a statement, or - to read it from standard input")
    if sql is None:
        click.echo(f"starting Spark … {_HOW}", err=True)
    with open_tables(settings, when) as tables:

        def show(statement: str) -> None:
            with tables.answer(statement) as rows:
                print_answer(rows, row_format)
            if hint := tables.tags.hint(statement):
                click.echo(hint, err=True)

        if sql is None:
            prompt(show, _typed)
        else:
            show(sys.stdin.read() if sql == "-" else sql)
    return 0


def print_answer(rows: Any, row_format: RowFormat) -> None:
    """Print the rows of a Spark DataFrame; on a terminal, as a table, the first thousand."""
    if row_format == "table" and on_terminal():
        shown = rows.limit(_MOST_ROWS + 1).collect()
        print_rows(rows.columns, [tuple(row) for row in shown[:_MOST_ROWS]], row_format)
        if len(shown) > _MOST_ROWS:
            click.echo(f"The first {_MOST_ROWS} rows; --format csv or json, or a pipe, has all of them.", err=True)
        return
    print_rows(rows.columns, _read(rows), row_format)


def _read(rows: Any) -> Iterator[tuple[Any, ...]]:
    """The rows as Spark gives them. A pipe to Spark that breaks is not the one that we print to."""
    try:
        for row in rows.toLocalIterator():
            yield tuple(row)
    except BrokenPipeError as error:
        raise ConnectionAbortedError from error


def prompt(show: Callable[[str], None], typed: Callable[[str], str]) -> None:
    """Give each statement to ``show`` until ``exit``, ``quit`` or the end of the input.

    A statement ends with a semicolon or an empty line. What is wrong with one is said in a line, and the next is taken.
    ``typed`` prints its argument and gives a line; EOFError is the end.
    """
    while (statement := _statement(typed)) is not None:
        if not statement:
            continue
        try:
            show(statement)
        except DicomEtlError as error:
            click.echo(f"dicom-etl: {error}", err=True)


def _statement(typed: Callable[[str], str]) -> str | None:
    """The next statement without its semicolon, "" for an empty line; None at the end."""
    lines: list[str] = []
    while True:
        try:
            line = typed(_GOES_ON if lines else _PROMPT).strip()
        except EOFError:
            return None
        word = "" if lines else line.rstrip("; ").lower()
        if word in ("exit", "quit"):
            return None
        if word in ("help", "?"):
            click.echo(_HELP, err=True)
            return ""
        if line:
            lines.append(line)
        if not line or line.endswith(";"):
            return "\n".join(lines).rstrip("; \n")


def _typed(text: str) -> str:
    with suppress(ImportError):  # a Python without it takes lines all the same
        import readline  # noqa: F401, PLC0415 - gives `input` a history and keys to edit with
    return input(text)
