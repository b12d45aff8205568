"""Counts, durations and instants as people write them; the progress line; the examples of the help."""

from __future__ import annotations

import io
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from rich.console import Console
from rich.progress import Progress as Bar

from dicom_etl.cli import wording
from dicom_etl.cli.main import cli
from dicom_etl.cli.terminal import ProgressLine
from dicom_etl.core.timerange import Window, parse_instant


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "less than a second"), (1, "1 second"), (47.4, "47 seconds"), (59.6, "1 minute"), (924.6, "15 minutes"),
        (3599, "1 hour"), (5400, "1 hour 30 minutes"), (7260, "2 hours 1 minute"), (50_000, "14 hours"),
        (3 * 86_400, "3 days"), (56 * 365 * 86_400, "56 years"),
    ],
)  # fmt: skip
def test_a_duration_is_told_in_the_units_that_matter(seconds: float, text: str) -> None:
    assert wording.duration(seconds) == text


def test_counts_have_separators_and_the_right_plural() -> None:
    assert [wording.counted(n, "entry", "entries") for n in (0, 1, 1204)] == ["no entries", "1 entry", "1,204 entries"]
    assert [wording.size(n) for n in (0, 999, 3_400_000, 10**15)] == ["0 bytes", "999 bytes", "3.4 MB", "1000.0 TB"]


def test_an_instant_of_today_needs_no_day() -> None:
    now = parse_instant("2026-05-01T04:02:00Z")
    assert wording.since(parse_instant("2026-05-01T03:47:59Z"), now) == "03:47 UTC, 14 minutes ago"
    assert wording.instant(parse_instant("0001-02-03T23:59:00Z"), now) == "0001-02-03 23:59 UTC"


@pytest.mark.parametrize(
    ("end", "text"),
    [
        ("2026-05-01T10:00:00Z", "2026-05-01 09:00 to 10:00"),
        ("2026-05-02T00:00:00Z", "2026-05-01 09:00 to 24:00"),
        ("2026-05-02T10:00:00Z", "2026-05-01 09:00 to 2026-05-02 10:00"),
        ("2026-05-01T09:00:30Z", "2026-05-01 09:00:00 to 09:00:30"),
    ],
)
def test_a_window_is_told_without_what_it_repeats(end: str, text: str) -> None:
    assert wording.span(Window(parse_instant("2026-05-01T09:00:00Z"), parse_instant(end))) == text


def test_the_progress_line_tells_step_pace_windows_and_time_left() -> None:
    """Of the windows that were read meanwhile, by a clock of the test; it is cut to the width of the terminal."""
    now = [0.0]
    bar = Bar(console=Console(file=io.StringIO(), width=60))
    line = ProgressLine(bar, lambda: now[0])
    line.step("read")
    now[0] = 2.0
    line.read(7, 2408)
    assert line.text == "read · 2,408 entries, 1,204/s"
    line.windows_left(12)
    line.step("merge instance")
    now[0] = 62.0
    line.windows_left(8)
    assert line.text == "merge instance · 8 windows left, about 2 minutes"
    line.step("roll up series and study")
    assert bar.tasks[0].description == "roll up series and study · 8 windows left, abou…"
    line.windows_left(0)
    assert line.text == "roll up series and study · no windows left"


def leaves(command: click.Command, *above: str) -> Iterator[tuple[list[str], click.Command]]:
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from leaves(below, *above, name)
    else:
        yield list(above), command


VERBS = {" ".join(path): command for path, command in leaves(cli)}


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_has_an_example_that_parses(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(VERBS) > 12
    command = VERBS[verb]
    (tmp_path / "scans").mkdir()
    monkeypatch.chdir(tmp_path)
    prefix = f"Example: dicom-etl {verb}"
    assert (command.epilog or "").startswith(prefix)
    context = command.make_context(verb, shlex.split((command.epilog or "").removeprefix(prefix)))
    assert context.args == []
    with pytest.raises(click.NoSuchOption):
        command.make_context(verb, ["--no-such-option"])
