"""A session as a cluster of another Spark and Delta hands it in: none of our settings, our jars or our checks.

`make test-runtimes` names the folder of that runtime's jars in DICOM_ETL_TEST_RUNTIME (docs/runtimes.md).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from dicom_etl.tables.engine.jars import installed_jars
from dicom_etl.tables.engine.java import java_home

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

VARIABLE = "DICOM_ETL_TEST_RUNTIME"


def named() -> bool:
    """Whether the tests are to run on another runtime than ours."""
    return VARIABLE in os.environ


def jars() -> list[Path]:
    """The jars beside pyspark: that runtime's, or ours."""
    return sorted(Path(os.environ[VARIABLE]).glob("*.jar")) if named() else installed_jars()


def java() -> Path:
    """The JAVA_HOME of a cluster's programs: that runtime's, which may be older than ours must be."""
    return Path(os.environ["JAVA_HOME"]) if named() and "JAVA_HOME" in os.environ else java_home()


@contextmanager
def cluster(**options: str) -> Iterator[SparkSession]:
    """The session that the cluster provides, with its Delta Lake; stopped at the end."""
    from pyspark.sql import SparkSession

    from dicom_etl.tables.engine.session import _QUICK, CODE_CACHE

    quiet = resources.files("dicom_etl.tables.engine").joinpath("log4j2.properties")
    with TemporaryDirectory(prefix="dicom-etl-cluster-") as scratch:
        settings = {
            "spark.master": "local[2]",
            "spark.driver.memory": "3g",
            "spark.jars": ",".join(str(jar) for jar in jars()),
            "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
            "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
            # As for little work in a session of ours: the tests take a third of the time.
            **_QUICK,
            "spark.sql.warehouse.dir": f"{scratch}/warehouse",
            "spark.local.dir": scratch,
            "spark.driver.extraJavaOptions": (
                f"-Dlog4j2.configurationFile={quiet} -Dderby.system.home={scratch} -XX:TieredStopAtLevel=1 {CODE_CACHE}"
            ),
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            # So many tests in one session would fill its heap with what it remembers of them.
            "spark.sql.ui.retainedExecutions": "5",
            "spark.databricks.delta.delta.log.cacheSize": "50",
            **options,
        }
        builder: Any = SparkSession.builder
        for name, value in settings.items():
            builder = builder.config(name, value)
        spark = builder.getOrCreate()
        try:
            yield spark
        finally:
            spark.stop()


def hand_in() -> None:
    """Let the program's verbs get such a session where they would start one of ours."""
    from dicom_etl.tables.engine import session

    @contextmanager
    def given(*_: Any, **__: Any) -> Iterator[SparkSession]:
        with cluster(**{"spark.driver.memory": "1g"}) as spark:
            yield session.cluster_session(spark)

    session.local_session = given  # type: ignore[assignment]
