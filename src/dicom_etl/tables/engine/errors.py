"""Spark's, py4j's and the JVM's errors as ours, without their text: it quotes predicates, rows and paths."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from delta.exceptions import (
    ConcurrentAppendException,
    ConcurrentDeleteDeleteException,
    ConcurrentDeleteReadException,
    ConcurrentTransactionException,
    ConcurrentWriteException,
    DeltaConcurrentModificationException,
    MetadataChangedException,
    ProtocolChangedException,
)
from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.errors import PySparkException

from dicom_etl.core.errors import (
    ConfigurationError,
    DataError,
    DicomEtlError,
    OutputClosed,
    StorageError,
    Superseded,
    TemporaryError,
)
from dicom_etl.lake.delta.errors import damage_remedy
from dicom_etl.tables.engine.jvm import ended_without_memory

# Each on its own: in Delta's Python package none of them is a DeltaConcurrentModificationException.
_ANOTHER_WROTE = (
    ConcurrentAppendException,
    ConcurrentDeleteDeleteException,
    ConcurrentDeleteReadException,
    ConcurrentTransactionException,
    ConcurrentWriteException,
    DeltaConcurrentModificationException,
    MetadataChangedException,
    ProtocolChangedException,
)

# What Spark and Delta say of a log that cannot be read, and of a file that is gone, cut or no Parquet; Spark 3.5 has
# no name for FAILED_READ_FILE yet, only words.
_LOG_SPOILT = ("DeltaFileNotFoundException", "JsonParseException", "JsonEOFException")
_FILE_SPOILT = ("FileNotFoundException", "FAILED_READ_FILE", "error while reading file", "is not a Parquet file")

# The conditions of a folder in which Delta finds no table any more.
_VANISHED = ("DELTA_MISSING_DELTA_TABLE", "DELTA_TABLE_NOT_FOUND", "DELTA_PATH_DOES_NOT_EXIST")

_DISK_FULL = ("No space left on device", "Disk quota exceeded")
# A chain of Java exceptions may end in a circle.
_MOST_CAUSES = 20


@contextmanager
def named_errors(table: str) -> Iterator[None]:
    """Raises one of our errors for whatever Spark ends with while it works on ``table``.

    Superseded when another run has committed, StorageError for the storage (and what is not known better),
    ConfigurationError when memory is short, TemporaryError when the JVM is gone.
    """
    try:
        yield
    except _ANOTHER_WROTE as error:
        raise Superseded(f"{table}: another run has written; this one stops") from error
    except (PySparkException, Py4JJavaError) as error:
        # Py4JJavaError: what pyspark has no class for, as an aborted job, a file that is gone, a log that is no JSON.
        description = _description(error) or (type(error).__name__, "")
        raise machine_fault(error, table) or _to_domain_error(table, *description) from error
    except OutputClosed:
        raise
    except (Py4JError, ConnectionError, EOFError) as error:  # the last where rows stop coming
        raise _without_jvm(table) from error


def condition(error: PySparkException) -> str | None:
    """The name of what went wrong, without values; before Spark 4 it is called the error's class."""
    named = error.getCondition if hasattr(error, "getCondition") else error.getErrorClass
    return named()


def file_missing(error: PySparkException | Py4JJavaError) -> bool:
    """Whether a file of a table is not there or cannot be read."""
    description = _description(error)
    return description is not None and any(sign in text for text in description for sign in _FILE_SPOILT)


def machine_fault(error: PySparkException | Py4JJavaError, table: str) -> DicomEtlError | None:
    """Our error when the machine has failed Spark, whatever it worked on; None when something else is wrong.

    StorageError for a full disk, ConfigurationError for a memory that is too small, TemporaryError when the JVM is
    gone.
    """
    description = _description(error)
    if description is None:
        return _without_jvm(table)
    if any(sign in description[1] for sign in _DISK_FULL):
        return StorageError(f"{table}: the storage is full; free space and run again")
    return _short_of_memory(table) if "OutOfMemoryError" in description[1] else None


def _description(error: PySparkException | Py4JJavaError) -> tuple[str, str] | None:
    """The condition or the Java class, and all that the JVM says; None when it does not answer any more."""
    try:
        said = "\n".join([str(error), *_causes(error)])
        if isinstance(error, PySparkException):
            return condition(error) or type(error).__name__, said
        return str(error.java_exception.getClass().getSimpleName()), said
    except (Py4JError, OSError):
        return None


def _causes(error: PySparkException | Py4JJavaError) -> Iterator[str]:
    """What each Java exception says that lies behind the error: TASK_WRITE_FAILED itself does not name a full disk."""
    thrown: Any = error.java_exception if isinstance(error, Py4JJavaError) else getattr(error, "_origin", None)
    for _ in range(_MOST_CAUSES):
        if thrown is None:
            return
        yield str(thrown.toString())
        thrown = thrown.getCause()


def _without_jvm(table: str) -> DicomEtlError:
    if ended_without_memory():
        return _short_of_memory(table)
    return TemporaryError(f"{table}: Spark's JVM has ended (killed by the system?); run again")


def _short_of_memory(table: str) -> ConfigurationError:
    return ConfigurationError(f"{table}: Spark ran out of memory: raise spark.driver_memory")


def _to_domain_error(table: str, what: str, message: str) -> DicomEtlError:
    # A rebuild makes the shared tables only.
    shared = table in ("instance", "series", "study")
    if any(sign in what for sign in _VANISHED):
        rebuild = ", or run dicom-etl repair --rebuild" if shared else ""
        return DataError(f"the table {table} has vanished: mount or restore its folder{rebuild}")
    if any(sign in what or sign in message for sign in _LOG_SPOILT):
        rebuild = ", or move its folder away and run dicom-etl repair --rebuild" if shared else ""
        return DataError(f"{table}: its _delta_log cannot be read; {damage_remedy(table)}{rebuild}")
    if any(sign in what or sign in message for sign in _FILE_SPOILT):
        rebuild = ", or run dicom-etl repair --rebuild" if shared else ""
        return DataError(f"{table}: a file of this table is missing or cannot be read; {damage_remedy(table)}{rebuild}")
    return StorageError(f"{table}: Spark could not read or write the table ({what}); see to its storage and run again")
