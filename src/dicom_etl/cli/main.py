"""The command line: parses it, calls a verb, prints what comes back.

design/architecture.md: Command line and errors.
"""

from __future__ import annotations

import importlib.metadata
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from dicom_etl import __version__
from dicom_etl.cli.changes import changes
from dicom_etl.cli.columns import columns
from dicom_etl.cli.doctor import doctor
from dicom_etl.cli.export import export
from dicom_etl.cli.fabric import fabric
from dicom_etl.cli.fhir import fhir
from dicom_etl.cli.jsonlines import print_json
from dicom_etl.cli.maintain import maintain
from dicom_etl.cli.options import common, configure_logs, json_option, settings_options
from dicom_etl.cli.output import print_rows
from dicom_etl.cli.outputs import outputs
from dicom_etl.cli.query import query
from dicom_etl.cli.rejects import rejects
from dicom_etl.cli.repair import repair
from dicom_etl.cli.retrieve import retrieve
from dicom_etl.cli.screen import print_line
from dicom_etl.cli.search import search
from dicom_etl.cli.setup import setup
from dicom_etl.cli.status import runs, status
from dicom_etl.cli.sync import init, sync, watch
from dicom_etl.cli.verify import verify
from dicom_etl.core.errors import DataError, UsageError
from dicom_etl.core.logs import LogFormat, configure_as_asked
from dicom_etl.core.settings.model import Settings, flat, shown

# Verbs are imported where they are called: most commands need no Spark, and its import alone costs a second.


class _WholeSummaries(click.Group):
    """A group whose list of commands wraps their summaries; click's own cuts them."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        rows = [(name, one.get_short_help_str(limit=1000)) for name, one in sorted(self.commands.items())]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=_WholeSummaries, context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.option("--version", is_flag=True, help="Print the versions of dicom-etl, Spark and Delta.")
@click.pass_context
def cli(ctx: click.Context, version: bool) -> None:
    """Keep three Delta tables, instance, series and study, equal to what an Azure DICOM service holds."""
    if version:
        _print_versions()
    elif ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(UsageError.exit_code)


for _verb in (
    init,
    sync,
    watch,
    status,
    runs,
    rejects,
    verify,
    repair,
    maintain,
    doctor,
    setup,
    query,
    changes,
    export,
    columns,
    outputs,
    fabric,
    fhir,
    search,
    retrieve,
):
    cli.add_command(_verb)


def run() -> int:
    """The exit code of the command that the process was called with."""
    try:
        code = cli.main(standalone_mode=False, prog_name="dicom-etl")
    except click.exceptions.Abort as abort:
        raise KeyboardInterrupt from abort
    except click.ClickException as error:
        configure_as_asked(sys.argv[1:])
        raise UsageError(error.format_message()) from error
    return code if isinstance(code, int) else 0


def _print_versions() -> None:
    click.echo(f"dicom-etl {__version__}")
    for package in ("pyspark", "delta-spark"):
        try:
            click.echo(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            click.echo(f"{package} not installed")


@cli.command(epilog="Example: dicom-etl upload --partition clinic-a scans/")
@common
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--partition", help="The data partition to store into, where the service has them.")
@json_option
def upload(settings: Settings, paths: tuple[Path, ...], partition: str | None, as_json: bool) -> int:
    """Store DICOM files in the service (STOW-RS); exit with 65 when the service refuses one."""
    from dicom_etl.commands.upload import upload as verb  # noqa: PLC0415

    refused = total = 0
    for done in verb(settings, paths, partition=partition):
        total += 1
        refused += done.outcome.refused
        if as_json:
            print_json(done.as_row())
        else:
            reason = f"  ({done.outcome.reason})" if done.outcome.reason else ""
            print_line(f"{done.outcome.kind}  {done.path}{reason}")
    if refused:
        raise DataError(f"the service refused {refused} of {total} files")
    return 0


@cli.command(epilog="Example: dicom-etl config --set feed.delay=5m")
@common
@json_option
def config(settings: Settings, as_json: bool) -> int:
    """Print every setting and where it comes from."""
    rows = [(key, shown(value), origin) for key, value, origin in flat(settings)]
    print_rows(["setting", "value", "from"], rows, "json" if as_json else "table")
    return 0


@cli.command(epilog="Example: dicom-etl emulator --port 8080 --lake files --load scans/")
@common
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port; 0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--lake", type=click.Path(path_type=Path, file_okay=False), help="Folder that receives the DICOM files.")
@click.option(
    "--load", "paths", multiple=True, type=click.Path(path_type=Path, exists=True), help="Store these files first."
)
@click.option(
    "--cors-origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="Let pages of this origin, such as http://127.0.0.1:3000, read the answers; may be given again.",
)
@click.option("--fhir", "with_fhir", is_flag=True, help="Start a local FHIR R4 server beside it, on a free port.")
@click.argument("more", nargs=-1, type=click.Path(path_type=Path, exists=True))
def emulator(_settings: Settings, port: int, host: str, lake: Path | None, more: tuple[Path, ...], **how: Any) -> int:
    """Start a local DICOM service that keeps its instances in memory."""
    from dicom_emulator.fhir.serve import serve_fhir  # noqa: PLC0415
    from dicom_emulator.options import EmulatorOptions  # noqa: PLC0415
    from dicom_emulator.serve import serve  # noqa: PLC0415

    refused: list[bool] = []

    def loaded(path: Path, stored: Any) -> None:
        refused.append(stored.failure is not None)
        _say_if_refused(path, stored)

    def ready(address: str) -> None:
        click.echo(f"DICOM service at {address}")
        if refused:
            click.echo(f"loaded {refused.count(False)} of {len(refused)} files")

    try:
        with serve_fhir(host=host) if how["with_fhir"] else nullcontext() as fhir:
            if fhir is not None:
                click.echo(f"FHIR server at {fhir.base_url}")
            serve(
                host=host,
                port=port,
                lake=lake,
                load=[*how["paths"], *more],
                options=EmulatorOptions(cors_origins=[_origin(text) for text in how["origins"]]),
                ready=ready,
                loaded=loaded,
            )
    except OSError as error:
        raise UsageError(f"cannot serve at {host}, port {port}: {error.strerror}") from error
    return 0


@cli.command(epilog="Example: dicom-etl demo")
@settings_options
@click.option("--yes", is_flag=True, help="Replace the ./demo-lake of an earlier demo without a question.")
@click.option("--fhir", metavar="ADDRESS", help="Fill this FHIR R4 server; without it a local one is filled and shown.")
def demo(log_format: LogFormat, verbose: bool, yes: bool, fhir: str | None, **_others: Any) -> int:
    """Run the demo on real DICOM files, against a local DICOM service, in ./demo-lake; its settings are its own.

    On a terminal it asks before it replaces the folder of an earlier demo; elsewhere it replaces it.
    """
    configure_logs(log_format, verbose=verbose)
    from dicom_etl.commands.demo.demo import is_there, main  # noqa: PLC0415

    if is_there() and not yes and sys.stdin.isatty() and not click.confirm("Replace the demo-lake that is here?"):
        click.echo("demo-lake is left as it is")
        return 0
    return main(fhir)


def _origin(text: str) -> str:
    """An origin as a browser sends it: scheme, host and port, and nothing behind."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path or parts.query or parts.fragment:
        raise UsageError("--cors-origin: expected an origin without a path, such as http://127.0.0.1:3000")
    return text


def _say_if_refused(path: Path, stored: Any) -> None:
    if stored.failure is not None:
        why = "; ".join(stored.comments) or f"failure {stored.failure}: not a DICOM file that can be stored"
        click.echo(f"refused  {path}  ({why})", err=True)
