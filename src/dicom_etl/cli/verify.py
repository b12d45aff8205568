"""The command that compares the tables with the service: `dicom-etl verify`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from dicom_etl.cli import wording
from dicom_etl.cli.jsonlines import print_json
from dicom_etl.cli.options import common, json_option
from dicom_etl.cli.output import print_rows
from dicom_etl.cli.screen import Column, on_terminal, print_facts, print_fitting, print_verdict
from dicom_etl.cli.verify_columns import compare_columns
from dicom_etl.core.errors import DataError, UsageError
from dicom_etl.core.logs import format_stderr
from dicom_etl.core.settings.model import Settings

if TYPE_CHECKING:
    from dicom_etl.commands.verify.verify import Verification

# Enough to compare two digests by eye; --json has them whole.
_DIGITS = 16


@click.command(epilog="Example: dicom-etl verify --metadata --json")
@common
@click.option("--metadata", is_flag=True, help="Compare every attribute, not only keys, sequences and paths.")
@click.option(
    "--columns",
    type=click.IntRange(min=1),
    metavar="N",
    help="Compare tag columns instead, of N instances taken at random (--columns 1000); needs no Spark.",
)
@click.option("--show", is_flag=True, help="Print the keys that differ; they identify patients' studies.")
@json_option
def verify(settings: Settings, metadata: bool, columns: int | None, show: bool, as_json: bool) -> int:
    """Compare the tables with the service, without writing; exit with 65 when they differ."""
    if columns is not None:
        if metadata or show:
            raise UsageError("--columns compares tag columns and prints no keys: leave out --metadata and --show")
        return compare_columns(settings, columns, as_json=as_json)
    from dicom_etl.cli.terminal import terminal_progress  # noqa: PLC0415
    from dicom_etl.commands.verify.verify import MOST_SHOWN  # noqa: PLC0415
    from dicom_etl.commands.verify.verify import verify as verb  # noqa: PLC0415

    with terminal_progress() as progress:
        result = verb(settings, metadata=metadata, progress=progress)
    if as_json:
        differences = {"differences": [one.as_row() for one in result.differences], **result.keys_as_row()}
        print_json({**result.as_row(), **(differences if show else {})})
    elif on_terminal():
        show_verification(result)
    else:
        _print_facts(result)
    if show and not as_json:
        _print_keys(result)
    for text in _not_compared(result):
        click.echo(format_stderr(text), err=True)
    if result.kinds:
        hint = f"; --show prints at most {MOST_SHOWN} keys of each table" if not show else ""
        raise DataError(f"the lake and the service differ in {sum(result.kinds.values())} rows{hint}")
    if result.search_refused:
        raise DataError(
            f"the service's search could not be asked ({result.search_refused}), so the lake may hold instances that "
            "the service has no longer: see to the search and verify again"
        )
    return 0


def _not_compared(result: Verification) -> list[str]:
    """A line on what a sync is still to read, and one on what no sync reads."""
    to_come = result.pending_different - result.unread.instances
    due = f"{to_come} keys differ that no run covers yet, and are not compared: dicom-etl sync reads them"
    return [*([due] if to_come > 0 else []), *([result.unread.line] if result.unread.line else [])]


def show_verification(result: Verification) -> None:
    """Print the verdict, both sides, and the differences by kind and by attribute."""
    _show_verdict(result)
    print_facts(_facts(result))
    if result.kinds:
        _show_counts(("table", "difference"), result.kinds)
    if result.attributes:
        _show_counts(("attribute",), {(name,): count for name, count in result.attributes.items()})


def _show_counts(names: tuple[str, ...], counts: Mapping[Any, int]) -> None:
    columns = [*(Column(name) for name in names), Column("rows", right=True)]
    print_fitting(columns, [(*named, wording.number(count)) for named, count in counts.items()])


def _show_verdict(result: Verification) -> None:
    as_of = f"as of {wording.instant(result.as_of, result.as_of)}"
    if result.kinds:
        counts = ", ".join(f"{wording.number(count)} of {table}" for table, count in result.counts.items() if count)
        rows = wording.counted(sum(result.kinds.values()), "row")
        print_verdict("Different", f"{rows} of the lake and the service differ ({counts}), {as_of}", "bad")
    elif result.search_refused:
        text = f"the service's search could not be asked ({result.search_refused}), so nothing is called equal"
        print_verdict("Not known", text, "attention")
    else:
        instances = wording.counted(result.lake_instances, "instance")
        text = f"the lake and the service hold the same {instances}, {as_of}"
        if result.unread.instances:
            print_verdict("Equal where it was read", text, "attention")
        else:
            print_verdict("Equal", text)


def _facts(result: Verification) -> list[tuple[str, str]]:
    pending = wording.counted(result.pending, "key")
    facts = [
        ("service", _side(result.service_instances, result.service_digest)),
        ("lake", _side(result.lake_instances, result.lake_digest)),
        ("covered until", wording.since(result.covered_until, result.as_of)),
        (
            "pending",
            f"{pending}, {wording.number(result.pending_different)} of them different" if result.pending else pending,
        ),
        *([("not read", result.unread.text)] if result.unread.text else []),
        ("open rejects", wording.number(result.open_rejects)),
    ]
    if result.search_refused is None:
        complete = "every study was listed" if result.search_complete else "not every study could be listed"
        facts += [("search", complete), ("missing in the search", wording.counted(result.gone.count, "key"))]
    if result.suspects is not None and result.suspects.count:
        facts.append(("possible changes of UIDs", wording.counted(result.suspects.count, "key")))
    return facts


def _side(instances: int, digest: str) -> str:
    return f"{wording.counted(instances, 'instance')}, digest {digest[:_DIGITS]}"


def _print_facts(result: Verification) -> None:
    """Print the row for a pipe, with one line for each attribute that differs."""
    row = result.as_row()
    del row["attributeDifferences"], row["differencesByKind"]
    attributes = [(f"{keyword} differs", count) for keyword, count in (result.attributes or {}).items()]
    print_rows(["", ""], [*row.items(), *attributes])
    if result.kinds:
        print_rows(["table", "difference", "rows"], [[*names, count] for names, count in result.kinds.items()])


def _print_keys(result: Verification) -> None:
    if result.differences:
        rows = [list(one.as_row().values()) for one in result.differences]
        print_rows(["table", "difference", "key"], rows)
    for name, keys in result.keys_as_row().items():
        print_rows([name], [[key] for key in keys])
