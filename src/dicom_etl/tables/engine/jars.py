"""The jars that pyspark lacks: which they are, where they lie, and how they come there once.

``python -m dicom_etl.tables.engine.jars`` (part of ``make setup``) puts them into the venv, checked by SHA-256, so that
no later start resolves anything (design/spark.md: Jars).
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

from dicom_etl.core.errors import ConfigurationError, DicomEtlError

FOLDER = Path(sys.prefix) / "share" / "dicom-etl" / "jars"

PACKAGES = "io.delta:delta-spark_4.2_2.13:4.4.0,org.apache.hadoop:hadoop-azure:3.5.0"

# pyspark brings its own, other versions of all of these; beside them on the class path they break things.
EXCLUDES = (
    ",".join(
        f"{group}:*"
        for group in (
            "io.unitycatalog",
            "org.apache.hadoop.thirdparty",
            "org.apache.parquet",
            "com.fasterxml*",
            "org.apache.logging.log4j",
            "org.slf4j",
            "org.apache.httpcomponents",
            "com.microsoft.azure",
            "commons-*",
            "com.github.luben",
            "org.xerial.snappy",
            "org.roaringbitmap",
            "io.airlift",
            "org.locationtech.jts",
            "org.hdrhistogram",
            "javax.annotation",
            "com.google.code.findbugs",
            "org.scala-lang",
            "org.wildfly.openssl",
        )
    )
    + ",io.delta:delta-kernel*,org.apache.hadoop:hadoop-client*"
)

SHA256 = {
    "delta-spark_4.2_2.13-4.4.0.jar": "27d4fd8b1f879535c573ed1c718177d6a27f24d3e626ba02e216369725721ead",
    "delta-storage-4.4.0.jar": "c46735481fa8e326b0957be02b4420cbcab4b325bb08009b7f2045a95133f1cc",
    "hadoop-azure-3.5.0.jar": "220b5db238b82437960e4b81c7e3eefa4eff2a03ad502887497f11d0ad86e663",
}


def installed_jars() -> list[Path]:
    """The jars in this venv, all of them or none."""
    jars = [FOLDER / name for name in SHA256]
    return jars if all(jar.is_file() for jar in jars) else []


def jar_settings() -> dict[str, str]:
    """Spark settings that bring the jars: files of the venv, or else names that Spark resolves at its start.

    The files go on the class path, our JVM being driver and executor in one: only classes from there are in the archive
    of `tables.engine.class_archive`.
    """
    if jars := installed_jars():
        return {"spark.driver.extraClassPath": ":".join(str(jar) for jar in jars)}
    return {"spark.jars.packages": PACKAGES, "spark.jars.excludes": EXCLUDES}


def install_jars(folder: Path = FOLDER) -> None:
    """Put the jars into ``folder`` once. Raises ConfigurationError when one is not the one we know."""
    if all(_is_known(folder / name) for name in SHA256):
        return
    with tempfile.TemporaryDirectory(prefix="dicom-etl-jars-") as scratch:
        _resolve(Path(scratch))
        folder.mkdir(parents=True, exist_ok=True)
        for found in sorted((Path(scratch) / "jars").glob("*.jar")):
            name = found.name.split("_", 1)[1]  # Spark names them group_artifact-version.jar
            if not (name in SHA256 and _is_known(found, name)):
                raise ConfigurationError(f"{name} is not the file we know (SHA-256 differs); run make setup again")
            shutil.copyfile(found, folder / name)
    if missing := [name for name in SHA256 if not (folder / name).is_file()]:
        raise ConfigurationError(f"could not fetch {', '.join(missing)}; check the network, run make setup again")


def _is_known(path: Path, name: str | None = None) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == SHA256[name or path.name]


def _resolve(scratch: Path) -> None:
    from dicom_etl.tables.engine.jvm import start_resolving  # noqa: PLC0415  it loads pyspark, jar_settings must not

    start_resolving({"spark.jars.ivy": str(scratch), "spark.jars.packages": PACKAGES, "spark.jars.excludes": EXCLUDES})


if __name__ == "__main__":
    try:
        install_jars()
    except DicomEtlError as problem:
        print(problem, file=sys.stderr)
        raise SystemExit(problem.exit_code) from None
