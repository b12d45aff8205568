"""The command that ends what cannot be used: `dicom-etl rejects`."""

from __future__ import annotations

import click

from dicom_etl.cli import wording
from dicom_etl.cli.jsonlines import print_json
from dicom_etl.cli.options import common, json_option
from dicom_etl.cli.output import print_rows
from dicom_etl.cli.screen import Column, on_terminal, print_fitting, print_verdict
from dicom_etl.core.errors import UsageError
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake.rejected import Reject


@click.command(epilog='Example: dicom-etl rejects --close 1204 --why "deleted at its source"')
@common
@click.option("--close", "sequence", type=int, metavar="SEQUENCE", help="Close this open reject: it is void then.")
@click.option("--why", metavar="TEXT", help="With --close, why; it is kept. Nothing of a patient.")
@json_option
def rejects(settings: Settings, sequence: int | None, why: str | None, as_json: bool) -> int:
    """List the open rejects, or close one."""
    from dicom_etl.commands.metrics import metrics_after  # noqa: PLC0415
    from dicom_etl.commands.rejects import close, open_rejects  # noqa: PLC0415

    why = (why or "").strip()
    if (sequence is None) is not (not why):
        raise UsageError("--close and --why belong together: --close SEQUENCE --why TEXT")
    if sequence is None:
        rejected = open_rejects(settings)
    else:
        with metrics_after(settings):
            rejected = [close(settings, sequence, why)]
    rows = [reject.as_row() for reject in rejected]
    if as_json:
        for row in rows:
            print_json(row)
    elif on_terminal():
        show_rejects(rejected)
    else:
        print_rows(_PRINTED, [list(row.values()) for row in rows])
    return 0


_PRINTED = ("sequence", "timestamp", "reason", "status", "runId", "recordedAt")
_COLUMNS = (
    Column("sequence", right=True),
    Column("time (UTC)"),
    Column("reason"),
    Column("run", right=True),
    Column("recorded", 1),
)


def show_rejects(rejected: list[Reject]) -> None:
    """Print how many rejects are open, or which one was closed, and their table."""
    if not rejected:
        print_verdict("Good", "no entry is rejected and open")
        return
    if rejected[0].status == "open":
        are = "is open; each run asks for it" if len(rejected) == 1 else "are open; each run asks for them"
        print_verdict("Open rejects", f"{wording.counted(len(rejected), 'entry', 'entries')} {are} again", "attention")
    else:
        print_verdict("Closed", f"entry {rejected[0].sequence} is void; no run asks for it again")
    print_fitting(_COLUMNS, [_cells(reject) for reject in rejected])


def _cells(reject: Reject) -> tuple[str, ...]:
    return (
        str(reject.sequence),
        wording.timestamp(reject.timestamp),
        reject.reason,
        str(reject.run_id),
        wording.timestamp(reject.recorded_at),
    )
