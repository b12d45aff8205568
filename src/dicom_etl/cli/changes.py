"""The verb `changes`: what two runs left differently."""

from __future__ import annotations

import click

from dicom_etl.cli.options import common
from dicom_etl.cli.output import RowFormat
from dicom_etl.cli.query import format_option, print_answer
from dicom_etl.core.settings.model import Settings


@click.command(epilog="Example: dicom-etl changes --since 2026-01-24T00:00:00Z --format csv")
@common
@click.option(
    "--since", required=True, metavar="RUN|T", help="A run, or the last one that had succeeded by T (RFC 3339)."
)
@click.option("--until", metavar="RUN|T", help="The same for the end; else the last run that succeeded.")
@click.option("--table", type=click.Choice(["instance", "series", "study"]), default="instance", show_default=True)
@format_option
def changes(settings: Settings, since: str, until: str | None, table: str, row_format: RowFormat) -> int:
    """List what was inserted, updated and deleted between two runs.

    One row a key: table, action, the key, and of instances the sequence (of a deleted one the last that it had).
    """
    from dicom_etl.commands.changes import changes as verb  # noqa: PLC0415
    from dicom_etl.lake.past import When  # noqa: PLC0415

    end = None if until is None else When.parsed(until, "--until")
    with verb(settings, When.parsed(since, "--since"), end, table) as rows:
        print_answer(rows, row_format)
    return 0
