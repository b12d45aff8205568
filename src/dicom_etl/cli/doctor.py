"""The command `dicom-etl doctor`: checks everything before a first run, and says what to do."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import click

from dicom_etl.cli import wording
from dicom_etl.cli.jsonlines import print_json
from dicom_etl.cli.options import configure_logs, json_option, settings_options
from dicom_etl.cli.screen import Column, Tone, on_terminal, print_fitting, print_verdict
from dicom_etl.commands.doctor.check import CheckResult, exit_code
from dicom_etl.core.logs import LogFormat
from dicom_etl.core.settings.load import load_settings


# Not `cli_options.common`: that ends with the first thing wrong in the settings, and hides the rest.
@click.command(epilog="Example: dicom-etl doctor --config conf/local.toml")
@settings_options
@json_option
def doctor(config: Path | None, overrides: tuple[str, ...], log_format: LogFormat, verbose: bool, as_json: bool) -> int:
    """Check settings, service, roles, clock, storage, Java and jars; name the remedy for each problem."""
    from dicom_etl.commands.doctor.doctor import doctor as verb  # noqa: PLC0415

    configure_logs(log_format, verbose=verbose)
    checks = verb(partial(load_settings, config, overrides))
    as_json = as_json or log_format == "json"
    findings = _collected(checks) if on_terminal() and not as_json else _printed(checks, as_json)
    return exit_code(findings)


def _printed(checks: Iterable[CheckResult], as_json: bool) -> list[CheckResult]:
    """The findings, each printed as soon as it is known."""
    findings = []
    for finding in checks:
        findings.append(finding)
        if as_json:
            print_json(finding.as_row())
        else:
            click.echo(f"{finding.state:<8} {finding.check:<17} {finding.text}")
        sys.stdout.flush()
    return findings


def _collected(checks: Iterable[CheckResult]) -> list[CheckResult]:
    """The findings, printed when all are known, since the verdict comes first."""
    from dicom_etl.cli.terminal import terminal_progress  # noqa: PLC0415

    findings = []
    with terminal_progress() as progress:
        progress.step("check")
        for finding in checks:
            findings.append(finding)
            progress.step(f"checked {finding.check}")
    show_findings(findings)
    return findings


def show_findings(findings: list[CheckResult]) -> None:
    """Print whether all is ready, and every check with what to do."""
    print_verdict(*_verdict(findings))
    columns = (Column("state"), Column("check"), Column("result, and what to do"))
    print_fitting(columns, [(finding.state, finding.check, finding.text) for finding in findings])


def _verdict(findings: list[CheckResult]) -> tuple[str, str, Tone]:
    checks = wording.counted(len(findings), "check")
    problems, warnings = (sum(finding.state == state for finding in findings) for state in ("problem", "warning"))
    if problems:
        return "Not ready", f"{wording.counted(problems, 'problem')} in {checks}; the first one comes first", "bad"
    if warnings:
        return "Ready", f"{checks} passed, {wording.number(warnings)} of them with a warning", "attention"
    return "Ready", f"{checks} passed", "good"
