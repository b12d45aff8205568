"""What a person sees at a terminal of 80 and of 140 columns, in pseudo-terminals of real processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_etl.commands import sync
from dicom_etl.commands.sync_request import request
from support.landing_only import landing_only
from support.screens import Screen, seen
from support.site import Site

TESTS = Path(__file__).parents[2]
PAGE = TESTS.parent / "docs" / "operations.md"
WIDTHS = (80, 140)
SPINNER = re.compile("[\u2800-\u28ff]")
LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\dT\S+ (INFO|WARNING|ERROR)", re.MULTILINE)

# Each result with the words that its first line begins with.
VERDICTS = {
    "status.show_status(STATUS)": "Up to date: covered until 03:47 UTC, 15 minutes ago; nothing is due; no open",
    "status.show_status(BEHIND)": "Behind: covered until 03:47 UTC, 15 minutes ago; 2 windows are due, about 2",
    "status.show_status(FAILING)": "Failing: the last recorded run ended with AccessDenied at 2026-05-01 04:02:00",
    "status.show_status(STATUS, DEAD)": "Up to date: covered until 03:47 UTC, 15 minutes ago",
    "status.show_status(replace(STATUS, open_rejects=None))": "Up to date: covered until 03:47 UTC, 15 minutes ago",
    "verify.show_verification(EQUAL)": "Equal: the lake and the service hold the same 120,400 instances, as of 04:02",
    "verify.show_verification(DIFFERENT)": "Different: 1,205 rows of the lake and the service differ (1,204 of",
    "verify.show_verification(UNKNOWN)": "Not known: the service's search could not be asked (403), so nothing is",
    "sync_result.show_sync(RUNS, delay=0, all_due=True)": "Up to date: 13,859 entries read in 5 runs (13,450 inserted",
    "sync_result.show_sync(RUNS[:1], delay=0, all_due=False)": "Done: 1,204 entries read in 1 run (1,150 inserted, 40",
    "sync_result.show_sync([], delay=9_000_000_000, all_due=True)": "Up to date: nothing is due. A window is read when",
    "sync_result.show_stopped(RUNS)": "Stopped: before all was read; 13,859 entries read in 5 runs",
    "sync_result.show_run(RUNS[0])": "Run 41: 1,204 entries read (1,150 inserted, 40 updated, 10 deleted, 4",
    "repair.show_repair(REPAIRED)": "Repaired: the lake and the service are equal; 1,150 inserted, 40 updated, 10",
    "repair.show_repair(NOT_REPAIRED)": "Not repaired: 2 rows still differ; 1,150 inserted, 40 updated, 10 deleted",
    "maintain.show_maintenance(MAINTAINED)": "Maintained: 2 tables: 12 files joined into 1; 4 files freed, 3.4 MB.",
    "maintain.show_plans(PLANNED)": "Maintenance is due: 1 of 2 tables would be changed.",
    "doctor.show_findings(FINDINGS)": "Not ready: 1 problem in 2 checks; the first one comes first.",
    "rejects.show_rejects([REJECT])": "Open rejects: 1 entry is open; each run asks for it again.",
    "rejects.show_rejects([])": "Good: no entry is rejected and open.",
}
VALUES = """
from dataclasses import replace
from dicom_etl.cli import doctor, maintain, rejects, repair, status, sync_result, verify
from dicom_etl.commands.doctor.check import CheckResult
from dicom_etl.commands.maintain import PlannedMaintenance
from dicom_etl.commands.repair.reread import Repaired
from dicom_etl.commands.verify.verify import Keys, Verification
from dicom_etl.lake.claims.file import ClaimSnapshot
from dicom_etl.lake.claims.holder import Holder
from dicom_etl.tables.compact import MaintenanceResult
from support.results import *
BEHIND = replace(STATUS, windows_due=2, eta_seconds=95.0, open_rejects=3)
FAILING = replace(BEHIND, last_error="AccessDenied", last_error_at=NOW)
DEAD = Holder(ClaimSnapshot(46, b"", NOW), "died", 90.0)
EQUAL = Verification(
    as_of=from_datetime(NOW), covered_until=STATUS.covered_until, service_instances=120_400, lake_instances=120_400,
    service_digest="ab" * 32, lake_digest="ab" * 32, pending=3, pending_different=1, open_rejects=0, kinds={},
    differences=(), gone=Keys(0, ()), suspects=Keys(2, ()), search_complete=True,
)
KINDS = {("instance", "missing"): 1204, ("series", "values"): 1}
DIFFERENT = replace(EQUAL, kinds=KINDS, attributes={"PatientName": 4})
UNKNOWN = replace(EQUAL, search_refused="403")
TABLES = {"instance": 4, "series": 1, "study": 0}
REPAIRED = Repaired(RUNS[0], TABLES, dict.fromkeys(TABLES, 0), {}, 1, 0, 0, None)
NOT_REPAIRED = replace(REPAIRED, left={"instance": 2}, kinds_left={"duplicate": 2}, unlisted=3, feed_went_back=True)
MAINTAINED = [MaintenanceResult("run", 12, 1, 0, 0), MaintenanceResult("change", 0, 0, 4, 3_400_000)]
PLANNED = [PlannedMaintenance("run", []), PlannedMaintenance("change", ["retention", "compact"])]
REMEDY = "the identity has no role on the service: assign DICOM Data Reader as docs/azure.md says, and wait 10 minutes"
FINDINGS = [CheckResult("settings", "ok", "complete"), CheckResult("role", "problem", REMEDY, 77)]
"""


def script(text: str, width: int, **variables: str) -> Screen:
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return seen("-c", text, width=width, PYTHONPATH=path, **variables)


def faults(lines: list[str], width: int) -> list[str]:
    """What must not be on a screen: lines that are too long, log lines, and parts of a spinner."""
    return [line for line in lines if len(line) > width or LOG_LINE.match(line) or SPINNER.search(line)]


def test_the_faults_of_a_screen_are_seen() -> None:
    """The broken twins: a table as a pipe gets it, a log line, and a result behind the spinner."""
    bad = ["x" * 81, "2026-05-01T04:02:00.000Z INFO    landed", "⠏ roll up 0:00:14run 1: done"]
    assert faults([*bad, "x" * 80], 80) == bad


@pytest.fixture(scope="module", params=WIDTHS)
def results(request: pytest.FixtureRequest) -> tuple[int, dict[str, list[str]]]:
    """Each result's lines at a width."""
    calls = "".join(f"print('== {n}', flush=True)\n{call}\n" for n, call in enumerate(VERDICTS))
    screen = script(VALUES + calls, request.param)
    assert screen.code == 0, screen.text
    _, *parts = re.split(r"^== \d+\n", f"{screen.text}\n", flags=re.MULTILINE)
    return request.param, {call: part.splitlines() for call, part in zip(VERDICTS, parts, strict=True)}


def test_every_result_begins_with_its_verdict_and_fits(results: tuple[int, dict[str, list[str]]]) -> None:
    width, screens = results
    assert len(screens) == len(VERDICTS)
    firsts = {call: lines[0] for call, lines in screens.items()}
    assert {call: first for call, first in firsts.items() if not first.startswith(VERDICTS[call])} == {}
    assert {call: bad for call, lines in screens.items() if (bad := faults(lines, width))} == {}


def test_a_table_leaves_out_what_does_not_fit_and_says_so(results: tuple[int, dict[str, list[str]]]) -> None:
    """At 140 columns all is there; at 80 the window of each run still stands in one line."""
    width, screens = results
    lines = screens["status.show_status(STATUS)"]
    hidden = [line for line in lines if line.startswith("Hidden")]
    expected = {80: ["Hidden: updated, deleted, rejected, no effect, took (dicom-etl runs --json)"], 140: []}
    assert hidden == expected[width]
    assert " ".join(next(line for line in lines if line.startswith(" 41")).split()).startswith(
        "41 sync succeeded 2026-04-30 23:00 to 24:00 1,204 1,150"
    )
    assert any("ServiceUnavailable" in line for line in lines)


@pytest.mark.parametrize(("width", "shown"), [(80, "1,204"), (140, "1,204 1,150 40 10 0 4 1 minute")])
def test_runs_shows_when_each_ended_rounded_up(width: int, shown: str) -> None:
    """The time, given as --as-of, names the run; at 80 columns it stands there rather than the counts."""
    call = (
        "from dataclasses import replace\nfrom support.results import *\n"
        "from dicom_etl.cli.run_table import print_runs\n"
        "ended = NOW.replace(hour=0, minute=16, second=1, microsecond=1)\n"
        "print_runs([replace(RUNS[0], finished_at=ended)], finished=True)"
    )
    (line,) = [line for line in script(call, width).lines if line.startswith(" 41")]
    assert " ".join(line.split()) == f"41 sync succeeded 2026-04-30 23:00 to 24:00 {shown} 2026-05-01 00:16:02"


def test_status_says_who_died_beneath_its_verdict(results: tuple[int, dict[str, list[str]]]) -> None:
    _, screens = results
    facts = " ".join(" ".join(screens["status.show_status(STATUS, DEAD)"]).split())
    assert "writer run 46 died on this host; the next run that writes records it and goes on" in facts


def test_the_runbook_shows_what_status_prints(results: tuple[int, dict[str, list[str]]]) -> None:
    width, screens = results
    shown = "\n".join(screens["status.show_status(STATUS)"])
    assert (shown in PAGE.read_text(encoding="utf-8")) is (width == 80)


def test_the_verdict_is_coloured_unless_that_is_not_wanted() -> None:
    """Green in a terminal; no escape sequence with NO_COLOR."""
    call = "from support.results import *; from dicom_etl.cli.status import show_status; show_status(STATUS)"
    coloured, plain = script(call, 80), script(call, 80, NO_COLOR="1")
    colours = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
    assert coloured.raw.startswith("\x1b[1;32mUp to date\x1b[0m: ")
    assert (len(colours.findall(coloured.raw)), colours.findall(plain.raw)) == (1, [])
    assert plain.lines == coloured.lines


WORK = """
import logging, sys
from dicom_etl.cli.options import configure_logs
from dicom_etl.cli.terminal import line_hidden, terminal_progress
configure_logs("text", verbose={verbose})
log = logging.getLogger("dicom_etl.run")
with terminal_progress() as progress:
    progress.step("read")
    progress.read(2, 1204)
    progress.windows_left(12)
    log.info("landed", extra={{"run_id": 1}})
    log.warning("metrics not written", extra={{"error": "OSError"}})
    with {context}:
        print("run 1: 1,204 entries", flush=True)
    progress.step("merge instance")
    progress.windows_left(11)
"""


@pytest.mark.parametrize("width", WIDTHS)
def test_a_result_has_a_line_of_its_own(width: int) -> None:
    """The progress line was drawn and is gone; no log line is left, and a warning is a sentence."""
    screen = script(WORK.format(verbose=False, context="line_hidden(progress)"), width)
    assert (screen.code, len(SPINNER.findall(screen.raw)) > 1) == (0, True)
    assert "read · 1,204 entries" in screen.raw
    assert screen.lines == ["dicom-etl: metrics not written (error OSError)", "run 1: 1,204 entries"]


def test_a_result_beside_the_progress_line_is_seen_as_glued() -> None:
    """The broken twin."""
    glued = script(WORK.format(verbose=False, context="__import__('contextlib').nullcontext()"), 80)
    assert glued.code == 0
    assert "run 1: 1,204 entries" not in glued.lines


def test_log_lines_are_shown_when_asked_for() -> None:
    screen = script(WORK.format(verbose=True, context="line_hidden(progress)"), 140)
    assert [line[25:] for line in screen.lines if LOG_LINE.match(line)] == [
        "INFO    landed run_id=1",
        "WARNING metrics not written error=OSError",
    ]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A lake with two runs, of which one failed."""
    with landing_only(tmp_path_factory.mktemp("screens")) as site:
        site.init()
        site.clock(3)
        site.create("1", "2", "3")
        site.clock(8)
        assert [run.entries_read for run in sync.sync(site.settings, request(None, None, None, None))] == [1]
        yield site


TYPED = """
import sys
from dicom_etl.cli.main import cli
for verb in ("status", "runs", "rejects", "config"):
    print(f"== {verb}", flush=True)
    cli.main([verb, *sys.argv[1:]], standalone_mode=False)
"""


@pytest.mark.parametrize("width", WIDTHS)
def test_verbs_fit_their_terminal(lake: Site, width: int) -> None:
    """Over a lake that was read by a real sync without its MERGEs."""
    words = [word for text in lake.texts for word in ("--set", text)]
    screen = seen("-c", TYPED, *words, width=width, folder=lake.folder)
    _, *parts = re.split(r"^== \w+\n", f"{screen.text}\n", flags=re.MULTILINE)
    assert (screen.code, len(parts)) == (0, 4), screen.text
    status, runs, rejects, config = (part.splitlines() for part in parts)
    assert re.match(
        r"Behind: covered until 2024-05-01 07:00 UTC, \d+ (day|year)s ago; [\d,]+ windows are due", status[0]
    )
    assert [line.split()[:3] for line in runs if line.split()[:1] == ["1"]] == [["1", "sync", "succeeded"]]
    assert rejects == ["Good: no entry is rejected and open."]
    assert config[0].startswith("setting ")
    assert faults(screen.lines, width) == []


def test_an_error_is_wrapped_at_words(tmp_path: Path) -> None:
    """A path stays whole, to be copied."""
    root = tmp_path / ("long" * 30)
    screen = seen("-m", "dicom_etl", "status", "--set", f"lake.root={root}", width=80, folder=tmp_path)
    assert screen.code == 78
    assert [line for line in screen.lines if len(line) > 80] == [f"{root}:"]


ROWS = """
from dicom_etl.cli.output import print_rows
UID = "1.2.840.113619.2.5.1762583153.215519.978957063.78.1762583153.2155"
print_rows([f"column{n}" for n in range(COLUMNS)], [[UID] * COLUMNS] * 2)
"""


def test_rows_that_are_too_wide_stand_one_below_the_other() -> None:
    """A UID stands in one line, to be copied: of two columns in a block a row, and in one of its own if need be."""
    uid = "1.2.840.113619.2.5.1762583153.215519.978957063.78.1762583153.2155"
    assert script(ROWS.replace("COLUMNS", "1"), 80).lines[0] == "column0"
    assert script(ROWS.replace("COLUMNS", "2"), 140).lines[2].split() == [uid, uid]
    assert script(ROWS.replace("COLUMNS", "2"), 80).lines[:3] == ["row 1", f"column0  {uid}", f"column1  {uid}"]
    long_name = script(ROWS.replace("COLUMNS", "2").replace("column", "studyInstanceUid"), 80)
    assert long_name.lines[:3] == ["row 1", "studyInstanceUid0", f"  {uid}"]
    path = script(ROWS.replace("COLUMNS", "2").replace("[UID]", "[UID * 2]"), 80)
    assert path.lines[:3] == ["row 1", "column0", f"  {uid * 2}"], "what is longer than a line, the terminal wraps"
    blocks = script(ROWS.replace("COLUMNS", "8"), 80)
    assert blocks.lines[:2] == ["row 1", f"column0  {uid}"]
    assert (len(blocks.lines), faults(blocks.lines, 80)) == (18, [])


LONG = """
from dicom_etl.cli.output import print_rows
for row_format in ("table", "json"):
    print_rows(["metadata"], [["1" * 300]], row_format)
"""


def test_long_values_are_cut_in_a_table_on_a_terminal_only() -> None:
    """199 characters and an ellipsis; JSON has all of it, and so has a pipe."""
    shown = script(LONG, 80).text
    assert (shown.count("1"), shown.count("…")) == (199 + 300, 1)
    piped = subprocess.run([sys.executable, "-c", LONG], capture_output=True, text=True, check=True).stdout
    assert (piped.count("1"), piped.count("…")) == (300 + 300, 0)
