"""The commands that compare the tables with the service: `dicom-etl verify`, `dicom-etl repair`."""

from __future__ import annotations

from typing import Any

import click

from dicom_etl.cli.jsonlines import print_json
from dicom_etl.cli.options import common, json_option
from dicom_etl.cli.output import print_rows
from dicom_etl.core.errors import DataError
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import format_instant


@click.command()
@common
@click.option("--metadata", is_flag=True, help="Compare every attribute, not only keys, sequences and paths.")
@click.option("--show", is_flag=True, help="Print the keys that differ; they identify patients' studies.")
@json_option
def verify(settings: Settings, metadata: bool, show: bool, as_json: bool) -> int:
    """Compare the tables with the service, without writing; exit with 65 when they differ."""
    from dicom_etl.cli.terminal import terminal_progress  # noqa: PLC0415
    from dicom_etl.commands.verify.verify import MOST_SHOWN  # noqa: PLC0415
    from dicom_etl.commands.verify.verify import verify as verb  # noqa: PLC0415

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
        "searchComplete": found.search_complete,
        "gone": None if found.search_refused else found.gone.count,
        "suspects": None if found.suspects is None else found.suspects.count,
        **{f"{table}Differences": count for table, count in found.counts.items()},
    }
    if as_json:
        shown_keys = {"differences": [_difference(d) for d in found.differences], **_keys(found)} if show else {}
        kinds = {f"{table}.{kind}": count for (table, kind), count in found.kinds.items()}
        print_json({**facts, "attributeDifferences": found.attributes, "differencesByKind": kinds, **shown_keys})
    else:
        print_rows(["", ""], [*facts.items(), *_by_attribute(found)])
        if found.kinds:
            print_rows(["table", "difference", "rows"], [[*names, count] for names, count in found.kinds.items()])
        if show and found.differences:
            print_rows(["table", "difference", "key"], [list(_difference(d).values()) for d in found.differences])
        for name, keys in _keys(found).items() if show else ():
            print_rows([name], [[key] for key in keys])
    if found.pending_different:
        click.echo(
            f"dicom-etl: {found.pending_different} keys differ that no run covers yet, and are not compared: "
            "dicom-etl sync reads them",
            err=True,
        )
    if found.kinds:
        hint = f"; --show prints at most {MOST_SHOWN} keys of each table" if not show else ""
        raise DataError(f"the lake and the service differ in {sum(found.kinds.values())} rows{hint}")
    if found.search_refused:
        raise DataError(
            f"the service's search could not be asked ({found.search_refused}), so the lake may hold instances that "
            "the service has no longer: see to the search and verify again"
        )
    return 0


def _difference(found: Any) -> dict[str, str]:
    kind = f"{found.kind}: {', '.join(found.keywords)}" if found.keywords else found.kind
    return {"table": found.table, "difference": kind, "key": _key_text(found.key)}


def _key_text(key: tuple[str | None, ...]) -> str:
    """The parts of a key; a row of another writer may lack one."""
    return "/".join(part or "" for part in key)


def _by_attribute(found: Any) -> list[tuple[str, int]]:
    return [(f"{keyword} differs", count) for keyword, count in (found.attributes or {}).items()]


def _keys(found: Any) -> dict[str, list[str]]:
    named = {"gone": found.gone, "suspects": found.suspects}
    return {name: [_key_text(key) for key in keys.first] for name, keys in named.items() if keys and keys.count}


@click.command()
@common
@click.option("--rebuild", is_flag=True, help="Rebuild the three tables from the service and swap them in.")
@click.option("--metadata", is_flag=True, help="Repair what verify --metadata finds: compare every attribute.")
@click.option(
    "--allow-removals",
    type=click.IntRange(min=0),
    metavar="N",
    help="Remove up to N rows of each table; by default 1000 rows or 1 % of a table, and never all.",
)
@json_option
def repair(settings: Settings, rebuild: bool, metadata: bool, allow_removals: int | None, as_json: bool) -> int:
    """Repair what verify finds; exits with 65 when something still differs.

    Logs how many rows each table will lose before it writes. A row that the service's search holds is never removed.
    """
    from dicom_etl.cli.terminal import terminal_progress  # noqa: PLC0415
    from dicom_etl.commands.metrics import metrics_after  # noqa: PLC0415
    from dicom_etl.commands.repair.repair import repair as verb  # noqa: PLC0415

    with metrics_after(settings), terminal_progress() as progress:
        done = verb(settings, rebuild=rebuild, metadata=metadata, allow_removals=allow_removals, progress=progress)
    facts = {
        "runId": done.run.run_id,
        "equal": done.equal,
        **{f"{table}Differences": count for table, count in done.found.items()},
        "inserted": done.run.inserted,
        "updated": done.run.updated,
        "deleted": done.run.deleted,
        "rejected": done.run.rejected,
        "voided": done.voided,
        "servedAgain": done.restored,
        "unlisted": done.unlisted,
        "search": done.search_refused or "compared",
        **{f"{table}Left": count for table, count in done.left.items()},
        "feedWentBack": done.feed_went_back,
        "leftByKind": done.kinds_left if as_json else _counted(done.kinds_left),
    }
    if as_json:
        print_json(facts)
    else:
        print_rows(["", ""], facts.items())
    if not done.equal:
        doubled, rejected = done.kinds_left.get("twice", 0), done.run.rejected
        hints = [
            *([f"{doubled} keys stand in several rows: run dicom-etl repair --rebuild"] if doubled else []),
            *(["entries could not be used: dicom-etl rejects lists them"] if rejected else []),
            "dicom-etl verify --show prints the keys",
        ]
        raise DataError(f"the lake and the service still differ; {'; '.join(hints)}")
    return 0


def _counted(kinds: dict[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items())
