"""The program as a user meets it: real processes, exit codes, one line per problem, signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pydicom
import pytest

from dicom_emulator.testing.faults import Fault
from support.screens import seen
from support.site import Site, text_at

PROGRAM = [sys.executable, "-m", "dicom_etl"]
CT = Path(pydicom.__file__).parent / "data" / "test_files" / "CT_small.dcm"


def program(*words: str | Path, folder: Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """`dicom-etl …` in an empty folder of its own."""
    return subprocess.run(
        [*PROGRAM, *map(str, words)], cwd=folder, input=stdin, capture_output=True, text=True, check=False, timeout=240
    )


def settings_of(site: Site) -> list[str]:
    return [word for text in site.texts for word in ("--set", text)]


@pytest.fixture(scope="module")
def nobody() -> str:
    """An address where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


LAKE = ["--set", "lake.root={folder}/lake"]
SERVICE = ["--set", "dicom.base_url={service}"]
BAD_INPUT: dict[str, tuple[int, str, list[str]]] = {
    "an unknown key": (
        78, "--set: feed.batchsize: unknown setting; did you mean feed.batch_size?",
        ["sync", *LAKE, "--set", "feed.batchsize=100"],
    ),
    "a batch of 201": (
        78, "--set: feed.batch_size: expected a number from 1 to 200", ["sync", *LAKE, "--set", "feed.batch_size=201"],
    ),
    "an end before the start": (
        64, "--end must be after --start",
        ["sync", *LAKE, *SERVICE, "--start", "2024-05-01T10:00:00Z", "--end", "2024-05-01T09:00:00Z"],
    ),
    "a time without a zone": (
        64, "--until: expected RFC 3339 with a zone, such as 2026-01-31T08:00:00Z",
        ["sync", *LAKE, *SERVICE, "--until", "2024-05-01T10:00:00"],
    ),
    "no settings file": (
        78, "none.toml: cannot read the configuration file: No such file or directory",
        ["sync", "--config", "none.toml"],
    ),
    "no file to upload": (64, "none.dcm: no such file or folder; nothing was stored", ["upload", *SERVICE, "none.dcm"]),
    "nobody at the address": (
        75, "cannot be reached", ["sync", "--init", "--dry-run", *LAKE, *SERVICE, "--set", "dicom.retry_seconds=1"],
    ),
    "a lake that is a file": (78, "lake.root is no folder", ["sync", *SERVICE, "--set", "lake.root={folder}/file"]),
    "a lake that is not there": (
        78, "no lake at {folder}/lake: mount its storage, or correct lake.root, or make a new lake by dicom-etl init",
        ["sync", *LAKE, *SERVICE],
    ),
    "no address": (78, "dicom.base_url is not set", ["sync", *LAKE]),
    "no lake": (78, "lake.root is not set", ["sync", *SERVICE]),
    "an unknown verb": (64, "No such command 'sing'", ["sing"]),
    "an unknown option": (64, "No such option", ["sync", "--fast"]),
    "no run": (64, "--max-runs", ["sync", "--max-runs", "0"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path: Path, nobody: str, case: str) -> None:
    """What a user can cause: a line on stderr, the exit code of the table, no trace and no half-made table."""
    code, line, words = BAD_INPUT[case]
    (tmp_path / "file").write_text("no folder")
    done = program(*(word.format(folder=tmp_path, service=nobody) for word in words), folder=tmp_path)
    said = done.stderr.splitlines()
    assert [text for text in said if line.format(folder=tmp_path) in text] == said, done.stderr
    assert len(said) == 1
    assert (done.returncode, done.stdout) == (code, "")
    assert not (tmp_path / "lake").exists()
    assert (tmp_path / "file").read_text() == "no folder"


def test_all_wrong_keys_at_once(tmp_path: Path) -> None:
    """One line a problem, with the place where it stands, and never the value."""
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "local.toml").write_text(
        '[dicom]\nauth = "hunter2"\n[lakes]\nroot = "x"\n[feed]\nwindow = 1\n'
    )
    done = program("config", folder=tmp_path)
    assert (done.returncode, done.stdout) == (78, "")
    assert sorted(done.stderr.splitlines()) == [
        "dicom-etl: conf/local.toml: dicom.auth: expected one of none, azure, token",
        "dicom-etl: conf/local.toml: feed.window: expected a duration such as 90s, 15m or 1h",
        "dicom-etl: conf/local.toml: lakes.root: unknown setting; did you mean lake.root?",
    ]


def test_without_words_it_says_what_there_is(tmp_path: Path) -> None:
    """64, and the list of verbs on stderr."""
    done = program(folder=tmp_path)
    assert (done.returncode, done.stdout) == (64, "")
    assert {"sync", "status", "verify", "query", "upload"} <= set(done.stderr.split())
    assert "Traceback" not in done.stderr


@pytest.mark.ours
def test_versions(tmp_path: Path) -> None:
    """Ours, Spark's and Delta's."""
    done = program("--version", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["dicom-etl 0.1.0", "pyspark 4.2.0", "delta-spark 4.4.0"]


def test_uploads_are_told_one_by_one(site: Site, tmp_path: Path) -> None:
    """Stored, already there, refused: JSON a line each, 65 when any was refused."""
    (tmp_path / "no.dcm").write_bytes(b"this is no DICOM file")
    words = ["upload", "--json", *settings_of(site), CT, CT, tmp_path / "no.dcm"]
    done = program(*words, folder=tmp_path)
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = sorted(outcome["outcome"].split()[0] for outcome in outcomes[:2])
    assert kinds == ["already", "stored"]
    assert (outcomes[2]["outcome"], outcomes[2]["path"]) == ("refused", str(tmp_path / "no.dcm"))
    assert (done.returncode, done.stderr) == (65, "dicom-etl: the service refused 1 of 3 files\n")


def test_settings_are_shown_with_their_places(tmp_path: Path) -> None:
    """The later place wins, and is named."""
    done = subprocess.run(
        [*PROGRAM, "config", "--json", "--set", "feed.delay=5m"], cwd=tmp_path, capture_output=True, text=True,
        check=True, env={**os.environ, "DICOM_ETL__FEED__WINDOW": "30m"},
    )  # fmt: skip
    rows = {row["setting"]: (row["value"], row["from"]) for row in map(json.loads, done.stdout.splitlines())}
    assert rows["feed.delay"] == ("5m", "--set")
    assert rows["feed.window"] == ("30m", "DICOM_ETL__FEED__WINDOW")
    assert rows["feed.batch_size"] == ("200", "default")


def test_a_plan_is_told_and_nothing_is_written(site: Site, tmp_path: Path) -> None:
    """--dry-run: the stretches as JSON; no claim, no table."""
    done = program("sync", "--init", "--dry-run", "--json", *settings_of(site), folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"start": text_at(0), "end": text_at(7)}]
    assert not site.root.exists()


@pytest.mark.ours
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_a_sync_and_release_its_claim(site: Site, tmp_path: Path, number: int, code: int) -> None:
    """One line, the exit code of the signal, and the next run need not wait."""
    assert site.root.parent.is_dir()
    for sop in range(3):
        site.create("1.1", "1.1.1", f"1.1.1.{sop}", name="A")
    slow = site.service.faults.add(Fault(path="/v2/changefeed", query={"includemetadata": "true"}, delay_seconds=20))
    with subprocess.Popen(
        [*PROGRAM, "sync", *settings_of(site.init())],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        _wait_for(lambda: slow.met > 0)
        assert _claims(site)[-1]["released"] is False
        running.send_signal(number)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (code, "")
    said = [line for line in err.splitlines() if line.startswith("dicom-etl: ")]
    assert len(said) == 1
    assert "the next run goes on where this one stopped" in said[0]
    assert "Traceback" not in err
    assert [claim["released"] for claim in _claims(site)] == [True]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.soak)]
)
def test_a_watch_reads_what_is_due_and_ends_when_asked(site: Site, tmp_path: Path, number: int, code: int) -> None:
    """It syncs at once, sleeps until the next window is due, and ends its sleep at the signal, with nothing held."""
    assert site.root.parent.is_dir()
    site.create("1.1", "1.1.1", "1.1.1.1", name="A")
    site.clock(9.5)
    site.sync()
    site.clock(11)
    with subprocess.Popen(
        [*PROGRAM, "watch", "--json", *settings_of(site)],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        row = json.loads(running.stdout.readline())
        assert (row["windowEnd"], row["entriesRead"], row["runId"]) == (text_at(10), 0, 2)
        _wait_for(lambda: _claims(site)[-1]["released"])
        running.send_signal(number)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out) == (code, "")
    assert [line for line in err.splitlines() if line.startswith("dicom-etl: ")] == [
        f"dicom-etl: {'terminated' if code == 143 else 'interrupted'}; the next run goes on where this one stopped"
    ]
    assert [claim["released"] for claim in _claims(site)] == [True, True]


@pytest.mark.ours
@pytest.mark.soak
def test_on_a_terminal_a_sync_and_a_verify_begin_with_their_verdicts(site: Site, tmp_path: Path) -> None:
    """The whole program at 80 columns: progress while it works, then the sentence, the facts, and nothing else."""
    for sop in range(3):
        site.create("1.1", "1.1.1", f"1.1.1.{sop}", name="A")
    site.clock(12)
    first, again = (seen(*PROGRAM[1:], *words, *settings_of(site.init()), width=80, folder=tmp_path)
                    for words in (["sync"], ["verify"]))  # fmt: skip
    assert ([first.code, again.code], "merge instance" in first.raw) == ([0, 0], True)
    assert first.lines[0] == "Up to date: 3 entries read in 1 run (3 inserted); covered until 2024-05-01 11:00"
    assert " ".join(first.lines[5].split()) == "1 sync succeeded 2024-05-01 00:00 to 11:00 3 3 0"
    assert again.lines[0].startswith("Equal: the lake and the service hold the same 3 instances, as of ")
    assert "service                3 instances, digest " in again.text
    assert max(len(line) for line in first.lines + again.lines) <= 80
    assert "INFO" not in first.text + again.text


def _claims(site: Site) -> list[dict[str, Any]]:
    files = sorted(path for path in (site.root / "_claims").iterdir() if path.suffix == ".json")
    return [msgspec.json.decode(path.read_bytes()) for path in files]


def _wait_for(happened: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
