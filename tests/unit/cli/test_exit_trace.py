"""Every end of a scheduled command leaves its exit code in the metrics file, and its class in a JSON line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from dicom_emulator.testing.faults import Fault
from dicom_etl.cli.exit_trace import note_exit
from dicom_etl.cli.main import run
from dicom_etl.cli.process import run_command
from dicom_etl.cli.sync_result import print_run
from dicom_etl.commands.exit_metrics import exits_kept, record_exit
from dicom_etl.core.errors import AnotherWriter, StorageError, name_run, run_of
from dicom_etl.core.settings.load import readable_setting
from dicom_etl.lake.claims.claim import claim
from dicom_etl.lake.claims.process import this_process
from dicom_etl.lake.ledger import Run
from support.landing_only import landing_only
from support.site import Site

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
OTHERS = "# HELP dicom_etl_windows_due x\n# TYPE dicom_etl_windows_due gauge\ndicom_etl_windows_due 2\n"
SAMPLE = re.compile(r'(dicom_etl_last_exit_\w+)\{verb="(\w+)"\} (\S+)')


def exits(file: Path) -> dict[tuple[str, str], float]:
    """The exit metrics of a file by short name and verb."""
    found = (SAMPLE.fullmatch(line) for line in file.read_text().splitlines())
    return {(m[1].removeprefix("dicom_etl_last_exit_"), m[2]): float(m[3]) for m in found if m}


def typed(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`dicom-etl …` as a scheduler starts it, in a folder of its own."""
    given = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src"), **environment}
    return subprocess.run(
        [sys.executable, "-m", "dicom_etl", *words], cwd=folder, env=given, capture_output=True, text=True, check=False
    )


# -- the file --------------------------------------------------------------------------------------------------------


def test_an_exit_keeps_all_other_metrics_of_the_file(tmp_path: Path) -> None:
    """Those of the lake and of other verbs; only this verb's code and time are new."""
    file = tmp_path / "etl.prom"
    file.write_text(OTHERS)
    record_exit(file, "maintain", 0, NOON)
    record_exit(file, "sync", 74, NOON)
    record_exit(file, "sync", 75, NOON)
    assert file.read_text().startswith(OTHERS)
    noon = NOON.timestamp()
    assert exits(file) == {
        ("code", "maintain"): 0, ("code", "sync"): 75,
        ("timestamp_seconds", "maintain"): noon, ("timestamp_seconds", "sync"): noon,
    }  # fmt: skip
    assert file.read_text() == OTHERS + exits_kept(file), "each metric stands once, and nothing is lost"
    assert [path.name for path in tmp_path.iterdir()] == ["etl.prom"]


def test_a_file_that_is_not_there_is_made(tmp_path: Path) -> None:
    file = tmp_path / "etl.prom"
    assert exits_kept(file) == ""
    record_exit(file, "sync", 78, NOON)
    assert exits(file)["code", "sync"] == 78


def test_lines_of_somebody_else_are_no_exit_codes(tmp_path: Path) -> None:
    """A verb that we do not schedule, a value that is no number."""
    file = tmp_path / "etl.prom"
    file.write_text('dicom_etl_last_exit_code{verb="upload"} 65\ndicom_etl_last_exit_code{verb="sync"} x\n')
    assert exits_kept(file) == ""


@pytest.mark.parametrize(
    ("verb", "words"),
    [("upload", ["upload"]), ("", []), ("sync", ["sync", "--dry-run"]), ("sync", ["sync", "--help"])],
)
def test_what_no_scheduler_waits_for_leaves_no_exit_code(tmp_path: Path, verb: str, words: list[str]) -> None:
    """A person's dry run must not hide that the last sync failed; the twin, the same with no such word, is written."""
    file = tmp_path / "etl.prom"
    named = [*words, "--set", f"metrics.prometheus_file={file}"]
    note_exit(verb, 0, named)
    assert not file.exists()
    note_exit("sync", 0, ["sync", *named[-2:]])
    assert file.exists()


@pytest.mark.parametrize("name", ["missing/etl.prom", "~nobody-of-this-name/etl.prom", "/"])
def test_an_exit_code_that_cannot_be_written_is_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    note_exit("sync", 75, ["sync", f"--set=metrics.prometheus_file={tmp_path / name if name[0] == 'm' else name}"])
    assert "exit code not recorded" in caplog.text


# -- where the file is named -----------------------------------------------------------------------------------------


def test_a_setting_is_read_from_each_layer_that_can_be_read(tmp_path: Path) -> None:
    """The last layer that names it wins; what cannot be read counts as absent."""
    key = "metrics.prometheus_file"
    bad, good = tmp_path / "bad.toml", tmp_path / "good.toml"
    bad.write_text("[metrics\n")
    good.write_text('[metrics]\nprometheus_file = "file"\n[dicom]\nno_such_key = 1\n')
    environment = {"DICOM_ETL__METRICS__PROMETHEUS_FILE": "environment"}
    assert readable_setting(key, good, (), {}, tmp_path) == "file"
    assert readable_setting(key, good, (), environment, tmp_path) == "environment"
    assert readable_setting(key, bad, ["nonsense", f"{key}=first", f"{key}=set"], environment, tmp_path) == "set"
    assert readable_setting(key, bad, ["nonsense"], environment, tmp_path) == "environment"
    assert readable_setting(key, bad, (), {}, tmp_path) is None, "only the file names it, and it is no TOML"
    assert readable_setting(key, None, (), {}, tmp_path) is None


def test_the_program_leaves_its_exit_code_where_the_command_line_or_a_key_is_wrong(tmp_path: Path) -> None:
    """64 and 78, by the name in the settings file; the JSON line names code and class, and no run."""
    file, config = tmp_path / "etl.prom", tmp_path / "etl.toml"
    config.write_text(f'[metrics]\nprometheus_file = "{file}"\n')
    file.write_text(OTHERS)
    done = typed(tmp_path, "sync", "--config", str(config), "--bogus", "--log-format=json")
    assert (done.returncode, exits(file)["code", "sync"]) == (64, 64)
    line = json.loads(done.stderr)
    assert (line["exit_code"], line["error_class"], line["run_id"]) == (64, "UsageError", None)

    config.write_text(config.read_text() + "[dicom]\nno_such_key = 1\n")
    done = typed(tmp_path, "sync", "--config", str(config), "--log-format=json")
    assert (done.returncode, exits(file)["code", "sync"]) == (78, 78)
    line = json.loads(done.stderr)
    assert (line["exit_code"], line["error_class"], line["run_id"]) == (78, "ConfigurationError", None)
    assert file.read_text().startswith(OTHERS)


def test_an_exit_code_that_cannot_be_recorded_changes_no_exit_code(tmp_path: Path) -> None:
    """The file's folder is not there."""
    done = typed(tmp_path, "sync", "--bogus", DICOM_ETL__METRICS__PROMETHEUS_FILE=str(tmp_path / "no" / "etl.prom"))
    assert done.returncode == 64


def test_the_reason_is_the_last_line_also_when_its_code_cannot_be_recorded(tmp_path: Path) -> None:
    """As on a full disk: who is sent the end of the log finds there what to do."""
    done = typed(tmp_path, "sync", "--bogus", DICOM_ETL__METRICS__PROMETHEUS_FILE=str(tmp_path / "no" / "etl.prom"))
    *others, last = done.stderr.splitlines()
    assert "exit code not recorded" in "".join(others)
    assert "--bogus" in last


@pytest.mark.parametrize(("words", "kept"), [(["--bogus"], False), ([], True)])
def test_a_failure_that_is_typed_on_a_terminal_alerts_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], kept: bool
) -> None:
    """A success is kept: after a repair by hand the alert ends. Without a terminal each end is kept."""
    monkeypatch.setattr(sys, "argv", ["dicom-etl", "sync", *words, f"--set=metrics.prometheus_file={tmp_path / 'a'}"])
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    code = 64 if words else 0
    assert run_command(lambda: code) == code
    assert (tmp_path / "a").exists() is kept
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    run_command(lambda: code)
    assert exits(tmp_path / "a")["code", "sync"] == code


# -- of a service and a lake ----------------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path, logged: Callable[[], str]) -> Iterator[Site]:
    """A service, a lake whose runs land and do not merge, and a metrics file."""
    del logged  # logging, zone and signals are set back afterwards
    with landing_only(tmp_path, f"metrics.prometheus_file={tmp_path / 'etl.prom'}") as made:
        made.sync()
        yield made


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[Site], tuple[int, Any]]:
    """Runs `dicom-etl sync --log-format json` in this process: its exit code, and the last line as JSON."""

    def typed_sync(site: Site) -> tuple[int, Any]:
        words = ["dicom-etl", "sync", "--log-format=json", *(f"--set={text}" for text in site.texts)]
        monkeypatch.setattr(sys, "argv", words)
        capsys.readouterr()
        code = run_command(run)
        return code, json.loads(capsys.readouterr().err.splitlines()[-1])

    return typed_sync


def test_a_run_that_fails_names_itself_and_its_exit_code(site: Site, synced: Callable[[Site], tuple[int, Any]]) -> None:
    """The line of the error has the run's id, and the metrics have the code beside those of the lake."""
    site.clock(12)
    site.service.faults.add(Fault(status=403))
    code, line = synced(site)
    assert (code, line["exit_code"], line["error_class"]) == (77, 77, "AccessDenied")
    failed = site.ledger()[-1]
    assert (line["run_id"], failed["status"]) == (failed["runId"], "failed")
    assert exits(site.folder / "etl.prom")["code", "sync"] == 77
    assert 'dicom_etl_runs_total{status="failed"} 1' in (site.folder / "etl.prom").read_text()


def test_a_second_writer_leaves_its_exit_code_and_no_metric_of_the_lake_is_lost(
    site: Site, synced: Callable[[Site], tuple[int, Any]]
) -> None:
    """75 names no run: it had none."""
    site.clock(12)
    there = replace(this_process(), host="elsewhere", boot_id="other")
    folder = str(site.root / "_claims")
    now = datetime.now(UTC)
    with claim(
        LocalFileSystem(), folder, verb="sync", last_known_run_id=9, clock=lambda: now, sleep=lambda _: None,
        process=there,
    ):  # fmt: skip
        code, line = synced(site)
    assert (code, line["exit_code"], line["error_class"], line["run_id"]) == (75, 75, "AnotherWriter", None)
    text = (site.folder / "etl.prom").read_text()
    assert exits(site.folder / "etl.prom")["code", "sync"] == 75
    assert 'dicom_etl_runs_total{status="succeeded"} 1' in text


def test_a_run_that_completes_a_dead_ones_roll_up_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    """In its line; one that completes nothing says nothing of it."""
    empty = Run(
        run_id=19, verb="sync", status="succeeded", window_start=0, window_end=0, covered_until=0, started_at=NOON,
        finished_at=NOON,
    )  # fmt: skip
    for one in (empty, replace(empty, completes=18)):
        print_run(one, as_json=False)
    without, said = capsys.readouterr().out.splitlines()
    assert said == f"{without}; the roll-up that run 18 left is completed"


# -- the run of an error ---------------------------------------------------------------------------------------------


def test_an_error_knows_its_run_also_behind_another_one() -> None:
    """Of whatever class; the innermost name stays, and without a claim there is none."""
    ours, foreign = StorageError("full"), OSError(28, "full")
    assert (run_of(ours), run_of(foreign), run_of(None)) == (None, None, None)
    name_run(ours, 7)
    name_run(ours, 8)
    name_run(foreign, 9)
    assert (run_of(ours), run_of(foreign)) == (7, 9)
    behind = AnotherWriter("sync is running")
    behind.__cause__ = foreign
    assert run_of(behind) == 9
    assert run_of(SimpleNamespace(run_id="x", __cause__=None, __context__=None)) is None  # type: ignore[arg-type]
