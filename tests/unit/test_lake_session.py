"""Around the start of Spark: signals wait, output goes to a file, and a session without Delta is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from dicom_etl.errors import ConfigurationError, StorageError
from dicom_etl.lake import jvm, session
from dicom_etl.settings import Spark

SETTINGS = Spark(master="local[1]", driver_memory="1g", shuffle_partitions=1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_the_jvm_is_ours(number: signal.Signals) -> None:
    """A signal that comes while Spark starts is delivered when the start is over, once, to the former handler."""
    heard: list[tuple[int, str]] = []
    where = "inside"
    before = signal.signal(number, lambda got, _frame: heard.append((got, where)))
    try:
        with jvm._signals_wait():
            os.kill(os.getpid(), number)
            assert heard == []
            where = "after"
        assert heard == [(number, "after")]
        os.kill(os.getpid(), number)
        assert len(heard) == 2
    finally:
        signal.signal(number, before)


_SECRETS = (
    "DICOM_ETL_TOKEN", "MY_TOKEN", "DICOM_ETL_STORAGE_KEY", "AZURE_STORAGE_KEY", "AZURE_CLIENT_SECRET",
    "AZURE_CLIENT_CERTIFICATE_PASSWORD", "IDENTITY_HEADER", "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_SAS_TOKEN",
)  # fmt: skip


def test_the_jvm_writes_into_a_file_and_does_not_get_our_variables(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its standard output and error stand in the file, for this user only; no secret is in its environment."""
    for name in _SECRETS:
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dno=thing")
    monkeypatch.setattr(jvm.SparkContext, "_gateway", None)
    monkeypatch.setattr(jvm.SparkContext, "_jvm", None)

    def launch(_conf: Any, how: dict[str, Any]) -> Any:
        subprocess.run(["sh", "-c", "echo chatter; env >&2"], check=True, **how)
        return SimpleNamespace(jvm="the JVM")

    monkeypatch.setattr(jvm, "launch_gateway", launch)
    log = tmp_path / "jvm.log"
    jvm._launch(jvm.SparkConf(loadDefaults=False), log)
    said = log.read_text()
    assert "chatter" in said
    assert "PATH=" in said
    assert "JAVA_TOOL_OPTIONS=-Dno=thing" in said
    assert "secret" not in said
    assert (os.environ["DICOM_ETL_TOKEN"], jvm.SparkContext._jvm) == ("secret", "the JVM")
    assert log.stat().st_mode & 0o777 == 0o600
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("given", "used"), [(None, "127.0.0.1"), ("127.0.0.2", "127.0.0.2")])
def test_spark_needs_no_name_of_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, used: str
) -> None:
    """It is told the address before it looks its name up; one that the user has set stays, ours does not."""
    monkeypatch.delenv("SPARK_LOCAL_IP", raising=False)
    if given:
        monkeypatch.setenv("SPARK_LOCAL_IP", given)
    monkeypatch.setattr(jvm.SparkContext, "_gateway", None)
    monkeypatch.setattr(jvm.SparkContext, "_jvm", None)
    told: list[str] = []

    def launch(_conf: Any, _how: dict[str, Any]) -> Any:
        told.append(os.environ["SPARK_LOCAL_IP"])
        return SimpleNamespace(jvm="the JVM")

    monkeypatch.setattr(jvm, "launch_gateway", launch)
    jvm._launch(jvm.SparkConf(loadDefaults=False), tmp_path / "jvm.log")
    assert told == [used]
    assert os.environ.get("SPARK_LOCAL_IP") == given


class Sessions:
    """Sessions that are only counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.started: list[tuple[str, int]] = []
        self.stopped = 0
        self.error = error
        monkeypatch.setattr(session, "local_session", self.local)

    @contextmanager
    def local(self, _settings: Any, rows: int) -> Iterator[Any]:
        if self.error:
            raise self.error
        self.started.append((threading.current_thread().name, rows))
        yield SimpleNamespace(number=len(self.started), conf=SimpleNamespace(set=lambda *_: None))
        self.stopped += 1


SMALL, LARGE = 1, session.QUICK_ROWS


@pytest.mark.parametrize("rows", [SMALL, LARGE])
def test_a_session_may_start_while_the_feed_is_read(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """Once, in a thread of its own; it is the session of the run, and stopped with the engine."""
    sessions = Sessions(monkeypatch)
    with session.Engine(SETTINGS) as engine:
        engine.begin(rows)
        engine.begin(rows)
        assert engine.session(SMALL).number == 1
        assert engine.session(SMALL).number == 1
        ((thread, for_rows),) = sessions.started
        assert (thread.startswith("start-spark"), for_rows) == (True, rows)
        assert sessions.stopped == 0
    assert sessions.stopped == 1


@pytest.mark.parametrize(("rows", "quick_compiler"), [(0, True), (session.HUGE_ROWS, False)])
def test_only_huge_work_is_compiled_twice(tmp_path: Path, rows: int, quick_compiler: bool) -> None:
    """ADR 4: the JVM's quick compiler is enough for all else."""
    options = session._local_settings(SETTINGS, tmp_path, rows, "")
    assert ("-XX:TieredStopAtLevel=1" in options["spark.driver.extraJavaOptions"]) is quick_compiler
    # With room for its code, as the two compilers have it: 48 MB are full after some minutes of Spark.
    assert ("-XX:ReservedCodeCacheSize=240m" in options["spark.driver.extraJavaOptions"]) is quick_compiler


def test_a_warm_session_is_tuned_for_each_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """ADR 4: little work is interpreted, one task a step; more is compiled, in the settings' partitions; and back."""
    told: dict[str, str] = {}

    @contextmanager
    def local(_settings: Any, _rows: int) -> Iterator[Any]:
        yield SimpleNamespace(conf=SimpleNamespace(set=told.__setitem__))

    monkeypatch.setattr(session, "local_session", local)
    with session.Engine(msgspec.structs.replace(SETTINGS, shuffle_partitions=4)) as engine:
        for rows, compiled, partitions in ((1, "false", "1"), (session.QUICK_ROWS, "true", "4"), (1, "false", "1")):
            engine.session(rows)
            assert told["spark.sql.codegen.wholeStage"] == told["spark.sql.adaptive.enabled"] == compiled
            assert told["spark.sql.shuffle.partitions"] == partitions


def test_a_session_that_nobody_asked_for_is_stopped_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the command ends by a signal while it starts."""
    sessions = Sessions(monkeypatch)
    with pytest.raises(KeyboardInterrupt), session.Engine(SETTINGS) as engine:  # noqa: PT012
        engine.begin(SMALL)
        raise KeyboardInterrupt
    assert (len(sessions.started), sessions.stopped) == (1, 1)


def test_a_start_that_failed_is_told_to_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """And to nobody else: a run that has nothing to merge needs no Spark."""
    Sessions(monkeypatch, StorageError("Spark did not start"))
    with pytest.raises(StorageError, match="did not start"), session.Engine(SETTINGS) as engine:  # noqa: PT012
        engine.begin(SMALL)
        engine.session(SMALL)
    with session.Engine(SETTINGS) as engine:
        engine.begin(SMALL)


def test_a_given_session_is_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a cluster there is nothing to begin."""
    sessions = Sessions(monkeypatch)
    with session.Engine(SETTINGS, _session("Delta")) as engine:
        engine.begin(SMALL)
    assert sessions.started == []


def _session(extensions: str) -> Any:
    return SimpleNamespace(conf=SimpleNamespace(get=lambda _key, _default: extensions), _jvm=None)


def test_a_session_without_delta_is_refused() -> None:
    """A cluster's session that knows no Delta ends with one line, before anything is read."""
    with pytest.raises(ConfigurationError, match="has no Delta Lake"):
        session.check_and_quiet(_session(""))
