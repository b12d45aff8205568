"""The command that ends what cannot be used: `dicom-etl rejects`."""

from __future__ import annotations

from typing import Any

import click

from dicom_etl.cli.jsonlines import print_json
from dicom_etl.cli.options import common, json_option
from dicom_etl.cli.output import print_rows
from dicom_etl.core.errors import UsageError
from dicom_etl.core.settings.model import Settings


@click.command()
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
        found = open_rejects(settings)
    else:
        with metrics_after(settings):
            found = [close(settings, sequence, why)]
    rows = [_row(reject) for reject in found]
    if as_json:
        for row in rows:
            print_json(row)
    else:
        print_rows(_SHOWN, [list(row.values()) for row in rows])
    return 0


# No UIDs: what is printed ends in logs of schedulers. The table `rejected` has them.
_SHOWN = ("sequence", "timestamp", "reason", "status", "runId", "recordedAt")


def _row(reject: Any) -> dict[str, Any]:
    values = (
        reject.sequence, reject.timestamp, reject.reason, reject.status, reject.run_id, reject.recorded_at,
    )  # fmt: skip
    return dict(zip(_SHOWN, values, strict=True))
