"""The commands that make a lake and read the feed into it: `dicom-etl init`, `dicom-etl sync`, `dicom-etl watch`."""

from __future__ import annotations

import sys
from typing import Any

import click

from dicom_etl.cli.jsonlines import print_json
from dicom_etl.cli.options import common, json_option
from dicom_etl.core.errors import DataError
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import Window, format_duration, format_instant


@click.command()
@common
@json_option
def init(settings: Settings, as_json: bool) -> int:
    """Make a new lake at lake.root; an existing lake stays as it is."""
    from dicom_etl.lake.lake_id import service_fingerprint  # noqa: PLC0415
    from dicom_etl.lake.open import init_lake  # noqa: PLC0415
    from dicom_etl.lake.paths import lake_paths  # noqa: PLC0415

    lake, made = init_lake(lake_paths(settings), service_fingerprint(settings.dicom.base_url))
    identity = lake.identity
    if as_json:
        print_json({"root": lake.paths.root, "lake": str(identity.lake_id), "service": identity.service, "made": made})
    else:
        what = "made a new lake" if made else "there is a lake already"
        click.echo(f"{what} at {lake.paths.root}: {identity.lake_id}, for {identity.service}")
    return 0


@click.command()
@common
@click.option("--start", metavar="T", help="Read exactly [start, end), in one run.")
@click.option("--end", metavar="T", help="T is RFC 3339 with a zone: 2026-01-31T08:00:00Z.")
@click.option("--until", metavar="T", help="Read everything uncovered before T once, the open window included.")
@click.option("--max-runs", type=click.IntRange(min=1), help="Stop after so many runs.")
@click.option("--dry-run", is_flag=True, help="Show what would be read; change nothing.")
@click.option("--strict", is_flag=True, help="Exit with 65 when an entry was rejected.")
@click.option("--adopt", is_flag=True, help="Take over the tables of the Data Factory template.")
@click.option("--init", is_flag=True, help="Make the lake if there is none; never in a schedule.")
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
    init: bool,
    as_json: bool,
) -> int:
    """Read and merge every due window, oldest first, or exactly one range."""
    from dicom_etl.cli.terminal import terminal_progress  # noqa: PLC0415
    from dicom_etl.commands import sync as verb  # noqa: PLC0415
    from dicom_etl.commands.metrics import metrics_after, refreshed  # noqa: PLC0415
    from dicom_etl.commands.sync_request import request as asked  # noqa: PLC0415

    request = asked(start, end, until, max_runs, adopt=adopt, init=init)
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
        raise DataError(f"{rejected} entries were rejected; dicom-etl rejects lists those that are open")
    return 0


@click.command()
@common
@json_option
def watch(settings: Settings, as_json: bool) -> int:
    """Read and merge every window when it becomes due, until a signal comes."""
    from dicom_etl.cli.process import stop_when_asked  # noqa: PLC0415
    from dicom_etl.cli.terminal import terminal_progress  # noqa: PLC0415
    from dicom_etl.commands.metrics import metrics_after, refreshed  # noqa: PLC0415
    from dicom_etl.commands.watch import watch as verb  # noqa: PLC0415

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
            print_json(stretch.as_row())
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
        f"{run.superseded} superseded, {run.rejected} rejected{_not_covered(run)}"
    )


def _not_covered(run: Any) -> str:
    """What is to be read again, because rows may still come there."""
    if run.covered_until is None or run.covered_until >= run.window_end:
        return ""
    if run.covered_until <= run.window_start:
        return "; covers nothing yet"
    return f"; covers what is before {format_instant(run.covered_until)}"
