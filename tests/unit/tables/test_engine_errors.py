"""What a JVM's end means: its exit status says whether its memory was full."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from py4j.protocol import Py4JJavaError, Py4JNetworkError
from pyspark import SparkContext
from pyspark.errors import PySparkException

from dicom_etl.core.errors import ConfigurationError, OutputClosed, StorageError, TemporaryError
from dicom_etl.tables.engine import jvm
from dicom_etl.tables.engine.errors import machine_fault, named_errors

WITHOUT_MEMORY = "^instance: Spark ran out of memory: raise spark.driver_memory$"
ENDED = r"^instance: Spark's JVM has ended \(killed by the system\?\); run again$"


class Silent:
    """A Java exception whose JVM does not answer any more."""

    def __getattr__(self, _name: str) -> Any:
        raise Py4JNetworkError


class Thrown:
    """A Java exception of a JVM that answers, with what lies behind it."""

    def __init__(self, text: str, cause: Thrown | None = None) -> None:
        self.toString = lambda: text
        self.getCause = lambda: cause


def of_java() -> Py4JJavaError:
    error = Py4JJavaError.__new__(Py4JJavaError)
    error.java_exception = Silent()
    return error


def of_spark(*texts: str) -> PySparkException:
    """What Spark raised, and behind it the other texts, the last one at the bottom."""
    thrown: Thrown | None = None
    for text in reversed(texts):
        thrown = Thrown(text, thrown)
    error = PySparkException(texts[0])
    error._origin = thrown  # type: ignore[attr-defined]
    return error


@pytest.fixture
def jvm_that(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Puts a process in the place of the JVM, which a shell's command describes."""
    started: list[subprocess.Popen[bytes]] = []

    def put(command: str) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["/bin/sh", "-c", command], stdin=subprocess.DEVNULL))
        monkeypatch.setattr(SparkContext, "_gateway", SimpleNamespace(proc=started[-1]))
        return started[-1]

    yield put
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "lost",
    [Py4JNetworkError(), ConnectionResetError(), BrokenPipeError(), EOFError(), of_java()],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize(
    ("command", "expected", "line"),
    [
        # Its connections close a moment before it has ended.
        ("sleep 0.1; exit 3", ConfigurationError, WITHOUT_MEMORY),
        ("exit 52", ConfigurationError, WITHOUT_MEMORY),
        ("exit 1", TemporaryError, ENDED),
        ("kill -9 $$", TemporaryError, ENDED),
    ],
)
def test_the_exit_status_of_a_jvm_says_what_ended_it(
    jvm_that: Any, command: str, expected: type[Exception], line: str, lost: Exception
) -> None:
    """3 by the JVM's own option and 52 by Spark are a full memory; any other end may pass."""
    jvm_that(command)
    with pytest.raises(expected, match=line), named_errors("instance"):
        raise lost


def test_a_jvm_that_lives_or_is_not_ours_is_not_out_of_memory(jvm_that: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that goes on is waited for only so long; a cluster's is no child of this process."""
    process = jvm_that("exec sleep 60")
    assert not jvm.ended_without_memory(patience_seconds=0.01)
    assert process.poll() is None
    for gateway in (None, SimpleNamespace()):
        monkeypatch.setattr(SparkContext, "_gateway", gateway)
        assert not jvm.ended_without_memory()


def test_a_reader_of_our_output_that_stops_is_no_end_of_the_jvm() -> None:
    with pytest.raises(OutputClosed), named_errors("instance"):
        raise OutputClosed


@pytest.mark.parametrize(
    ("texts", "expected", "code"),
    [
        (("TASK_WRITE_FAILED", "task failed", "java.io.IOException: No space left on device"), StorageError, 74),
        (("Disk quota exceeded",), StorageError, 74),
        (("job aborted", "java.lang.OutOfMemoryError: Java heap space"), ConfigurationError, 78),
    ],
)
def test_a_fault_of_the_machine_is_found_behind_what_spark_says(
    texts: tuple[str, ...], expected: type[Exception], code: int
) -> None:
    """It is none of the statement's: of a query and of a table the same error; what is wrong otherwise is none."""
    fault = machine_fault(of_spark(*texts), "query")
    assert (type(fault), fault and fault.exit_code) == (expected, code)
    with pytest.raises(expected), named_errors("instance"):
        raise of_spark(*texts)
    assert machine_fault(of_spark("DIVIDE_BY_ZERO", "java.lang.ArithmeticException"), "query") is None
