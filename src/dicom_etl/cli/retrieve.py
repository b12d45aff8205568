"""The verb `retrieve`: files, pictures and frames from the service into a folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from dicom_etl.cli.jsonlines import print_json
from dicom_etl.cli.options import common, json_option
from dicom_etl.cli.screen import print_line
from dicom_etl.cli.wording import counted
from dicom_etl.core.errors import DataError, ServiceUnavailable
from dicom_etl.core.settings.model import Settings


@click.command(epilog="Example: dicom-etl retrieve 1.2.840.1 --to scans --rendered png")
@common
@click.argument("study")
@click.argument("series", required=False)
@click.argument("instance", required=False)
@click.option("--to", required=True, type=click.Path(path_type=Path), metavar="DIR", help="The folder to write into.")
@click.option("--partition", help="The data partition to read, where the service has them.")
@click.option("--rendered", type=click.Choice(["png", "jpeg"]), help="Pictures that the service draws, not files.")
@click.option("--frames", metavar="1,2", help="These frames of each instance, not whole files: as stored, or rendered.")
@json_option
def retrieve(settings: Settings, as_json: bool, frames: str | None, **what: Any) -> int:
    """Retrieve a study, a series or an instance into a folder (WADO-RS); exit with 65 when a file fails.

    Files that are there already are skipped: call it again to go on. STUDY, SERIES and INSTANCE are UIDs, which name
    the folders and files.
    """
    from dicom_etl.commands.retrieve.request import RetrieveRequest, frame_numbers  # noqa: PLC0415
    from dicom_etl.commands.retrieve.retrieve import retrieve as verb  # noqa: PLC0415

    outcomes: Counter[str] = Counter()
    passing = True
    for file in verb(settings, RetrieveRequest(frames=frame_numbers(frames), **what)):
        outcomes[file.outcome] += 1
        passing = passing and (file.passing or file.outcome != "failed")
        if as_json:
            print_json(file.as_row())
        else:
            print_line(f"{file.outcome}  {file.path}" + (f"  ({file.reason})" if file.reason else ""))
    if outcomes["failed"]:
        error = ServiceUnavailable if passing else DataError
        raise error(f"{outcomes['failed']} of {counted(outcomes.total(), 'file')} could not be retrieved")
    return 0
