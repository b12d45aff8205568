"""The commands of the output `columns`: `dicom-etl columns add | mirror | remove | list | update | backfill`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from dicom_etl.cli import wording
from dicom_etl.cli.jsonlines import print_json
from dicom_etl.cli.options import common, json_option
from dicom_etl.cli.output import print_rows
from dicom_etl.cli.screen import Column, on_terminal, print_fitting, print_line, print_verdict
from dicom_etl.core.errors import UsageError
from dicom_etl.core.logs import format_stderr
from dicom_etl.core.settings.model import Settings

if TYPE_CHECKING:
    from dicom_etl.commands.columns.choose import ListedColumn
    from dicom_etl.commands.columns.update import Extent
    from dicom_etl.outputs.execution import Execution


@click.group()
def columns() -> None:
    """Keep chosen DICOM tags as columns, in instance_tags, series_tags and study_tags."""


@columns.command(
    epilog='Example: dicom-etl columns add SliceThickness "0018,9345" "0019,xx0C@SIEMENS MR HEADER:double"'
)
@common
@click.argument("tags", nargs=-1, metavar="TAG...")
@click.option("--all", "every", is_flag=True, help="All standard tags that the archive's headers have, up to 1 000.")
@click.option("--level", type=click.Choice(["instance", "series", "study"]), help="The highest table that has them.")
@click.option(
    "--identifying", is_flag=True, help="Also tags of PS3.15 table E.1-1: what identifies a patient, and private ones."
)
@json_option
def add(
    settings: Settings, tags: tuple[str, ...], every: bool, level: str | None, identifying: bool, as_json: bool
) -> int:
    """Choose tags: by keyword, by number, private with its creator, or inside a sequence."""
    if every == bool(tags):
        raise UsageError("name tags, as in columns add SliceThickness, or say --all")
    if every:
        added = _all_added(settings, level, identifying)
    else:
        from dicom_etl.commands.columns.choose import add as verb  # noqa: PLC0415

        wanted = [f"{tag} level={level}" if level else tag for tag in tags]
        added = verb(settings, wanted, identifying=identifying)
    _show_added(added, as_json)
    return 0


def _all_added(settings: Settings, level: str | None, identifying: bool) -> list[ListedColumn]:
    from dicom_etl.cli.terminal import terminal_progress  # noqa: PLC0415
    from dicom_etl.commands.columns.choose_many import add_all  # noqa: PLC0415

    with terminal_progress() as progress:
        return add_all(settings, identifying=identifying, level=level, progress=progress)


@columns.command(epilog="Example: dicom-etl columns mirror")
@common
@click.option("--identifying", is_flag=True, help="Also tags that identify a patient (PS3.15 table E.1-1).")
@json_option
def mirror(settings: Settings, identifying: bool, as_json: bool) -> int:
    """Choose the tags that the service searches: its extended query tags."""
    from dicom_etl.commands.columns.choose_many import mirror as verb  # noqa: PLC0415

    found = verb(settings, identifying=identifying)
    _show_added(found.columns, as_json)
    if found.identifying:
        text = f"left out, since they identify patients: {', '.join(found.identifying)}; --identifying adds them"
        click.echo(format_stderr(text), err=True)
    if found.impossible:
        click.echo(format_stderr(f"left out, since they can be no columns: {', '.join(found.impossible)}"), err=True)
    return 0


def _show_added(added: Sequence[ListedColumn], as_json: bool) -> None:
    pending = sum(one.state == "pending" for one in added)
    todo = "dicom-etl columns backfill fills what is pending" if pending else "the tables have all of them"
    _show(added, as_json, "Chosen", f"{wording.counted(len(added), 'column')}; {todo}")


@columns.command(epilog="Example: dicom-etl columns remove sliceThickness")
@common
@click.argument("name")
@json_option
def remove(settings: Settings, name: str, as_json: bool) -> int:
    """Choose a tag no longer; the next backfill takes its column out of the tables."""
    from dicom_etl.commands.columns.choose import remove as verb  # noqa: PLC0415

    left = verb(settings, name)
    _show([left], as_json, "No longer chosen", f"{left.column.name}; dicom-etl columns backfill removes the column")
    return 0


@columns.command("list", epilog="Example: dicom-etl columns list --json")
@common
@json_option
def list_(settings: Settings, as_json: bool) -> int:
    """List the columns, and whether the tables have them."""
    from dicom_etl.commands.columns.choose import listed  # noqa: PLC0415

    rows = listed(settings)
    waiting = sum(one.state != "filled" for one in rows)
    todo = f"; {waiting} wait for dicom-etl columns backfill" if waiting else ""
    _show(rows, as_json, "Columns", f"{wording.counted(len(rows), 'tag')}{todo}")
    return 0


@columns.command(epilog="Example: dicom-etl columns update")
@common
@click.option("--full", is_flag=True, help="Compute every row, not only those of new entries.")
@json_option
def update(settings: Settings, full: bool, as_json: bool) -> int:
    """Bring the tag tables up to the last run."""
    return _executed(settings, as_json, "full" if full else "due")


@columns.command(epilog="Example: dicom-etl columns backfill --from-service")
@common
@click.option("--from-service", is_flag=True, help="Then ask the service for the headers that change does not have.")
@json_option
def backfill(settings: Settings, from_service: bool, as_json: bool) -> int:
    """Give the tag tables the tags that were chosen since, for every instance, from the headers in change."""
    return _asked(settings, as_json) if from_service else _executed(settings, as_json, "backfill")


def _asked(settings: Settings, as_json: bool) -> int:
    from dicom_etl.cli.terminal import terminal_progress  # noqa: PLC0415
    from dicom_etl.commands.columns.from_service import backfill_from_service  # noqa: PLC0415

    filled, failed = 0, 0
    with terminal_progress() as progress:
        for done in backfill_from_service(settings, progress=progress):
            filled += done.counts.written if done.mode == "service" else 0
            failed += done.counts.failed
            if as_json:
                print_json(done.as_row())
    if not as_json:
        gave = f"the service gave the headers of {wording.counted(filled, 'instance')}"
        _say(f"{gave}, and none for {wording.number(failed)}" if failed else gave)
    return 0


def _executed(settings: Settings, as_json: bool, extent: Extent) -> int:
    from dicom_etl.cli.terminal import terminal_progress  # noqa: PLC0415
    from dicom_etl.commands.columns.update import update as verb  # noqa: PLC0415

    with terminal_progress() as progress:
        done = verb(settings, extent, progress=progress)
    if as_json:
        print_json({} if done is None else done.as_row())
    else:
        print_execution(done)
    return 0


def print_execution(done: Execution | None) -> None:
    """Print what one execution did, in a sentence."""
    if done is None:
        _say("the tag tables have what the last run left")
        return
    counts = done.counts
    parts = [
        wording.counted(counts.touched, "instance") + " looked at",
        f"{wording.number(counts.written)} written",
        f"{wording.number(counts.withdrawn)} withdrawn",
        f"{wording.number(counts.unchanged)} unchanged",
    ]
    _say(f"the tag tables equal run {done.to_run}: {', '.join(parts)}")


def _say(text: str) -> None:
    if on_terminal():
        print_verdict("Up to date", text)
    else:
        print_line(text)


_COLUMNS = (
    Column("column"),
    Column("tag"),
    Column("type"),
    Column("level"),
    Column("from", 1),
    Column("state"),
)


def _show(rows: Sequence[ListedColumn], as_json: bool, head: str, verdict: str) -> None:
    table = [one.as_row() for one in rows]
    if as_json:
        for row in table:
            print_json(row)
    elif on_terminal():
        print_verdict(head, verdict)
        print_fitting(_COLUMNS, [tuple(str(cell or "-") for cell in row.values()) for row in table])
    else:
        print_rows(("column", "tag", "type", "level", "source", "state"), [list(row.values()) for row in table])
