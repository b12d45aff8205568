"""The command that makes the tables equal to the service again: `dicom-etl repair`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from dicom_etl.cli import wording
from dicom_etl.cli.jsonlines import print_json
from dicom_etl.cli.options import common, json_option
from dicom_etl.cli.output import print_rows
from dicom_etl.cli.screen import Column, on_terminal, print_facts, print_fitting, print_verdict
from dicom_etl.core.errors import DataError
from dicom_etl.core.logs import format_stderr
from dicom_etl.core.settings.model import Settings

if TYPE_CHECKING:
    from dicom_etl.commands.repair.reread import Repaired


@click.command(epilog="Example: dicom-etl repair --allow-removals 2000")
@common
@click.option("--rebuild", is_flag=True, help="Rebuild the three tables from the service and swap them in.")
@click.option("--metadata", is_flag=True, help="Repair what verify --metadata finds: compare every attribute.")
@click.option(
    "--allow-removals",
    type=click.IntRange(min=0),
    metavar="N",
    help="Remove up to N rows of each table; by default 1000 rows or 1 % of a table, and never all.",
)
@json_option
def repair(settings: Settings, rebuild: bool, metadata: bool, allow_removals: int | None, as_json: bool) -> int:
    """Repair what verify finds; exits with 65 when something still differs.

    Logs how many rows each table will lose before it writes (on a terminal with -v). A row that the service's search
    holds is never removed.
    """
    from dicom_etl.cli.terminal import terminal_progress  # noqa: PLC0415
    from dicom_etl.commands.metrics import metrics_after  # noqa: PLC0415
    from dicom_etl.commands.repair.repair import repair as verb  # noqa: PLC0415

    with metrics_after(settings), terminal_progress() as progress:
        result = verb(settings, rebuild=rebuild, metadata=metadata, allow_removals=allow_removals, progress=progress)
    row = result.as_row()
    if as_json:
        print_json(row)
    elif on_terminal():
        show_repair(result)
    else:
        kinds = ", ".join(f"{count} {kind}" for kind, count in result.kinds_left.items())
        print_rows(["", ""], {**row, "leftByKind": kinds}.items())
    if result.unread.line:
        click.echo(format_stderr(result.unread.line), err=True)
    if not result.equal:
        doubled, rejected = result.kinds_left.get("duplicate", 0), result.run.rejected
        hints = [
            *([f"{doubled} keys stand in several rows: run dicom-etl repair --rebuild"] if doubled else []),
            *(["entries could not be used: dicom-etl rejects lists them"] if rejected else []),
            "dicom-etl verify --show prints the keys",
        ]
        raise DataError(f"the lake and the service still differ; {'; '.join(hints)}")
    return 0


def show_repair(result: Repaired) -> None:
    """Print the verdict, what was done, and what is left."""
    changes = _changes(result)
    if result.equal and changes:
        print_verdict("Repaired", f"the lake and the service are equal; {', '.join(changes)}")
    elif result.equal:
        print_verdict("Nothing to repair", "the lake and the service are equal")
    else:
        left = sum(result.left.values())
        rest = f"{wording.counted(left, 'row')} still differ; {', '.join(changes) or 'nothing was changed'}"
        print_verdict("Not repaired", rest, "bad")
    print_facts(_facts(result))
    if any((*result.found.values(), *result.left.values())):
        columns = (Column("table"), Column("rows that differed", right=True), Column("still differ", right=True))
        tables = dict.fromkeys((*result.found, *result.left))
        print_fitting(columns, [(name, _count(result.found, name), _count(result.left, name)) for name in tables])


def _changes(result: Repaired) -> list[str]:
    run = result.run
    counts = {
        "inserted": run.inserted,
        "updated": run.updated,
        "deleted": run.deleted,
        "rejected": run.rejected,
        "marked void": result.voided,
        "restored": result.restored,
    }
    return [f"{wording.number(count)} {what}" for what, count in counts.items() if count]


def _facts(result: Repaired) -> list[tuple[str, str]]:
    facts = [("run", str(result.run.run_id))]
    if result.feed_went_back:
        facts.append(("service", "restored to an earlier state; the tables followed"))
    if result.search_refused is not None:
        facts.append(("search", f"could not be asked: {result.search_refused}"))
    if result.unlisted:
        facts.append(("missing in the feed", f"{wording.counted(result.unlisted, 'key')}; ask the service's support"))
    if result.kinds_left:
        facts.append(("left", ", ".join(f"{wording.number(n)} {kind}" for kind, n in result.kinds_left.items())))
    return facts


def _count(counts: dict[str, int], table: str) -> str:
    return wording.number(counts[table]) if table in counts else "not compared"
