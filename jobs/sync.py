"""spark-submit jobs/sync.py: bring the tables up to the service, in the session that the cluster provides."""

from __future__ import annotations

from dicom_etl.cli.jobs import job_parser, job_session, job_settings
from dicom_etl.cli.jsonlines import print_json
from dicom_etl.cli.process import exit_process, run_command
from dicom_etl.commands.metrics import metrics_after, refreshed
from dicom_etl.commands.sync import planned, sync
from dicom_etl.commands.sync_request import request
from dicom_etl.core.errors import DataError


def main() -> int:
    parser = job_parser(__doc__)
    for name in ("--start", "--end", "--until"):
        parser.add_argument(name, metavar="T")
    parser.add_argument("--max-runs", type=int)
    parser.add_argument("--strict", action="store_true", help="fail when an entry was rejected")
    parser.add_argument("--init", action="store_true", help="make the lake if there is none; never in a schedule")
    given = parser.parse_args()
    settings, rejected = job_settings(given), 0
    asked = request(given.start, given.end, given.until, given.max_runs, init=given.init)
    if given.dry_run:
        for window in planned(settings, asked):
            print_json(window.as_row())
        return 0
    with metrics_after(settings) as refresh:
        for run in refreshed(sync(settings, asked, spark=job_session()), refresh):
            rejected += run.rejected
            print_json(run.as_row())
    if given.strict and rejected:
        raise DataError(f"{rejected} entries were rejected; see the table rejected")
    return 0


if __name__ == "__main__":
    exit_process(run_command(main, "sync"))
