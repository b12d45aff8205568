"""The commands for Microsoft Fabric: `dicom-etl fabric shortcuts`."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from dicom_etl.cli.jsonlines import print_json
from dicom_etl.cli.options import common, json_option
from dicom_etl.cli.screen import print_line
from dicom_etl.core.errors import UsageError
from dicom_etl.core.settings.model import DECLARED, Settings


@click.group(invoke_without_command=True)
@click.pass_context
def fabric(ctx: click.Context) -> None:
    """Share the tables with Microsoft Fabric."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(UsageError.exit_code)


@fabric.command(epilog="Example: dicom-etl fabric shortcuts --dry-run")
@common
@click.option("--workspace", metavar="ID", help="The workspace in Fabric; else fabric.workspace.")
@click.option("--lakehouse", metavar="ID", help="The lakehouse in it; else fabric.lakehouse.")
@click.option("--connection", metavar="ID", help="Fabric's connection to the storage; else fabric.connection.")
@click.option("--dry-run", is_flag=True, help="Show the plan; change nothing.")
@json_option
def shortcuts(
    settings: Settings,
    workspace: str | None,
    lakehouse: str | None,
    connection: str | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Make or update the OneLake shortcuts of the tables, the ledger and the DICOM files; of tag tables, if any."""
    from dicom_etl.outputs.fabric import shortcuts as output  # noqa: PLC0415
    from dicom_etl.outputs.fabric.api import LakehouseShortcuts  # noqa: PLC0415
    from dicom_etl.outputs.fabric.tag_tables import tag_tables  # noqa: PLC0415
    from dicom_etl.remote.identity import fabric_tokens  # noqa: PLC0415

    settings = _with_ids(settings, workspace=workspace, lakehouse=lakehouse, connection=connection)
    # What is wrong with the settings is said before anybody is asked for a token.
    wanted = [*output.shortcuts(settings), *output.tag_shortcuts(settings, tag_tables(settings))]
    with LakehouseShortcuts(settings.fabric, fabric_tokens(settings.fabric)) as api:
        for done in output.share(wanted, api, dry_run=dry_run):
            _print(done, as_json)
    return 0


def _with_ids(settings: Settings, **given: str | None) -> Settings:
    ids = {name: value for name, value in given.items() if value is not None}
    for name, value in ids.items():
        try:
            DECLARED[f"fabric.{name}"].check(value)
        except ValueError as error:
            raise UsageError(f"--{name}: {error}") from error
    return msgspec.structs.replace(settings, fabric=msgspec.structs.replace(settings.fabric, **ids))


def _print(done: Any, as_json: bool) -> None:
    row = done.as_row()
    if as_json:
        print_json(row)
    else:
        print_line(f"{row['outcome']}  {row['shortcut']} -> {row['target']}")
