"""The command line: parses it, calls a verb, prints what comes back (architecture §6)."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import click

from dicom_etl import __version__
from dicom_etl.cli_doctor import doctor
from dicom_etl.cli_fabric import fabric
from dicom_etl.cli_options import common, json_option
from dicom_etl.errors import DataError, UsageError
from dicom_etl.logs import said
from dicom_etl.printing import RowFormat, print_json, print_rows
from dicom_etl.settings import Settings, flat, shown
from dicom_etl.window import TICKS_PER_SECOND, Window, format_duration, format_instant, parse_duration

# Verbs are imported where they are called: most commands need no Spark, and its import alone costs a second.


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.option("--version", is_flag=True, help="Our version, Spark's and Delta's.")
@click.pass_context
def cli(ctx: click.Context, version: bool) -> None:
    """Keep three Delta tables, instance, series and study, equal to what an Azure DICOM service holds."""
    if version:
        _print_versions()
    elif ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(UsageError.exit_code)


cli.add_command(doctor)
cli.add_command(fabric)


def run() -> int:
    """The exit code of the command that the process was called with."""
    try:
        code = cli.main(standalone_mode=False, prog_name="dicom-etl")
    except click.exceptions.Abort as abort:
        raise KeyboardInterrupt from abort
    except click.ClickException as error:
        raise UsageError(error.format_message()) from error
    return code if isinstance(code, int) else 0


def _print_versions() -> None:
    click.echo(f"dicom-etl {__version__}")
    for package in ("pyspark", "delta-spark"):
        try:
            click.echo(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            click.echo(f"{package} not installed")


@cli.command()
@common
@click.option("--start", metavar="T", help="Read exactly [start, end), in one run.")
@click.option("--end", metavar="T", help="T is RFC 3339 with a zone: 2026-01-31T08:00:00Z.")
@click.option("--until", metavar="T", help="Read everything uncovered before T once, the open window included.")
@click.option("--max-runs", type=click.IntRange(min=1), help="Stop after so many runs.")
@click.option("--dry-run", is_flag=True, help="Say what would be read; take no claim, write nothing.")
@click.option("--strict", is_flag=True, help="Exit with 65 when an entry was rejected.")
@click.option("--adopt", is_flag=True, help="Take over the tables of the Data Factory template.")
@json_option
def sync(
    settings: Settings,
    start: str | None,
    end: str | None,
    until: str | None,
    max_runs: int | None,
    dry_run: bool,
    strict: bool,
    adopt: bool,
    as_json: bool,
) -> int:
    """Read every due window, oldest first, and merge it; or exactly one range."""
    from dicom_etl import sync as verb  # noqa: PLC0415
    from dicom_etl.metrics import metrics_after, refreshed  # noqa: PLC0415
    from dicom_etl.request import request as asked  # noqa: PLC0415
    from dicom_etl.terminal import terminal_progress  # noqa: PLC0415

    request = asked(start, end, until, max_runs, adopt=adopt)
    if dry_run:
        _print_plan(verb.planned(settings, request), as_json)
        return 0
    rejected = runs = 0
    with metrics_after(settings) as refresh, terminal_progress() as progress:
        for run in refreshed(verb.sync(settings, request, progress=progress), refresh):
            runs += 1
            rejected += run.rejected
            _print_run(run, as_json)
    if not runs and not as_json:
        over = format_duration(settings.feed.delay)
        click.echo(f"nothing is due: a window is read when it has been over for {over}; --until T reads up to T now")
    if strict and rejected:
        raise DataError(f"{rejected} entries were rejected; see dicom-etl status and the table rejected")
    return 0


@cli.command()
@common
@json_option
def watch(settings: Settings, as_json: bool) -> int:
    """Read every window as it becomes due, until a signal comes; a scheduler in one process."""
    from dicom_etl.exits import stop_when_asked  # noqa: PLC0415
    from dicom_etl.metrics import metrics_after, refreshed  # noqa: PLC0415
    from dicom_etl.terminal import terminal_progress  # noqa: PLC0415
    from dicom_etl.watch import watch as verb  # noqa: PLC0415

    with stop_when_asked() as asked, metrics_after(settings) as refresh, terminal_progress() as progress:

        def pause(seconds: float) -> None:
            refresh()  # a run that failed, and a lag that grows
            asked.wait(seconds)

        for run in refreshed(verb(settings, stopped=asked.is_set, pause=pause, progress=progress), refresh):
            _print_run(run, as_json)
            sys.stdout.flush()
    return 0


def _print_plan(stretches: list[Window], as_json: bool) -> None:
    for stretch in stretches:
        if as_json:
            print_json({"start": format_instant(stretch.start), "end": format_instant(stretch.end)})
        else:
            click.echo(f"would read {stretch}")
    if not stretches and not as_json:
        click.echo("nothing is due")


def _print_run(run: Any, as_json: bool) -> None:
    if as_json:
        print_json(run.as_row())
        return
    if run.window_start is None:
        click.echo(f"run {run.run_id}: the template's tables are adopted")
        return
    click.echo(
        f"run {run.run_id}: {format_instant(run.window_start)} to {format_instant(run.window_end)}: "
        f"{run.entries_read} entries, {run.inserted} inserted, {run.updated} updated, {run.deleted} deleted, "
        f"{run.superseded} superseded, {run.rejected} rejected"
    )


@cli.command()
@common
@click.option("--max-lag", metavar="DURATION", help="Exit with 1 when the tables are further behind, such as 3h.")
@json_option
def status(settings: Settings, max_lag: str | None, as_json: bool) -> int:
    """Say how far the tables have come; asks neither Spark nor the service."""
    from dicom_etl.status import status as verb  # noqa: PLC0415

    try:
        most = None if max_lag is None else parse_duration(max_lag) / TICKS_PER_SECOND
    except ValueError as error:
        raise UsageError(f"--max-lag: {error}") from error
    found = verb(settings)
    facts = {
        "coveredUntil": format_instant(found.covered_until),
        "lagSeconds": found.lag_seconds,
        "windowsDue": found.windows_due,
        "entriesPerSecond": found.entries_per_second,
        "eta": found.eta_seconds,
        "openRejects": found.open_rejects,
        "lastError": found.last_error,
    }
    if as_json:
        print_json(facts)
    else:
        print_rows(["", ""], [(name, _rounded(value)) for name, value in facts.items()])
        _print_runs(found.last_runs)
    if most is None or found.lag_seconds <= most:
        return 0
    click.echo(said(f"the tables are further behind than {max_lag}: see lastError and windowsDue"), err=True)
    return 1


def _rounded(value: Any) -> Any:
    """A measured number as a person reads it; --json has all its digits."""
    return f"{value:.1f}" if isinstance(value, float) else value


@cli.command()
@common
@json_option
def runs(settings: Settings, as_json: bool) -> int:
    """Print the ledger: one row a run."""
    from dicom_etl.status import all_runs  # noqa: PLC0415

    found = all_runs(settings)
    if as_json:
        for run in found:
            print_json(run.as_row())
    else:
        _print_runs(found)
    return 0


_SHOWN = (
    "runId", "verb", "status", "windowStart", "windowEnd", "coveredUntil", "entriesRead", "inserted", "updated",
    "deleted", "superseded", "rejected", "errorClass",
)  # fmt: skip


def _print_runs(found: Any) -> None:
    rows = [run.as_row() for run in found]
    print_rows(_SHOWN, [[row[name] for name in _SHOWN] for row in rows])


@cli.command()
@common
@click.option("--metadata", is_flag=True, help="Compare every attribute, not only keys, sequences and paths.")
@click.option("--show", is_flag=True, help="Print the keys that differ; they identify patients' studies.")
@json_option
def verify(settings: Settings, metadata: bool, show: bool, as_json: bool) -> int:
    """Compare the tables with the service; writes nothing; exits with 65 when they differ."""
    from dicom_etl.terminal import terminal_progress  # noqa: PLC0415
    from dicom_etl.verify import verify as verb  # noqa: PLC0415

    with terminal_progress() as progress:
        found = verb(settings, metadata=metadata, progress=progress)
    facts = {
        "equal": found.equal,
        "asOf": format_instant(found.as_of),
        "coveredUntil": format_instant(found.covered_until),
        "serviceInstances": found.service_instances,
        "lakeInstances": found.lake_instances,
        "serviceDigest": found.service_digest,
        "lakeDigest": found.lake_digest,
        "pending": found.pending,
        "pendingDifferent": found.pending_different,
        "openRejects": found.open_rejects,
        "search": found.search_refused or "compared",
        "gone": None if found.search_refused else len(found.gone),
        "suspects": None if found.suspects is None else len(found.suspects),
        **{f"{table}Differences": count for table, count in found.counts.items()},
    }
    if as_json:
        shown_keys = {"differences": [_difference(d) for d in found.differences], **_keys(found)} if show else {}
        print_json({**facts, "attributeDifferences": found.attributes, **shown_keys})
    else:
        print_rows(["", ""], [*facts.items(), *_by_attribute(found)])
        if show and found.differences:
            print_rows(["table", "difference", "key"], [list(_difference(d).values()) for d in found.differences])
        for name, keys in _keys(found).items() if show else ():
            print_rows([name], [[key] for key in keys])
    if not found.equal:
        hint = "" if show else "; --show prints their keys"
        raise DataError(f"the lake and the service differ in {len(found.differences)} rows{hint}")
    return 0


def _difference(found: Any) -> dict[str, str]:
    kind = f"{found.kind}: {', '.join(found.keywords)}" if found.keywords else found.kind
    return {"table": found.table, "difference": kind, "key": "/".join(found.key)}


def _by_attribute(found: Any) -> list[tuple[str, int]]:
    return [(f"{keyword} differs", count) for keyword, count in (found.attributes or {}).items()]


def _keys(found: Any) -> dict[str, list[str]]:
    named = {"gone": found.gone, "suspects": found.suspects or ()}
    return {name: ["/".join(key) for key in keys] for name, keys in named.items() if keys}


@cli.command()
@common
@click.option("--rebuild", is_flag=True, help="Build the three tables anew from the service, into place.")
@click.option("--metadata", is_flag=True, help="Mend what verify --metadata finds: compare every attribute.")
@json_option
def repair(settings: Settings, rebuild: bool, metadata: bool, as_json: bool) -> int:
    """Mend what verify finds; exits with 65 when something still differs."""
    from dicom_etl.metrics import metrics_after  # noqa: PLC0415
    from dicom_etl.repair import repair as verb  # noqa: PLC0415
    from dicom_etl.terminal import terminal_progress  # noqa: PLC0415

    with metrics_after(settings), terminal_progress() as progress:
        done = verb(settings, rebuild=rebuild, metadata=metadata, progress=progress)
    facts = {
        "runId": done.run.run_id,
        "equal": done.equal,
        **{f"{table}Differences": count for table, count in done.found.items()},
        "inserted": done.run.inserted,
        "updated": done.run.updated,
        "deleted": done.run.deleted,
        "rejected": done.run.rejected,
        "voided": done.voided,
        "servedAgain": done.served_again,
        "unlisted": done.unlisted,
        "search": done.search_refused or "compared",
        **{f"{table}Left": count for table, count in done.left.items()},
    }
    if as_json:
        print_json(facts)
    else:
        print_rows(["", ""], facts.items())
    if not done.equal:
        raise DataError("the lake and the service still differ; dicom-etl verify --show prints the keys")
    return 0


@cli.command()
@common
@json_option
def maintain(settings: Settings, as_json: bool) -> int:
    """Compact and vacuum the tables."""
    from dicom_etl.maintain import maintain as verb  # noqa: PLC0415
    from dicom_etl.terminal import terminal_progress  # noqa: PLC0415

    columns = ["table", "filesCompacted", "filesWritten", "filesFreed", "bytesFreed"]
    with terminal_progress() as progress:
        rows = [
            [m.table, m.files_compacted, m.files_written, m.files_freed, m.bytes_freed]
            for m in verb(settings, progress=progress)
        ]
    print_rows(columns, rows, "json" if as_json else "table")
    return 0


@cli.command()
@common
@click.argument("sql")
@click.option("--format", "row_format", type=click.Choice(["table", "csv", "json"]), default="table")
def query(settings: Settings, sql: str, row_format: RowFormat) -> int:
    """Ask the tables by Spark SQL (- reads the statement from standard input); read only."""
    from dicom_etl.query import answer  # noqa: PLC0415

    with answer(settings, sys.stdin.read() if sql == "-" else sql) as rows:
        print_rows(rows.columns, (tuple(row) for row in rows.toLocalIterator()), row_format)
    return 0


@cli.command()
@common
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--partition", help="The data partition to store into, where the service has them.")
@json_option
def upload(settings: Settings, paths: tuple[Path, ...], partition: str | None, as_json: bool) -> int:
    """Store DICOM files in the service (STOW-RS), one outcome per file; 65 when any was refused."""
    from dicom_etl.upload import upload as verb  # noqa: PLC0415

    refused = total = 0
    for done in verb(settings, paths, partition=partition):
        total += 1
        refused += done.outcome.refused
        if as_json:
            print_json({"path": str(done.path), "outcome": done.outcome.kind, "reason": done.outcome.reason})
        else:
            click.echo(
                f"{done.outcome.kind}  {done.path}" + (f"  ({done.outcome.reason})" if done.outcome.reason else "")
            )
    if refused:
        raise DataError(f"the service refused {refused} of {total} files")
    return 0


@cli.command()
@common
@json_option
def config(settings: Settings, as_json: bool) -> int:
    """Print every setting with the place it came from."""
    rows = [(key, shown(value), origin) for key, value, origin in flat(settings)]
    print_rows(["setting", "value", "from"], rows, "json" if as_json else "table")
    return 0


@cli.command()
@common
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--lake", type=click.Path(path_type=Path, file_okay=False), help="Folder that receives the DICOM files.")
@click.option("--load", "paths", multiple=True, type=click.Path(path_type=Path, exists=True), help="Store these first.")
@click.argument("more", nargs=-1, type=click.Path(path_type=Path, exists=True))
def emulator(
    _settings: Settings, port: int, host: str, lake: Path | None, paths: tuple[Path, ...], more: tuple[Path, ...]
) -> int:
    """Serve a local DICOM service, for trying things out and for tests; what it holds lives in memory."""
    from dicom_etl.emulator import serve  # noqa: PLC0415

    try:
        serve(
            host=host,
            port=port,
            lake=lake,
            load=[*paths, *more],
            ready=lambda address: click.echo(f"DICOM service at {address}"),
            loaded=_say_if_refused,
        )
    except OSError as error:
        raise UsageError(f"cannot serve at {host}, port {port}: {error.strerror}") from error
    return 0


def _say_if_refused(path: Path, stored: Any) -> None:
    if stored.failure is not None:
        why = "; ".join(stored.comments) or f"failure {stored.failure}: not a DICOM file that can be stored"
        click.echo(f"refused  {path}  ({why})", err=True)
