"""The command `dicom-etl doctor`: checks everything before a first run, and says what to do."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click

from dicom_etl.cli.jsonlines import print_json
from dicom_etl.cli.options import json_option, settings_options
from dicom_etl.commands.doctor.check import Finding, exit_code
from dicom_etl.core.logs import LogFormat, configure_logging
from dicom_etl.core.settings.load import load_settings


# Not `cli_options.common`: that ends with the first thing wrong in the settings, and hides the rest.
@click.command()
@settings_options
@json_option
def doctor(config: Path | None, overrides: tuple[str, ...], log_format: LogFormat, as_json: bool) -> int:
    """Check settings, service, roles, clock, storage, Java and jars; name the remedy for each problem."""
    from dicom_etl.commands.doctor.doctor import doctor as verb  # noqa: PLC0415

    configure_logging(log_format)
    findings = []
    for found in verb(partial(load_settings, config, overrides)):
        findings.append(found)
        _print(found, as_json or log_format == "json")
    return exit_code(findings)


def _print(found: Finding, as_json: bool) -> None:
    if as_json:
        row = {"check": found.check, "state": found.state, "text": found.text, "exitCode": found.exit_code}
        print_json(row)
    else:
        click.echo(f"{found.state:<8} {found.check:<17} {found.text}")
    sys.stdout.flush()
