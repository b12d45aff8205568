"""Around the start of Spark: one start whoever asks, its environment and output, and a session without Delta."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pyspark
import pytest
from pyspark.errors import PySparkRuntimeError

from dicom_etl.core.errors import ConfigurationError, StorageError
from dicom_etl.core.settings.model import Spark
from dicom_etl.tables.engine import jvm, session

ROOT = Path(__file__).parents[3]
SETTINGS = Spark(master="local[1]", driver_memory="1g", shuffle_partitions=1)


_SECRETS = (
    "DICOM_ETL_TOKEN", "MY_TOKEN", "DICOM_ETL_STORAGE_KEY", "AZURE_STORAGE_KEY", "AZURE_CLIENT_SECRET",
    "AZURE_CLIENT_CERTIFICATE_PASSWORD", "IDENTITY_HEADER", "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_SAS_TOKEN", "AZURE_FEDERATED_TOKEN_FILE",
)  # fmt: skip


def test_the_jvm_gets_an_environment_of_its_own(tmp_path: Path) -> None:
    """None of our secrets and no way to another Spark; our Java, Python and Spark; all else as it is here."""
    secrets = dict.fromkeys(_SECRETS, "secret")
    another = {"SPARK_HOME": "/opt/spark", "SPARK_CONF_DIR": "/etc/spark", "PYSPARK_SUBMIT_ARGS": "--master yarn"}
    ours = {**secrets, **another, "JAVA_HOME": "/old", "PATH": "/bin", "JAVA_TOOL_OPTIONS": "-Dno=thing"}
    given = jvm.child_environment(ours, Path("/java"), tmp_path / "told")
    assert given == {
        "PATH": "/bin",
        "JAVA_TOOL_OPTIONS": "-Dno=thing",
        "JAVA_HOME": "/java",
        "PYSPARK_PYTHON": given["PYSPARK_PYTHON"],
        "SPARK_HOME": str(Path(pyspark.__file__).parent),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_CONNECT_MODE": "0",
        "_PYSPARK_DRIVER_CONN_INFO_PATH": str(tmp_path / "told"),
    }
    chosen = {"SPARK_LOCAL_IP": "127.0.0.2", "PYSPARK_PYTHON": "/opt/python"}
    given = jvm.child_environment(chosen, Path("/java"), tmp_path)
    assert {name: given[name] for name in chosen} == chosen, "what the user has chosen stays"


@pytest.fixture
def submit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in the place of spark-submit, in a process that has no Spark yet."""
    for name in ("_gateway", "_jvm", "_active_spark_context"):
        monkeypatch.setattr(jvm.SparkContext, name, None)
    monkeypatch.setattr(jvm, "_SPARK", tmp_path)
    script = tmp_path / "bin" / "spark-submit"
    script.parent.mkdir()
    script.touch(mode=0o700)
    return script


def test_a_jvm_that_ends_at_once_is_one_line(tmp_path: Path, submit: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What it said stands in a file for this user only, and nowhere else."""
    submit.write_text("#!/bin/sh\necho chatter; echo warning >&2; exit 1\n")
    with pytest.raises(StorageError, match=r"^Spark did not start \(PySparkRuntimeError\): see that spark.master"):
        jvm.start({}, tmp_path, Path("/java"))
    log = tmp_path / "jvm.log"
    assert log.read_text() == "chatter\nwarning\n"
    assert log.stat().st_mode & 0o777 == 0o600
    assert capfd.readouterr() == ("", "")
    assert jvm.SparkContext._gateway is None


@pytest.mark.parametrize("too_early", [True, False])
def test_a_start_that_is_interrupted_leaves_no_process(
    tmp_path: Path, submit: Path, monkeypatch: pytest.MonkeyPatch, too_early: bool
) -> None:
    """By a signal before the JVM can be reached, or while its session comes up."""
    submit.write_text("#!/bin/sh\nexec sleep 60\n")
    started: list[Any] = []

    def interrupted(**_: Any) -> Any:
        raise KeyboardInterrupt

    def gateway(process: Any, _told: Path) -> Any:
        started.append(process)
        assert process.poll() is None
        return interrupted() if too_early else SimpleNamespace(proc=process, jvm=None)

    monkeypatch.setattr(jvm, "_gateway", gateway)
    monkeypatch.setattr(jvm, "SparkSession", SimpleNamespace(builder=SimpleNamespace(config=interrupted)))
    with pytest.raises(KeyboardInterrupt):
        jvm.start({}, tmp_path, Path("/java"))
    assert [process.returncode for process in started] == [-signal.SIGKILL]
    assert jvm.SparkContext._gateway is None


def test_the_jvm_knows_the_names_that_pyspark_uses() -> None:
    """As pyspark's own way to start one has it."""
    source = Path(pyspark.__file__).with_name("java_gateway.py").read_text()
    assert tuple(re.findall(r'java_import\(gateway\.jvm, "(.+)"\)', source)) == jvm.IMPORTED


class Sessions:
    """Starts sessions that are only counted; each start lasts until ``go`` is set."""

    def __init__(self, error: Exception | None = None) -> None:
        self.started: list[tuple[str, int]] = []
        self.stopped = 0
        self.error = error
        self.begun, self.go = threading.Event(), threading.Event()
        self.go.set()
        self.told: dict[str, str] = {}

    @contextmanager
    def __call__(self, _settings: Any, rows: int) -> Iterator[Any]:
        if self.error:
            raise self.error
        self.started.append((threading.current_thread().name, rows))
        number = len(self.started)
        self.begun.set()
        assert self.go.wait(20)
        yield SimpleNamespace(number=number, conf=SimpleNamespace(set=self.told.__setitem__))
        self.stopped += 1


SMALL, LARGE = 1, session.QUICK_ROWS


@pytest.mark.parametrize("rows", [SMALL, LARGE])
def test_a_session_may_start_while_the_feed_is_read(rows: int) -> None:
    """Once, in a thread of its own; it is the session of the run, and stopped with the engine."""
    sessions = Sessions()
    with session.Engine(SETTINGS, starter=sessions) as engine:
        engine.begin(rows)
        engine.begin(rows)
        assert engine.session(SMALL).number == 1  # type: ignore[attr-defined]
        assert engine.session(SMALL).number == 1  # type: ignore[attr-defined]
        ((thread, for_rows),) = sessions.started
        assert (thread.startswith("start-spark"), for_rows) == (True, rows)
        assert sessions.stopped == 0
    assert sessions.stopped == 1


@pytest.mark.parametrize("first", ["session", "begin"])
def test_threads_that_ask_at_once_get_one_session(first: str) -> None:
    """A run asks for it while it is started for the next one's reading, or the other way round."""
    sessions = Sessions()
    sessions.go.clear()
    with session.Engine(SETTINGS, starter=sessions) as engine, ThreadPoolExecutor(2) as pool:
        one = pool.submit(getattr(engine, first), SMALL)
        assert sessions.begun.wait(20)
        two = pool.submit(engine.begin if first == "session" else engine.session, LARGE)
        if first == "session":
            two.result(20)  # beginning waits for nothing
        sessions.go.set()
        (got,) = (done for done in (one.result(20), two.result(20)) if done is not None)
        assert got.number == 1
        assert [rows for _, rows in sessions.started] == [SMALL]
    assert sessions.stopped == 1


@pytest.mark.parametrize(("rows", "quick_compiler"), [(0, True), (session.HUGE_ROWS, False)])
def test_only_huge_work_is_compiled_twice(tmp_path: Path, rows: int, quick_compiler: bool) -> None:
    """ADR 4: the JVM's quick compiler is enough for all else."""
    options = session._local_settings(SETTINGS, tmp_path, rows, "")
    assert ("-XX:TieredStopAtLevel=1" in options["spark.driver.extraJavaOptions"]) is quick_compiler
    # With room for its code, as the two compilers have it: 48 MB are full after some minutes of Spark.
    assert ("-XX:ReservedCodeCacheSize=240m" in options["spark.driver.extraJavaOptions"]) is quick_compiler


def test_a_warm_session_is_tuned_for_each_work() -> None:
    """ADR 4: little work is interpreted, one task a step; more is compiled, in the settings' partitions; and back."""
    sessions = Sessions()
    told = sessions.told
    with session.Engine(msgspec.structs.replace(SETTINGS, shuffle_partitions=4), starter=sessions) as engine:
        for rows, compiled, partitions in ((1, "false", "1"), (session.QUICK_ROWS, "true", "4"), (1, "false", "1")):
            engine.session(rows)
            assert told["spark.sql.codegen.wholeStage"] == told["spark.sql.adaptive.enabled"] == compiled
            assert told["spark.sql.shuffle.partitions"] == partitions


def test_a_session_that_nobody_asked_for_is_stopped_too() -> None:
    """Also when the command ends by a signal while it starts."""
    sessions = Sessions()
    with pytest.raises(KeyboardInterrupt), session.Engine(SETTINGS, starter=sessions) as engine:  # noqa: PT012
        engine.begin(SMALL)
        raise KeyboardInterrupt
    assert (len(sessions.started), sessions.stopped) == (1, 1)


def test_a_start_that_failed_is_told_to_whoever_asks() -> None:
    """And to nobody else: a run that has nothing to merge needs no Spark."""
    broken = Sessions(StorageError("Spark did not start"))
    with pytest.raises(StorageError, match="did not start"), session.Engine(SETTINGS, starter=broken) as engine:  # noqa: PT012
        engine.begin(SMALL)
        engine.session(SMALL)
    with session.Engine(SETTINGS, starter=broken) as engine:
        engine.begin(SMALL)


def test_a_given_session_is_not_started_again() -> None:
    """On a cluster there is nothing to begin."""
    sessions = Sessions()
    with session.Engine(SETTINGS, _session("Delta"), starter=sessions) as engine:
        engine.begin(SMALL)
    assert sessions.started == []


def _session(extensions: str) -> Any:
    return SimpleNamespace(conf=SimpleNamespace(get=lambda _key, _default: extensions), _jvm=None)


def test_a_session_without_delta_is_refused() -> None:
    """A cluster's session that knows no Delta ends with one line, before anything is read."""
    with pytest.raises(ConfigurationError, match="has no Delta Lake"):
        session.check_and_quiet(_session(""))


def _sessions_made(*folders: Path) -> dict[str, int]:
    """How often each module makes a session of its own."""
    counts = {path.name: path.read_text().count("newSession") for folder in folders for path in folder.rglob("*.py")}
    return {name: count for name, count in counts.items() if count}


def test_no_session_is_made_without_our_settings(tmp_path: Path) -> None:
    """Only `cluster_session` makes one: what another writes would have the cluster's codec, times and calendar."""
    assert _sessions_made(ROOT / "src", ROOT / "jobs", ROOT / "notebooks") == {"session.py": 1}
    (tmp_path / "maintenance.py").write_text("spark.newSession().sql('DELETE')")
    assert _sessions_made(tmp_path) == {"maintenance.py": 1}


def test_a_jvm_that_never_says_where_it_listens_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is alive, and silent: a command must not wait for it without end."""
    monkeypatch.setattr(jvm, "_PATIENCE_SECONDS", 0.2)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        try:
            with pytest.raises(PySparkRuntimeError, match="the JVM has ended"):
                jvm._gateway(process, tmp_path / "told")
            assert process.poll() is None
        finally:
            process.kill()
