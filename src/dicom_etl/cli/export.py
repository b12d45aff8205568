"""The verb `export`: a result into a folder, and the check of one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from dicom_etl.cli.jsonlines import print_json
from dicom_etl.cli.options import common, json_option
from dicom_etl.cli.query import as_of_option, run_option
from dicom_etl.cli.screen import print_line
from dicom_etl.cli.wording import counted, number
from dicom_etl.core.errors import DataError, UsageError
from dicom_etl.core.settings.model import Settings


@click.command(epilog="Example: dicom-etl export \"SELECT * FROM instance WHERE modality = 'CT'\" --to cohort --files")
@common
@click.argument("sql", required=False)
@click.option("--to", metavar="DIR", help="The folder to write: a new one, or an empty one.")
@click.option("--format", "rows_format", type=click.Choice(["parquet", "csv"]), default="parquet", show_default=True)
@click.option("--files", "with_files", is_flag=True, help="Copy the DICOM files that the column filePath names, too.")
@run_option
@as_of_option
@click.option(
    "--verify",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Compare an export with its manifest and with the lake; exit with 65 when something differs.",
)
@json_option
def export(settings: Settings, sql: str | None, to: str | None, verify: Path | None, as_json: bool, **how: Any) -> int:
    """Write a result, its manifest and its DICOM files into a folder, to be cited and to be checked later.

    The tables are those of the last run that succeeded, unless --run or --as-of names another. The export holds what
    the statement gives of patients.
    """
    if verify is not None:
        if sql is not None or to is not None:
            raise UsageError("--verify: takes no statement and no --to")
        return _check(settings, verify, as_json)
    if sql is None or to is None:
        raise UsageError('export: give a statement and --to DIR, such as export "SELECT * FROM study" --to cohort')
    return _export(settings, sql, to, as_json, how)


def _export(settings: Settings, sql: str, to: str, as_json: bool, how: dict[str, Any]) -> int:
    from dicom_etl.commands.export.export import ExportRequest  # noqa: PLC0415
    from dicom_etl.commands.export.export import export as verb  # noqa: PLC0415
    from dicom_etl.lake.past import When  # noqa: PLC0415

    when = When.either(how["run_id"], how["as_of"])
    done = verb(settings, ExportRequest(sql, to, how["rows_format"], how["with_files"], when))
    if as_json:
        print_json(
            {
                "runId": done.run_id,
                "rowCount": done.row_count,
                "rowsDigest": done.rows_digest,
                "files": len(done.files),
                "fileBytes": sum(one.size_bytes for one in done.files),
                "manifestSha256": done.sha256(),
            }
        )
    else:
        files = f", {counted(len(done.files), 'DICOM file')}" if how["with_files"] else ""
        print_line(
            f"exported {counted(done.row_count, 'row')}{files} as of run {done.run_id}; digest {done.rows_digest}"
        )
        print_line(f"SHA-256 of manifest.json  {done.sha256()}")
    return 0


def _check(settings: Settings, folder: Path, as_json: bool) -> int:
    from dicom_etl.commands.export.check import check_export  # noqa: PLC0415
    from dicom_etl.commands.export.manifest import manifest_sha256, read_manifest  # noqa: PLC0415

    if not as_json:  # before it runs: a folder that somebody else may have written names it
        print_line(f"statement  {read_manifest(folder).statement}")
        print_line(f"SHA-256 of manifest.json  {manifest_sha256(folder)}")
        sys.stdout.flush()
    check = check_export(settings, folder)
    if as_json:
        print_json(check.as_row())
    else:
        of = len(check.equal) + len(check.changed) + len(check.missing)
        print_line(f"files  {number(len(check.equal))} of {counted(of, 'file')} equal")
        for what in ("changed", "missing", "unexpected"):
            for path in getattr(check, what):
                print_line(f"{what}  {path}")
        print_line(f"versions in the lake  {check.versions}")
        print_line(f"rows of the lake  {check.rows}")
    if check.differs:
        raise DataError("the export is not what it was: see what differs")
    return 0
