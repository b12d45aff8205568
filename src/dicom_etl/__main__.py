"""The entry point ``dicom-etl`` (and ``python -m dicom_etl``): the command line, or one line on what it lacks."""

from __future__ import annotations

from dicom_etl.cli.process import exit_process, run_command


def main() -> None:
    """Run the command line and exit with its code."""
    exit_process(run_command(_command_line))


def _command_line() -> int:
    from dicom_etl.cli.main import run  # noqa: PLC0415  click is an extra: without it there is one line, no traceback

    return run()


if __name__ == "__main__":
    main()
