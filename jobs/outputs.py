"""spark-submit jobs/outputs.py: bring the outputs up to the last run, in the session that the cluster provides."""

from __future__ import annotations

from dicom_etl.cli.jobs import job_parser, job_session, job_settings
from dicom_etl.cli.jsonlines import print_json
from dicom_etl.cli.process import exit_process, run_command
from dicom_etl.commands.outputs import brought_up
from dicom_etl.outputs.state import outputs


def main() -> int:
    given = job_parser(__doc__).parse_args()
    settings = job_settings(given)
    if given.dry_run:
        for state in outputs(settings):
            print_json(state.as_row())
        return 0
    for done in brought_up(settings, spark=job_session()):
        print_json(done.as_row())
    return 0


if __name__ == "__main__":
    exit_process(run_command(main, "outputs"))
