"""The command that completes an installation: `dicom-etl setup`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from dicom_etl.cli.options import configure_logs, settings_options
from dicom_etl.cli.screen import print_line
from dicom_etl.core.logs import LogFormat


@click.command(epilog="Example: dicom-etl setup --from /media/usb/jars")
@settings_options
@click.option(
    "--from", "source", metavar="PLACE", help="A folder with the jars, or a Maven mirror's address; else Maven Central."
)
@click.option(
    "--jars-to",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Only put the jars into this folder, for --from on a machine without internet.",
)
def setup(source: str | None, folder: Path | None, log_format: LogFormat, verbose: bool, **_others: Any) -> int:
    """Put Spark's jars and what a start needs into this environment."""
    configure_logs(log_format, verbose=verbose)
    from dicom_etl.commands.setup import put_jars, set_up  # noqa: PLC0415

    for line in [put_jars(folder, source)] if folder else set_up(source):
        print_line(f"setup: {line}")
    return 0
