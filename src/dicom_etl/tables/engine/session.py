"""The Spark session: the cluster's own when there is one, else a local one that resolves nothing."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from importlib import resources
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

from py4j.protocol import Py4JError
from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession

from dicom_etl.core.errors import ConfigurationError, TemporaryError
from dicom_etl.core.settings.model import Spark
from dicom_etl.remote.storage import Storage
from dicom_etl.remote.token_endpoint import token_endpoint
from dicom_etl.tables.engine.class_archive import class_data_option
from dicom_etl.tables.engine.errors import named_errors
from dicom_etl.tables.engine.jars import jar_settings
from dicom_etl.tables.engine.java import java_home
from dicom_etl.tables.engine.jvm import END_WITHOUT_MEMORY, start, stop
from dicom_etl.tables.engine.location import location

log = logging.getLogger(__name__)

# An IN of so many values reaches Parquet as they are; of more, only the least and the greatest.
MOST_LITERALS = 500

# Settings of a session, ours or a cluster's: they decide what is written.
_SESSION = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
    "spark.sql.parquet.compression.codec": "zstd",
    # Dates are what the files say, as for every other reader. Spark 3 refuses those before 1582-10-15 (a placeholder
    # such as 00010101 stopped a lake), and a cluster that asks for LEGACY shifts them: `change` has no mark of Spark.
    "spark.sql.parquet.datetimeRebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.datetimeRebaseModeInWrite": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInRead": "CORRECTED",
    "spark.sql.parquet.int96RebaseModeInWrite": "CORRECTED",
    # VACUUM would launch 10 000 tasks for its listing (design/spark.md: Vacuum and retention).
    "spark.sql.sources.parallelPartitionDiscovery.parallelism": "2",
    "spark.databricks.delta.snapshotPartitions": "2",
    # The roll-up looks for the studies of a window by their UIDs, so that pages without them are not decoded.
    "spark.sql.parquet.pushdown.inFilterThreshold": str(MOST_LITERALS),
    # Delta before 4.1 does not know the table property of this name (lake.schema) and refuses it: it is let in for
    # those who come later, and this setting says the same to the engine at hand.
    "spark.databricks.io.skipping.stringPrefixLength": "64",
    "spark.databricks.delta.allowArbitraryProperties.enabled": "true",
    # A cluster may let a table be as old as it was some time ago; a run must see what it has committed just now.
    "spark.databricks.delta.stalenessLimit": "0",
}


# Below this, most of the work is loading and compiling classes (ADR 4): plans that are interpreted, and not compiled,
# take a fifth less of a run's processor time.
QUICK_ROWS = 50_000
# Below this, the JVM's quick compiler alone is enough: a sync of 10^6 entries took 94 s of the JVM's processor time
# with it, and 118 s with both.
HUGE_ROWS = 5_000_000
# The quick compiler alone gets 48 MB for its code, which Spark and Delta fill; a JVM of Java 21 then ended in the
# middle of its work. This is what both compilers together get.
CODE_CACHE = "-XX:ReservedCodeCacheSize=240m"
_QUICK = {
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    # One task a step, decided beforehand: each step of an adaptive plan is a job of its own. The MERGEs of a cold
    # window took 10.6 s instead of 13.1 s, and write one small file each.
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.shuffle.partitions": "1",
}
_USUAL = {
    "spark.sql.codegen.wholeStage": "true",
    "spark.sql.codegen.factoryMode": "FALLBACK",
    "spark.sql.adaptive.enabled": "true",
}

# pyspark logs every failed statement with its text and plan, on a handler of its own: a patient could be in it.
for _name in ("SQLQueryContextLogger", "DataFrameQueryContextLogger"):
    logging.getLogger(_name).disabled = True


Starter = Callable[[Spark, int], AbstractContextManager[SparkSession]]


class Reached(Protocol):
    """The storage that a session is to reach, and the two folders in it (`lake.paths.LakePaths`)."""

    @property
    def storage(self) -> Storage: ...
    @property
    def root(self) -> str: ...
    @property
    def private_root(self) -> str: ...


class Engine:
    """Spark when it is needed, and no JVM before; closed with the command (a context manager).

    ``given`` is the session that a cluster provides; it is used as it is and left running, with the cluster's own
    access to storage. ``where`` says to which storage a session of ours is to be let, ``starter`` what starts it.
    """

    def __init__(
        self,
        settings: Spark,
        given: SparkSession | None = None,
        paths: Reached | None = None,
        starter: Starter | None = None,
    ) -> None:
        self._settings = settings
        self._given = given
        self._paths = paths
        self._start_session = starter or local_session
        # Filled by the one thread that starts Spark, and emptied when that has ended.
        self._stack = ExitStack()
        self._background = ThreadPoolExecutor(1, thread_name_prefix="start-spark")
        self._lock = Lock()
        self._starting: Future[SparkSession] | None = None
        self._session: SparkSession | None = None
        self._answers = 0

    def begin(self, rows: int) -> None:
        """Let a session start in the background, as ``session`` would, while the feed is still read."""
        if self._given is None:
            self._begun(rows)

    def session(self, rows: int) -> SparkSession:
        """The session, started at the first call, and tuned for a work of about so many rows."""
        if self._given is not None:
            return self._beside(self._given)
        self._session = self._begun(rows).result()
        _tune(self._session, self._settings, rows)
        return self._session

    def _begun(self, rows: int) -> Future[SparkSession]:
        """The start of the session, one for all callers: a run and the reading ahead of the next may ask at once."""
        with self._lock:
            if self._starting is None:
                self._starting = self._background.submit(self._start_local, rows)
            return self._starting

    def _beside(self, given: SparkSession) -> SparkSession:
        with self._lock:
            if self._session is None:
                check_and_quiet(given)
                if given.version.startswith("3."):
                    log.info("an older Spark: the counts of MERGEs come from the tables' history (docs/runtimes.md)")
                self._session = cluster_session(given)
            return self._session

    def _start_local(self, rows: int) -> SparkSession:
        session = self._stack.enter_context(self._start_session(self._settings, rows))
        if self._paths is not None:
            self._configure_storage_auth(session, self._paths)
        return session

    def _configure_storage_auth(self, session: SparkSession, paths: Reached) -> None:
        """By Hadoop's configuration of the running session: settings of a builder would be seen in `ps`."""
        credential = paths.storage.credential
        tokens = "" if credential is None else self._stack.enter_context(token_endpoint(credential))
        options = paths.storage.hadoop((paths.root, paths.private_root), tokens)
        hadoop: Any = session.sparkContext._jsc.hadoopConfiguration()
        for name, value in options.items():
            hadoop.set(name, value)

    def pulse(self) -> int:
        """A number that grows with each answer of the JVM; it blocks while the JVM does not answer."""
        if self._session is not None:
            with suppress(Py4JError, OSError):  # a JVM that ends answers no more: no progress, and no news
                self._session.sparkContext.statusTracker().getActiveStageIds()
                self._answers += 1
        return self._answers

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        """Stop Spark. What it ended with and nobody has named yet gets its name here, at the edge."""
        self._background.shutdown()  # a JVM that comes up now is to be stopped, too
        with self._stack, named_errors("Spark"):
            if isinstance(error, Exception) and not isinstance(error, AnalysisException):
                raise error


def cluster_session(spark: SparkSession) -> SparkSession:
    """A session beside the given one, with what our writes need set, and tuned alike; its SparkContext is shared."""
    session = spark.newSession()
    for key, value in _SESSION.items():
        session.conf.set(key, value)
    for key in _QUICK:
        tuned = spark.conf.get(key, None)
        if tuned is not None:
            session.conf.set(key, tuned)
    return session


def whole_tables_session(spark: SparkSession) -> SparkSession:
    """As ``cluster_session``, for work on whole tables: not tuned for the few rows that a session of ours may be."""
    session = cluster_session(spark)
    if session.conf.get("spark.sql.codegen.factoryMode", None) == _QUICK["spark.sql.codegen.factoryMode"]:
        for key in _QUICK:
            session.conf.unset(key)
    return session


def _tune(spark: SparkSession, settings: Spark, rows: int) -> None:
    """Set by how much work there is how plans are run; a warm session meets small work and large."""
    usual = {**_USUAL, "spark.sql.shuffle.partitions": str(settings.shuffle_partitions)}
    for key, value in (_QUICK if rows < QUICK_ROWS else usual).items():
        spark.conf.set(key, value)


# Delta and Spark log predicates, file statistics and plans, with study UIDs in them; so does Parquet of each file that
# it filters (design/architecture.md: Patient data).
_TELLING_LOGGERS = ("org.apache.spark.sql.delta", "org.apache.spark.sql.execution", "io.delta", "org.apache.parquet")


def check_and_quiet(spark: SparkSession) -> None:
    """Turn off those loggers of a cluster's driver that tell of patients.

    Raises ConfigurationError when its session knows no Delta.
    """
    extensions = spark.conf.get("spark.sql.extensions", "") or ""
    if "Delta" not in extensions and "DATABRICKS_RUNTIME_VERSION" not in os.environ:
        raise ConfigurationError(
            "this Spark session has no Delta Lake: start it with Delta's jars and "
            "spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension (docs/schedulers.md)"
        )
    jvm: Any = spark._jvm
    with suppress(Py4JError, TypeError):  # a cluster with another logging library is left as it is
        off = jvm.org.apache.logging.log4j.Level.OFF
        for name in _TELLING_LOGGERS:
            jvm.org.apache.logging.log4j.core.config.Configurator.setLevel(name, off)


# A JVM that writes an archive at its end may take so long for it.
_ARCHIVE_SECONDS = 120


@contextmanager
def local_session(settings: Spark, rows: int, *, archive: Path | None = None) -> Iterator[SparkSession]:
    """A session in a JVM of our own, stopped at the end together with its spill folder.

    ``rows`` is about how many it will work on: few are not worth much compiling. ``archive``: the JVM writes the
    classes that it has loaded there at its end (`commands.class_archive`), which takes it some time.

    Raises ConfigurationError without a Java, StorageError when the JVM does not start, TemporaryError when an archive
    is not written in time.
    """
    home = java_home()
    with tempfile.TemporaryDirectory(prefix="dicom-etl-spark-") as scratch:  # 0700
        # A JVM that writes an archive cannot start from another.
        classes = class_data_option(home) if archive is None else f' -XX:ArchiveClassesAtExit="{archive}"'
        spark = start(_local_settings(settings, Path(scratch), rows, classes), Path(scratch), home)
        patience_seconds = 30 if archive is None else _ARCHIVE_SECONDS
        try:
            _tune(spark, settings, rows)
            yield spark
        finally:
            in_time = stop(spark, patience_seconds)
        if archive is not None and not in_time:
            raise TemporaryError(
                f"the JVM had not written it within {patience_seconds} s: run dicom-etl setup again when this machine "
                "is less busy"
            )


def _local_settings(settings: Spark, scratch: Path, rows: int, classes: str) -> dict[str, str]:
    log4j = resources.files("dicom_etl.tables.engine").joinpath("log4j2.properties")
    return {
        **_SESSION,
        **jar_settings(),
        "spark.master": settings.master,
        "spark.app.name": "dicom-etl",
        "spark.driver.memory": settings.driver_memory,
        "spark.sql.shuffle.partitions": str(settings.shuffle_partitions),
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.driver.extraJavaOptions": (
            f'-Dlog4j2.configurationFile="{log4j}" -Djava.io.tmpdir="{scratch}" -Dderby.system.home="{scratch}"'
            f" -Duser.timezone=UTC -XX:+UseParallelGC {END_WITHOUT_MEMORY}"
            + (f" -XX:TieredStopAtLevel=1 {CODE_CACHE}" if rows < HUGE_ROWS else "")
            + classes
        ),
        # Nothing of ours listens outside this machine, and nothing is left on its disks in clear.
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.local.dir": str(scratch),
        "spark.io.encryption.enabled": "true",
        "spark.sql.warehouse.dir": location(str(scratch / "warehouse")),
        "spark.eventLog.enabled": "false",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        # What Spark remembers of past plans and jobs for a UI that nobody sees fills a heap of 1 GB after some
        # hundred MERGEs (seen: the JVM did nothing but collect garbage).
        "spark.sql.ui.retainedExecutions": "5",
        "spark.ui.retainedJobs": "20",
        "spark.ui.retainedStages": "20",
        "spark.ui.retainedTasks": "200",
        # Delta keeps the state of the last 10 000 tables it met; a run meets five.
        "spark.databricks.delta.delta.log.cacheSize": "50",
    }
