"""The JVM that we start ourselves: its environment, its output, and its end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyspark
from py4j.clientserver import ClientServer, JavaParameters, PythonParameters
from py4j.java_gateway import java_import
from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkException, PySparkRuntimeError
from pyspark.serializers import UTF8Deserializer, read_int
from pyspark.sql import SparkSession

from dicom_etl.core.errors import ConfigurationError, StorageError
from dicom_etl.tables.engine.java import java_home

# A context that starts puts these into this process's environment, with these values. Set before any thread of ours
# works, that changes nothing: a name that is added while others look for theirs can make them fail.
for _name, _value in (("SPARK_AUTH_SOCKET_TIMEOUT", "15"), ("SPARK_BUFFER_SIZE", "65536")):
    os.environ.setdefault(_name, _value)

# Ours is the Spark beside this Python; a shell may have pointed at another.
_SPARK = Path(pyspark.__file__).parent
_ANOTHER_SPARK = frozenset(["SPARK_HOME", "PYSPARK_SUBMIT_ARGS", "SPARK_CONF_DIR"])

# Ours, and what holds a secret by its name: the JVM gets its tokens otherwise (`token_endpoint`), and needs none.
_KEPT_FROM_JVM = re.compile(
    "DICOM_ETL|.*(TOKEN|SECRET|PASSW|CREDENTIAL|CONNECTION_STRING|SAS|IDENTITY_HEADER)|.*_KEY$", re.IGNORECASE
)

# It says where it listens within two seconds; on a machine that is short of memory, within minutes.
_PATIENCE_SECONDS = 600

# Else only the thread ends that asked for memory, and what waits for its result waits on: the driver's thread for
# results did so with 10^7 instances (ADR 60).
END_WITHOUT_MEMORY = "-XX:+ExitOnOutOfMemoryError"
# What a JVM then ends with, and what Spark ends it with when it meets the error first.
_WITHOUT_MEMORY = (3, 52)

# What pyspark calls by its name alone (its `launch_gateway`): that of 4.2, and that of 3.5, whose jars ours fetches.
_SQL_CLASSES = (
    ("*",) if pyspark.__version__.startswith("3.") else ("Encoders", "OnSuccessCall", "functions", "classic.*")
)
IMPORTED = (
    "org.apache.spark.SparkConf",
    "org.apache.spark.api.java.*",
    "org.apache.spark.api.python.*",
    "org.apache.spark.ml.python.*",
    "org.apache.spark.mllib.api.python.*",
    "org.apache.spark.resource.*",
    *(f"org.apache.spark.sql.{name}" for name in _SQL_CLASSES),
    "org.apache.spark.sql.api.python.*",
    "org.apache.spark.sql.hive.*",
    "scala.Tuple2",
)


def start(options: dict[str, str], scratch: Path, home: Path) -> SparkSession:
    """A session in a new JVM of the Java at ``home``; what the JVM says goes into a file in ``scratch``.

    Raises StorageError when it does not start.
    """
    conf = SparkConf().setAll(list(options.items()))
    try:
        _launch(conf, scratch, home)
        spark = SparkSession.builder.config(conf=conf).getOrCreate()
    except BaseException as error:
        _kill_orphan()
        if not isinstance(error, (PySparkException, Py4JError)):
            raise
        raise StorageError(
            f"Spark did not start ({type(error).__name__}): see that spark.master is right, spark.driver_memory "
            "fits this machine and its temporary folder can be written"
        ) from error
    # pyspark's own choice is the shell's python3, which may be another than this one.
    spark.sparkContext.pythonExec = os.environ.get("PYSPARK_PYTHON", sys.executable)
    return spark


def _launch(conf: SparkConf, scratch: Path, home: Path) -> None:
    """Start the JVM with a file in place of our standard output and error.

    It writes warnings there that no setting silences, VACUUM its chatter, and either could show a patient. (pyspark's
    own ``launch_gateway`` gives the JVM the environment of this process, which others would have to share meanwhile.)
    """
    if SparkContext._gateway is not None:
        return
    options = [word for name, value in conf.getAll() for word in ("--conf", f"{name}={value}")]
    submit = [str(_SPARK / "bin" / "spark-submit"), *options, "pyspark-shell"]
    # Ctrl-C goes to all processes of a terminal, and we stop ours. By a shell: Python's own way to have a signal
    # ignored there (preexec_fn) may hang where other threads work.
    ignoring = ["/bin/sh", "-c", 'trap "" INT; exec "$0" "$@"']
    connection_file = scratch / "gateway"
    with os.fdopen(os.open(scratch / "jvm.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
        process = subprocess.Popen(
            [*ignoring, *submit],
            env=child_environment(os.environ, home, connection_file),
            stdin=subprocess.PIPE,  # the JVM ends when this does, and so with us
            stdout=output,
            stderr=output,
        )
    try:
        SparkContext._gateway = _gateway(process, connection_file)
    except BaseException:
        _end(process)
        raise
    SparkContext._jvm = SparkContext._gateway.jvm


def child_environment(ours: Mapping[str, str], home: Path, connection_file: Path) -> dict[str, str]:
    """The variables of a JVM of the Java at ``home``, which is to write into ``connection_file`` how it can be reached.

    It would pass secrets on to what it starts. It is told its address, or else looks the machine's name up, which some
    containers' hosts lack.
    """
    kept = {
        name: value for name, value in ours.items() if name not in _ANOTHER_SPARK and not _KEPT_FROM_JVM.match(name)
    }
    return {
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        **kept,
        "JAVA_HOME": str(home),
        "SPARK_HOME": str(_SPARK),
        "SPARK_CONNECT_MODE": "0",
        "_PYSPARK_DRIVER_CONN_INFO_PATH": str(connection_file),
    }


def _gateway(process: subprocess.Popen[bytes], connection_file: Path) -> Any:
    """The way to the JVM, once it has said where it listens. Raises PySparkException when it ends or is silent."""
    silent_at = time.monotonic() + _PATIENCE_SECONDS
    while not connection_file.exists():
        if process.poll() is not None or time.monotonic() > silent_at:
            raise PySparkRuntimeError("the JVM has ended before it said where it listens")
        time.sleep(0.1)
    with connection_file.open("rb") as info:
        port, secret = read_int(info), UTF8Deserializer().loads(info)  # type: ignore[no-untyped-call]
    connection_file.unlink()
    gateway = ClientServer(
        java_parameters=JavaParameters(port=port, auth_token=secret, auto_convert=True),
        python_parameters=PythonParameters(port=0, eager_load=False),
    )
    gateway.proc = process
    for name in IMPORTED:
        java_import(gateway.jvm, name)
    return gateway


def _kill_orphan() -> None:
    """End a JVM whose session did not come up: nobody else knows it."""
    process = getattr(SparkContext._gateway, "proc", None)
    SparkContext._gateway = SparkContext._jvm = SparkContext._active_spark_context = None
    if process is not None:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    with process:  # closes its standard input, and waits
        process.kill()


def ended_without_memory(patience_seconds: float = 5) -> bool:
    """Whether this process's JVM has ended because its memory was full.

    False for one that lives, was killed, or is not a child of ours. ``patience_seconds`` is how long it may take to
    end: its connections close a moment before.
    """
    process = getattr(SparkContext._gateway, "proc", None)
    if process is None:
        return False
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=patience_seconds)
    return process.returncode in _WITHOUT_MEMORY


def stop(spark: SparkSession, patience_seconds: float = 30) -> bool:
    """Stop Spark and wait for its JVM, so that the spill folder can go; False when it had to be killed."""
    gateway = SparkContext._gateway
    with suppress(Py4JError, OSError):  # a JVM that has ended cannot be asked to
        spark.stop()
    if gateway is None:
        return True
    process = getattr(gateway, "proc", None)
    with suppress(Py4JError, OSError):
        gateway.shutdown()
    SparkContext._gateway = None
    SparkContext._jvm = None
    return process is None or _has_ended(process, patience_seconds)


def _has_ended(process: subprocess.Popen[bytes], patience_seconds: float) -> bool:
    """Whether a JVM that is to end does so in time; else it is killed."""
    if process.stdin is not None:
        process.stdin.close()  # the JVM ends when its standard input does
    try:
        process.wait(timeout=patience_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        return False
    return True


def resolve(coordinates: Sequence[str], scratch: Path) -> None:
    """Let a bare session fetch these Maven coordinates into ``scratch/jars``, without what they depend on.

    Raises ConfigurationError when one cannot be fetched.
    """
    options = {"spark.master": "local[1]", "spark.ui.enabled": "false", "spark.jars.ivy": str(scratch)}
    spark = start(options, scratch, java_home())
    try:
        context: Any = spark.sparkContext._jsc.sc()
        for one in coordinates:
            context.addJar(f"ivy://{one}?transitive=false")
    except Py4JError as error:
        raise ConfigurationError(
            "Spark's jars cannot be fetched from Maven Central: check the network, or run dicom-etl setup --from PLACE"
        ) from error
    finally:
        stop(spark)
