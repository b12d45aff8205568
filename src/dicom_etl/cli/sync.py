"""The commands that make a lake and read the feed into it: `dicom-etl init`, `dicom-etl sync`, `dicom-etl watch`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from dicom_etl.cli.jsonlines import print_json
from dicom_etl.cli.options import common, json_option
from dicom_etl.cli.screen import on_terminal, print_line
from dicom_etl.cli.sync_result import print_run, show_run, show_stopped, show_sync
from dicom_etl.core.errors import DataError
from dicom_etl.core.progress import Progress
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import Window, format_duration
from dicom_etl.lake.ledger import Run

if TYPE_CHECKING:
    import threading

    from dicom_etl.commands.sync_request import SyncRequest


@click.command(epilog="Example: dicom-etl init --set lake.root=/data/lake")
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
        print_line(f"{what} at {lake.paths.root}: {identity.lake_id}, for {identity.service}")
    return 0


@click.command(epilog="Example: dicom-etl sync --until 2026-01-31T08:00:00Z")
@common
@click.option(
    "--start",
    metavar="T",
    help="Read exactly [start, end), covered or not: in one run up to feed.window, a longer range in runs of up to "
    "feed.max_entries_per_run entries.",
)
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
    from dicom_etl.commands.sync import planned  # noqa: PLC0415
    from dicom_etl.commands.sync_request import request as asked  # noqa: PLC0415

    request = asked(start, end, until, max_runs, adopt=adopt, init=init)
    if dry_run:
        _print_plan(planned(settings, request), as_json)
        return 0
    runs = _synced(settings, request, as_json)
    if on_terminal() and not as_json:
        show_sync(runs, delay=settings.feed.delay, all_due=not (start or until or max_runs))
    elif not runs and not as_json:
        over = format_duration(settings.feed.delay)
        click.echo(f"nothing is due: a window is read when it has been over for {over}; --until T reads up to T now")
    rejected = sum(run.rejected for run in runs)
    if strict and rejected:
        raise DataError(f"{rejected} entries were rejected; dicom-etl rejects lists those that are open")
    return 0


def _synced(settings: Settings, request: SyncRequest, as_json: bool) -> list[Run]:
    """Every run, printed when it ends, unless a terminal gets a summary; also when an error ends them."""
    from dicom_etl.cli.terminal import line_hidden, terminal_progress  # noqa: PLC0415
    from dicom_etl.commands.metrics import metrics_after, refreshed  # noqa: PLC0415
    from dicom_etl.commands.sync import sync as verb  # noqa: PLC0415

    runs: list[Run] = []
    summarise = on_terminal() and not as_json
    try:
        with metrics_after(settings) as refresh, terminal_progress() as progress:
            for run in refreshed(verb(settings, request, progress=progress), refresh):
                runs.append(run)
                if not summarise:
                    with line_hidden(progress):
                        print_run(run, as_json)
    except BaseException:
        if summarise and runs:
            show_stopped(runs)
        raise
    return runs


@dataclass(frozen=True, slots=True)
class _Stop:
    """The request to stop, and a wait that tells metrics and terminal of itself."""

    asked: threading.Event
    refresh: Callable[[], object]
    progress: Progress

    def is_set(self) -> bool:
        return self.asked.is_set()

    def wait(self, timeout: float) -> None:
        self.refresh()  # a run that failed, and a lag that grows
        self.progress.step("wait")
        self.asked.wait(timeout)


@click.command(epilog="Example: dicom-etl watch --log-format json")
@common
@json_option
def watch(settings: Settings, as_json: bool) -> int:
    """Read and merge every window when it becomes due, until a signal comes."""
    from dicom_etl.cli.process import stop_when_asked  # noqa: PLC0415
    from dicom_etl.cli.terminal import line_hidden, terminal_progress  # noqa: PLC0415
    from dicom_etl.commands.metrics import metrics_after, refreshed  # noqa: PLC0415
    from dicom_etl.commands.watch import watch as verb  # noqa: PLC0415

    with stop_when_asked() as asked, metrics_after(settings) as refresh, terminal_progress() as progress:
        stop = _Stop(asked, refresh, progress)
        for run in refreshed(verb(settings, stop=stop, progress=progress), refresh):
            with line_hidden(progress):
                if as_json or not on_terminal():
                    print_run(run, as_json)
                else:
                    show_run(run)
                sys.stdout.flush()
    return 0


def _print_plan(stretches: list[Window], as_json: bool) -> None:
    for stretch in stretches:
        if as_json:
            print_json(stretch.as_row())
        else:
            print_line(f"would read {stretch}")
    if not stretches and not as_json:
        click.echo("nothing is due")
