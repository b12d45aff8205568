"""What a wheel cannot bring, put into this environment once: Spark's jars, a Java, the archive of classes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dicom_etl.core.errors import DicomEtlError
from dicom_etl.tables.engine.jars import FOLDER, JARS, install_jars
from dicom_etl.tables.engine.java import java_version, set_up_java


def set_up(source: str | None = None) -> Iterator[str]:
    """What was set up, a line each when it is done; ``source`` is where the jars come from.

    Raises as ``install_jars``, and ConfigurationError without a Java.
    """
    home = set_up_java()
    yield f"Java {java_version(home)} at {home}"
    yield put_jars(FOLDER, source)  # Spark's own resolver needs the Java
    yield _archive()


def put_jars(folder: Path, source: str | None = None) -> str:
    """Put the jars into ``folder`` and say so; raises as ``install_jars``."""
    install_jars(folder, source)
    return f"{len(JARS)} jars of Spark's at {folder}, with the SHA-256 that we know"


def _archive() -> str:
    """The archive only saves time, so that a machine that cannot make one is no reason to stop."""
    from dicom_etl.commands.class_archive import make_archive  # noqa: PLC0415  it loads pyspark

    slower = "no archive of classes: each start of Spark takes twice as long"
    try:
        made = make_archive()
    except DicomEtlError as problem:
        return f"{slower} ({problem})"
    except OSError as problem:
        return f"{slower} ({problem.strerror or type(problem).__name__})"
    if made.is_file():
        return f"archive of classes at {made.parent}"
    return f"{slower} (the JVM ended without one: this Java makes none)"
