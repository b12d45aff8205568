"""The JVM that we start ourselves: its environment, its output, signals meanwhile, and its end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkException
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from dicom_etl.errors import ConfigurationError, StorageError
from dicom_etl.lake.java import java_home


def start(options: dict[str, str], scratch: Path, home: Path) -> SparkSession:
    """A session in a new JVM of the Java at ``home``; what the JVM says goes into a file in ``scratch``.

    Raises StorageError when it does not start.
    """
    os.environ["JAVA_HOME"] = str(home)
    # Spark's own choice is the shell's python3, which may be another than this one.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    # A shell may have pointed at another Spark: ours is the one beside this Python.
    for name in ("SPARK_HOME", "PYSPARK_SUBMIT_ARGS", "SPARK_CONF_DIR"):
        os.environ.pop(name, None)
    conf = SparkConf().setAll(list(options.items()))
    try:
        with _signals_wait():
            _launch(conf, scratch / "jvm.log")
            return SparkSession.builder.config(conf=conf).getOrCreate()
    except (PySparkException, Py4JError) as error:
        raise StorageError(
            f"Spark did not start ({type(error).__name__}): see that spark.master is right, spark.driver_memory "
            "fits this machine and its temporary folder can be written"
        ) from error
    except BaseException:
        _abandon()
        raise


def _launch(conf: SparkConf, log: Path) -> None:
    """Start the JVM with a file in place of our standard output and error.

    It writes warnings there that no setting silences, VACUUM its chatter, and either could show a patient.
    """
    if SparkContext._gateway is not None:
        return
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
        with _our_variables_left_out(), _address_named():
            SparkContext._gateway = launch_gateway(conf, {"stdout": output, "stderr": output})  # type: ignore[no-untyped-call]
        SparkContext._jvm = SparkContext._gateway.jvm


# Ours, and what holds a secret by its name: the JVM gets its tokens otherwise (`token_endpoint`), and needs none.
_KEPT_FROM_JVM = re.compile(
    "DICOM_ETL|.*(TOKEN|SECRET|PASSW|CREDENTIAL|CONNECTION_STRING|SAS|IDENTITY_HEADER)|.*_KEY$", re.IGNORECASE
)


@contextmanager
def _our_variables_left_out() -> Iterator[None]:
    """Hide our own variables and secrets from a process started meanwhile: it would pass them on to others."""
    ours = {name: os.environ.pop(name) for name in list(os.environ) if _KEPT_FROM_JVM.match(name)}
    try:
        yield
    finally:
        os.environ.update(ours)


@contextmanager
def _address_named() -> Iterator[None]:
    """Tell a JVM started meanwhile its address: it looks the machine's name up, which some containers' hosts lack."""
    if "SPARK_LOCAL_IP" in os.environ:
        yield
        return
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    try:
        yield
    finally:
        del os.environ["SPARK_LOCAL_IP"]


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait until the JVM is ours: one that starts meanwhile would be left behind for ever."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda got, _frame: came.append(got))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for got in came:
            signal.raise_signal(got)


def _abandon() -> None:
    """End a JVM that came up as a signal came: nobody else knows it."""
    gateway = SparkContext._gateway
    process = getattr(gateway, "proc", None)
    SparkContext._gateway = SparkContext._jvm = SparkContext._active_spark_context = None
    if process is not None:
        process.kill()
        process.wait(timeout=30)


def stop(spark: SparkSession, patience_seconds: float = 30) -> None:
    """Stop Spark and wait for its JVM, so that the spill folder can go."""
    gateway = SparkContext._gateway
    with suppress(Py4JError, OSError):  # a JVM that has ended cannot be asked to
        spark.stop()
    if gateway is None:
        return
    process = getattr(gateway, "proc", None)
    with suppress(Py4JError, OSError):
        gateway.shutdown()
    SparkContext._gateway = None
    SparkContext._jvm = None
    if process is not None:
        process.stdin.close()  # the JVM ends when its standard input does
        try:
            process.wait(timeout=patience_seconds)
        except subprocess.TimeoutExpired:
            process.kill()


def start_resolving(options: dict[str, str]) -> None:
    """Start and stop a bare session, so that Spark fetches ``spark.jars.packages``."""
    scratch = Path(options["spark.jars.ivy"])
    try:
        spark = start({"spark.master": "local[1]", "spark.ui.enabled": "false", **options}, scratch, java_home())
    except (StorageError, OSError) as error:
        raise ConfigurationError("could not fetch Spark's jars; check the network, run make setup again") from error
    stop(spark)
