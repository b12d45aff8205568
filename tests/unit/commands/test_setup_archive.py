"""What `setup` says of the archive of classes, and how it learns that a JVM was not done in time."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from pyspark import SparkContext

from dicom_etl.commands import class_archive, setup
from dicom_etl.core.errors import DicomEtlError, TemporaryError
from dicom_etl.tables.engine import session
from dicom_etl.tables.engine.jvm import stop


def raising(error: Exception) -> Callable[[], Path]:
    def make() -> Path:
        raise error

    return make


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (raising(TemporaryError("the JVM had not written it within 120 s: run it again")), "not written it within 120"),
        (raising(OSError(28, "No space left on device")), "(No space left on device)"),
        (lambda: Path("/nonexistent/classes/1.jsa"), "(the JVM ended without one: this Java makes none)"),
    ],
)
def test_a_missing_archive_has_its_true_reason(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], Path], why: str
) -> None:
    """It never stops the set-up; only a JVM that ended by itself counts as one that makes none."""
    monkeypatch.setattr(class_archive, "make_archive", make)
    said = setup._archive()
    assert said.startswith("no archive of classes: each start of Spark takes twice as long (")
    assert why in said


def stopped(monkeypatch: pytest.MonkeyPatch, *command: str, patience_seconds: float) -> bool:
    """Whether a process in place of the JVM, whose standard input is closed, has ended by itself."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    gateway = SimpleNamespace(proc=process, shutdown=lambda: None)
    monkeypatch.setattr(SparkContext, "_gateway", gateway)
    monkeypatch.setattr(SparkContext, "_jvm", None)
    in_time = stop(SimpleNamespace(stop=lambda: None), patience_seconds)  # type: ignore[arg-type]
    assert process.wait(timeout=60) == (0 if in_time else -9)
    return in_time


def test_a_jvm_that_has_to_be_killed_is_told_from_one_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stopped(monkeypatch, "cat", patience_seconds=60)
    assert not stopped(monkeypatch, "sleep", "600", patience_seconds=0)


@pytest.mark.parametrize("in_time", [True, False])
def test_an_archive_that_takes_too_long_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_time: bool
) -> None:
    """75, and what to do; an ordinary session that is slow to end is none."""
    monkeypatch.setattr(session, "java_home", lambda: tmp_path)
    monkeypatch.setattr(session, "start", lambda *_: SimpleNamespace())
    monkeypatch.setattr(session, "_tune", lambda *_: None)
    monkeypatch.setattr(session, "stop", lambda *_: in_time)
    wanted = class_archive._SETTINGS
    with session.local_session(wanted, 0):
        pass
    errors: list[DicomEtlError] = []
    try:
        with session.local_session(wanted, 0, archive=tmp_path / "new.jsa"):
            pass
    except TemporaryError as error:
        errors.append(error)
    assert [str(error).partition(":")[0] for error in errors] == (
        [] if in_time else ["the JVM had not written it within 120 s"]
    )
