"""The commands of the output `fhir`: `dicom-etl fhir`, and `fhir export | import | verify | withdraw | adopt`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from dicom_etl.cli import wording
from dicom_etl.cli.jsonlines import print_json
from dicom_etl.cli.options import common, json_option
from dicom_etl.cli.output import print_rows
from dicom_etl.cli.screen import Column, on_terminal, print_fitting, print_line, print_verdict
from dicom_etl.core.errors import DataError, UsageError
from dicom_etl.core.settings.model import Settings

if TYPE_CHECKING:
    from dicom_etl.commands.fhir.verify import KindVerified
    from dicom_etl.outputs.execution import Execution


class _Group(click.Group):
    """A group that is a verb of its own, too: `dicom-etl fhir` sends."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["send", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Group)
def fhir() -> None:
    """Keep a FHIR R4 server equal to the tables: ImagingStudy, Endpoint, Patient, and dose as Observations.

    Without a command it sends what differs, as `fhir send`.
    """


@fhir.command(epilog="Example: dicom-etl fhir send --dry-run")
@common
@click.option("--full", is_flag=True, help="Compare every study with what was sent, not only those of new entries.")
@click.option("--retry", is_flag=True, help="Send again what the server refused, although it is the same.")
@click.option("--dry-run", is_flag=True, help="Count what would be sent; change nothing.")
@json_option
def send(settings: Settings, as_json: bool, **asked: bool) -> int:
    """Bring the server to what the tag tables hold; exit with 65 when it refuses a resource, or fails for one."""
    from dicom_etl.cli.terminal import terminal_progress  # noqa: PLC0415
    from dicom_etl.commands.fhir.update import Asked  # noqa: PLC0415
    from dicom_etl.commands.fhir.update import update as verb  # noqa: PLC0415

    with terminal_progress() as progress:
        done = verb(settings, Asked(**asked), progress=progress)
    _show_execution(done, as_json, "would be" if asked["dry_run"] else "")
    _refuse_unsent(done)
    return 0


def _show_execution(done: Execution | None, as_json: bool, would: str = "") -> None:
    if as_json:
        print_json({} if done is None else done.as_row())
    elif done is None:
        _say("Up to date", "the FHIR server has what the tag tables hold")
    else:
        counts = done.counts
        parts = [
            f"{wording.number(counts.written)} {would} sent".replace("  ", " "),
            f"{wording.number(counts.withdrawn)} {would} deleted".replace("  ", " "),
            f"{wording.number(counts.unchanged)} unchanged",
            f"{wording.number(counts.refused)} refused",
            f"{wording.number(counts.failed)} failed",
        ]
        requests = done.details.get("requests", 0)
        text = f"run {done.to_run}: {wording.counted(counts.touched, 'resource')}, {', '.join(parts)}"
        _say("Sent", f"{text}; {wording.counted(requests, 'request')}")


def _refuse_unsent(done: Execution | None) -> None:
    if done is None or not (done.counts.refused or done.counts.failed):
        return
    raise DataError(
        f"the FHIR server refused {done.counts.refused} resources and failed for {done.counts.failed}: "
        "fhir_sent has the status and code of each; those that failed are sent again by the next execution, those "
        "that were refused when they change, or with --retry"
    )


@fhir.command(epilog="Example: dicom-etl fhir verify --json")
@common
@json_option
def verify(settings: Settings, as_json: bool) -> int:
    """Compare ids and digests of the server's resources with what was sent; exit with 65 when they differ."""
    from dicom_etl.commands.fhir.verify import verify as verb  # noqa: PLC0415

    found = verb(_tools(settings))
    rows = [one.as_row() for one in found]
    if as_json:
        for row in rows:
            print_json(row)
    elif on_terminal():
        _show_verified(found)
    else:
        print_rows(tuple(rows[0]), [list(row.values()) for row in rows])
    if not all(one.right for one in found):
        raise DataError(
            "the FHIR server does not hold what was sent: dicom-etl fhir withdraw, then dicom-etl fhir, sends it again"
        )
    return 0


def _show_verified(found: list[KindVerified]) -> None:
    right = all(one.right for one in found)
    print_verdict(
        "Equal" if right else "Differs", "the server's resources and what was sent", "good" if right else "bad"
    )
    columns = tuple(
        Column(name, right=name != "kind") for name in ("kind", "equal", "differs", "missing", "unknown", "unsent")
    )
    print_fitting(columns, [tuple(str(cell) for cell in list(one.as_row().values())[:-1]) for one in found])


@fhir.command(epilog="Example: dicom-etl fhir withdraw --yes")
@common
@click.option("--yes", is_flag=True, help="Do it.")
@json_option
def withdraw(settings: Settings, yes: bool, as_json: bool) -> int:
    """Delete everything of ours from the server; the next `dicom-etl fhir` sends it again."""
    from dicom_etl.commands.fhir.withdraw import withdraw as verb  # noqa: PLC0415

    if not yes:
        raise UsageError("fhir withdraw deletes every resource of this lake from the FHIR server: say so with --yes")
    done = verb(_tools(settings))
    _show_execution(done, as_json)
    _refuse_unsent(done)
    return 0


@fhir.command(epilog="Example: dicom-etl fhir adopt")
@common
@json_option
def adopt(settings: Settings, as_json: bool) -> int:
    """Take over the ImagingStudy resources that DICOMcast left: the next `dicom-etl fhir` writes them as ours."""
    from dicom_etl.commands.fhir.adopt import adopt as verb  # noqa: PLC0415

    found = verb(_tools(settings))
    if as_json:
        print_json(found.as_row())
    else:
        left = f"{wording.number(found.several)} claimed by several, {wording.number(found.foreign)} of another source"
        _say("Adopted", f"{wording.counted(found.adopted, 'study', 'studies')}; left alone: {left}")
    return 0


@fhir.command(epilog="Example: dicom-etl fhir export abfss://fhir@account.dfs.core.windows.net/export-1")
@common
@click.argument("to", metavar="DIR")
@click.option(
    "--since-run", type=click.IntRange(min=1), help="Only studies of later runs, and deletions of those gone."
)
@json_option
def export(settings: Settings, to: str, since_run: int | None, as_json: bool) -> int:
    """Write the resources as NDJSON, a file a type, into a new folder; no FHIR server is asked."""
    from dicom_etl.commands.fhir.export import export as verb  # noqa: PLC0415

    done = verb(_tools(settings), to, since_run)
    if as_json:
        print_json(done.as_row())
    else:
        parts = ", ".join(f"{wording.number(count)} {kind}" for kind, count in done.counts.items())
        deleted = f", {wording.counted(done.deletions, 'deletion')} among them" if done.deletions else ""
        _say("Exported", f"as of run {done.run_id}: {parts}{deleted}")
    return 0


@fhir.command("import", epilog="Example: dicom-etl fhir import abfss://fhir@account.dfs.core.windows.net/export-1")
@common
@click.argument("folder", metavar="DIR")
@json_option
def import_(settings: Settings, folder: str, as_json: bool) -> int:
    """Let the server import an export ($import), and wait for it; exit with 65 when it took only some."""
    from dicom_etl.cli.terminal import terminal_progress  # noqa: PLC0415
    from dicom_etl.commands.fhir.import_files import import_files as verb  # noqa: PLC0415

    with terminal_progress() as progress:
        done = verb(_tools(settings, progress), folder)
    if as_json:
        print_json(done.as_row())
    else:
        _say("Imported", f"{wording.counted(done.imported, 'resource')}, {wording.number(done.errors)} refused")
    if done.errors:
        raise DataError(f"the FHIR server did not import {done.errors} resources: its error files name them")
    return 0


def _tools(settings: Settings, progress: Any = None) -> Any:
    from dicom_etl.commands.fhir.update import Tools  # noqa: PLC0415
    from dicom_etl.core.progress import NullProgress  # noqa: PLC0415

    return Tools(settings, progress or NullProgress())


def _say(head: str, text: str) -> None:
    if on_terminal():
        print_verdict(head, text)
    else:
        print_line(text)
