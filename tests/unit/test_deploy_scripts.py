"""The scripts in deploy/bin and the pusher of metrics, run with stand-ins for dicom-etl, and for a Pushgateway."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"

pytestmark = pytest.mark.skipif(shutil.which("timeout") is None, reason="no coreutils on this machine")


class Site:
    """The folders of an installation, with a dicom-etl that ends with a code, and a status that tells the lag."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        (folder / "logs").mkdir()
        (folder / "env").write_text("SECRET='it is a $ecret'\n", encoding="utf-8")
        self.program = folder / "dicom-etl"
        self.program.write_text(
            f'#!/bin/sh\necho "$*" >>"{self.calls}"\n'
            '[ "$1" != status ] || exit "$STAND_IN_BEHIND"\n'
            'echo "a line of the log, ${SECRET:-no secret}"\n'
            'sleep "$STAND_IN_SECONDS"\nexit "$STAND_IN_EXIT"\n',
            encoding="utf-8",
        )
        self.program.chmod(0o755)

    def __call__(
        self, script: str, *words: str, code: int = 0, behind: int = 0, seconds: int = 0, **more: str
    ) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "DICOM_ETL_PROGRAM": str(self.program),
            "DICOM_ETL_ENVIRONMENT": str(self.folder / "env"),
            "DICOM_ETL_LOGS": str(self.folder / "logs"),
            "STAND_IN_EXIT": str(code),
            "STAND_IN_BEHIND": str(behind),
            "STAND_IN_SECONDS": str(seconds),
            **more,
        }
        return subprocess.run(
            ["sh", DEPLOY / "bin" / script, *words],
            env=environment, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    def log(self, verb: str) -> str:
        return (self.folder / "logs" / f"{verb}.log").read_text(encoding="utf-8")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize("code", [0, 143, 130])
def test_cron_is_silent_when_nobody_is_needed(site: Site, code: int) -> None:
    done = site("dicom-etl-cron", "sync", "--log-format", "json", code=code)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
    assert site.calls.read_text(encoding="utf-8") == "sync --log-format json\n"
    # The file of secrets is read, a $ in single quotes included, and the log is appended to.
    assert site.log("sync") == "a line of the log, it is a $ecret\n"


@pytest.mark.parametrize("code", [64, 65, 70, 77, 78, 1, 137])
def test_cron_speaks_at_the_first_failure_that_waiting_does_not_cure(site: Site, code: int) -> None:
    done = site("dicom-etl-cron", "maintain", code=code)
    assert done.returncode == code
    assert f"ended with {code} at " in done.stdout
    assert "a line of the log" in done.stdout
    assert site.calls.read_text(encoding="utf-8") == "maintain\n"


@pytest.mark.parametrize("code", [74, 75])
@pytest.mark.parametrize(("behind", "speaks"), [(0, False), (1, True), (74, True)])
def test_cron_speaks_of_74_and_75_only_when_the_tables_are_behind(
    site: Site, code: int, behind: int, speaks: bool
) -> None:
    """A status that cannot be told (74) counts as behind."""
    done = site("dicom-etl-cron", "sync", code=code, behind=behind)
    assert done.returncode == code
    assert bool(done.stdout) is speaks
    assert site.calls.read_text(encoding="utf-8").splitlines() == ["sync", "status --max-lag 3h"]


def test_differences_that_verify_found_are_for_working_hours(site: Site) -> None:
    """Of any other verb 65 wakes a person."""
    said = {verb: site("dicom-etl-cron", verb, code=65).stdout.splitlines()[0] for verb in ("verify", "sync")}
    assert said["verify"].endswith(": not urgent, in working hours.")
    assert said["sync"].endswith(": a person is needed now.")


def test_the_mail_names_no_file_that_is_not_on_the_server(site: Site) -> None:
    said = site("dicom-etl-cron", "sync", code=78).stdout
    assert "dicom-etl doctor" in said
    assert "docs/" not in said


def test_cron_mails_only_what_this_run_wrote(site: Site) -> None:
    for code, earlier in ((0, ""), (78, "a line of the log, it is a $ecret\n")):
        assert (site.log("sync") if earlier else "") == earlier
        said = site("dicom-etl-cron", "sync", code=code).stdout
    assert said.splitlines()[-2:] == [f"The end of {site.folder}/logs/sync.log:", "a line of the log, it is a $ecret"]
    assert site.log("sync").count("\n") == 2


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["--config", "/a b.toml", "--log-format", "json"], "--config /a b.toml"),
        (["--json", "--config=/x.toml", "--set", "lake.root=/l"], "--config=/x.toml --set lake.root=/l"),
        (["--set=lake.root=/l", "--max-runs", "1"], "--set=lake.root=/l"),
        (["--log-format", "json"], ""),
        (["--config"], ""),
    ],
)
def test_cron_asks_for_the_status_by_the_settings_of_the_run(site: Site, words: list[str], asked: str) -> None:
    """A lag that is told of another lake, or of none, would wake a person, or nobody, for nothing."""
    done = site("dicom-etl-cron", "sync", *words, code=75)
    assert (done.returncode, done.stderr) == (75, "")
    calls = site.calls.read_text(encoding="utf-8").splitlines()
    assert calls == [" ".join(["sync", *words]), f"status --max-lag 3h {asked}".rstrip()]


def test_cron_without_a_verb_is_a_wrong_command_line(site: Site) -> None:
    done = site("dicom-etl-cron")
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr.startswith("usage: dicom-etl-cron VERB [OPTIONS]")
    assert not site.calls.exists()


def test_cron_ends_a_run_at_its_limit_and_speaks(site: Site) -> None:
    done = site("dicom-etl-cron", "sync", seconds=30, DICOM_ETL_LIMIT="1s")
    assert done.returncode == 124
    assert "ended with 124" in done.stdout


def test_cron_runs_also_when_the_log_cannot_be_written(site: Site) -> None:
    done = site("dicom-etl-cron", "sync", DICOM_ETL_LOGS="/nowhere")
    assert done.returncode == 0
    assert "/nowhere/sync.log cannot be written" in done.stdout
    assert "a line of the log" in done.stdout


@pytest.mark.parametrize(
    ("monitor", "behind", "told"),
    [
        ({"MONITOR_EXIT_STATUS": "78", "MONITOR_SERVICE_RESULT": "exit-code"}, 0, True),
        ({"MONITOR_EXIT_STATUS": "75", "MONITOR_SERVICE_RESULT": "start-limit-hit"}, 0, False),
        ({"MONITOR_EXIT_STATUS": "75", "MONITOR_SERVICE_RESULT": "start-limit-hit"}, 1, True),
        ({"MONITOR_EXIT_STATUS": "KILL", "MONITOR_SERVICE_RESULT": "oom-kill"}, 0, True),
        # The SIGTERM at the limit of a run ends with 143, which is nobody's wish here.
        ({"MONITOR_EXIT_STATUS": "143", "MONITOR_SERVICE_RESULT": "timeout"}, 0, True),
        # systemd before 251 tells nothing.
        ({}, 0, True),
    ],
)
def test_a_failed_unit_tells_a_person_when_one_is_needed(
    site: Site, monitor: dict[str, str], behind: int, told: bool
) -> None:
    message = site.folder / "message"
    done = site(
        "dicom-etl-failed", "dicom-etl-sync.service", behind=behind, DICOM_ETL_NOTIFY=f"cat >'{message}'", **monitor
    )
    assert done.returncode == 0, done.stderr
    assert message.exists() is told
    if told:
        assert "dicom-etl-sync.service on " in message.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("code", "said"),
    [("75", "the tables are not behind"), ("74", "the tables are not behind"), ("130", "it was stopped")],
)
def test_a_failed_unit_says_why_nobody_is_told(site: Site, code: str, said: str) -> None:
    done = site("dicom-etl-failed", "dicom-etl-sync.service", MONITOR_EXIT_STATUS=code, DICOM_ETL_NOTIFY="false")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"dicom-etl-sync.service ended with {code}: nobody is told, since " in done.stdout
    assert said in done.stdout


@pytest.mark.parametrize(("more", "told"), [({}, "page"), ({"DICOM_ETL_TICKET": "cat >'{}/ticket'"}, "ticket")])
def test_what_can_wait_goes_to_the_command_for_tickets_if_there_is_one(
    site: Site, more: dict[str, str], told: str
) -> None:
    commands = {name: command.format(site.folder) for name, command in more.items()}
    page = f"cat >'{site.folder}/page'"
    for unit, code in (("dicom-etl-verify.service", "65"), ("dicom-etl-lag.service", "1")):
        done = site("dicom-etl-failed", unit, MONITOR_EXIT_STATUS=code, DICOM_ETL_NOTIFY=page, **commands)
        assert done.returncode == 0, done.stderr
        if unit == "dicom-etl-verify.service":
            assert ": not urgent, in working hours." in (site.folder / told).read_text(encoding="utf-8")
    # That the tables are behind wakes a person.
    assert "dicom-etl-lag.service on " in (site.folder / "page").read_text(encoding="utf-8")


def test_a_failed_unit_without_a_command_to_tell_fails_too(site: Site) -> None:
    done = site("dicom-etl-failed", "dicom-etl-sync.service", MONITOR_EXIT_STATUS="78")
    assert done.returncode == 1
    assert "nobody was told" in done.stdout


# ---- the Pushgateway --------------------------------------------------------------------------------------------


@pytest.fixture
def gateway() -> Iterator[tuple[str, list[tuple[str, str, bytes]]]]:
    """The address of a stand-in for a Pushgateway, and (method, path, body) of what it was sent."""
    sent: list[tuple[str, str, bytes]] = []

    class Gateway(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.append((self.command, self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(202)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Gateway)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", sent
    server.shutdown()
    thread.join()
    server.server_close()


def pushed(gateway: str, file: Path, script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, DEPLOY / "kubernetes/push/push.py", "sh", "-c", script],
        env={**os.environ, "PUSHGATEWAY": gateway, "DICOM_ETL__METRICS__PROMETHEUS_FILE": str(file)},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_a_pods_metrics_are_pushed_and_its_exit_code_is_the_commands(
    gateway: tuple[str, list[tuple[str, str, bytes]]], tmp_path: Path
) -> None:
    address, sent = gateway
    file = tmp_path / "dicom_etl.prom"
    done = pushed(address, file, f"echo 'dicom_etl_windows_due 3' >'{file}'; exit 75")
    assert (done.returncode, done.stderr) == (75, "")
    assert sent == [("POST", "/metrics/job/dicom-etl", b"dicom_etl_windows_due 3\n")]


def test_the_exit_code_of_one_verb_replaces_nothing_that_another_pod_has_pushed(
    gateway: tuple[str, list[tuple[str, str, bytes]]], tmp_path: Path
) -> None:
    """POST replaces the metrics of a group that have the same name; so each verb has a group for its exit code."""
    address, sent = gateway
    file = tmp_path / "dicom_etl.prom"
    lake = b"# HELP dicom_etl_windows_due Due.\n# TYPE dicom_etl_windows_due gauge\ndicom_etl_windows_due 3\n"
    head = b"# HELP dicom_etl_last_exit_code Code.\n# TYPE dicom_etl_last_exit_code gauge\n"
    codes = {
        verb: f'dicom_etl_last_exit_code{{verb="{verb}"}} {code}\n'.encode()
        for verb, code in (("sync", 75), ("maintain", 0))
    }
    file.write_bytes(lake + head + codes["sync"] + codes["maintain"])
    done = pushed(address, file, "exit 75")
    assert (done.returncode, done.stderr) == (75, "")
    assert sent == [
        ("POST", "/metrics/job/dicom-etl", lake),
        ("POST", "/metrics/job/dicom-etl/verb/sync", head + codes["sync"]),
        ("POST", "/metrics/job/dicom-etl/verb/maintain", head + codes["maintain"]),
    ]


def test_nothing_is_pushed_where_a_run_left_no_metrics(
    gateway: tuple[str, list[tuple[str, str, bytes]]], tmp_path: Path
) -> None:
    address, sent = gateway
    assert pushed(address, tmp_path / "none", "exit 78").returncode == 78
    assert sent == []


def test_a_gateway_that_is_away_changes_no_exit_code(tmp_path: Path) -> None:
    file = tmp_path / "dicom_etl.prom"
    file.write_text("dicom_etl_windows_due 3\n", encoding="utf-8")
    done = pushed("http://127.0.0.1:1", file, "exit 0")
    assert (done.returncode, done.stderr) == (0, "metrics not pushed: URLError\n")


def test_a_signal_to_the_pod_reaches_the_command(tmp_path: Path) -> None:
    """Else the claim would not be released, and the run be killed after the grace period."""
    done = pushed("http://127.0.0.1:1", tmp_path / "none", 'trap "exit 143" TERM; kill -TERM $PPID; sleep 9 & wait')
    assert done.returncode == 143
