"""What storage and delta-rs raise, as our named errors.

design/architecture.md: Command line and errors, Patient data.
"""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator

from azure.core.exceptions import AzureError, HttpResponseError
from deltalake.exceptions import DeltaError

from dicom_etl.core.errors import (
    AccessDenied,
    ConfigurationError,
    DataError,
    DicomEtlError,
    ServiceUnavailable,
    StorageError,
    UnknownIdentity,
)

# adlfs lets errors of azure.core through, or wraps them into RuntimeError.
FAILURES = (DeltaError, OSError, AzureError, RuntimeError)

_GONE = re.compile(r"\bContainerNotFound\b|container does not exist|FilesystemNotFound")
_UNREACHABLE = re.compile(
    r"error sending request|after \d+ retries|connection (refused|reset|closed)|\b(429 Too Many|503 Service)\b"
)
# A status with its words, and not its number alone: errors quote paths, and a folder may be called 403.
_REFUSED = re.compile(
    r"\b403 Forbidden\b|lacked the necessary privileges|\b(AuthorizationPermissionMismatch|AuthorizationFailure)\b"
)

# So the storage answers to a key, or a token, that is none, and where keys are forbidden; of a role that is missing it
# says something else, and never with 401.
_UNKNOWN = re.compile(
    r"\b(AuthenticationFailed|KeyBasedAuthenticationNotPermitted|401 Unauthori[sz]ed)\b"
    r"|[Ff]ailed to authenticate the request|lacked valid authentication"
)

# What `columns` computes from the other tables: no backup is needed.
_MADE_AGAIN = ("instance_tags", "series_tags", "study_tags", "header_quality")

_FULL = "the storage is full; free space and run again"
_FORBIDDEN = "this user may not use its folder; give it the right to read and write"
_DISK = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: "the storage is read-only; make it writable and run again",
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
}


@contextlib.contextmanager
def storage_errors(table: str) -> Iterator[None]:
    """Turns what storage and delta-rs raise while something is written into our named errors."""
    try:
        yield
    except FAILURES as error:
        raise storage_error(error, table, writing=True) from error


def storage_error(error: Exception, table: str, *, writing: bool = False) -> DicomEtlError:
    """Our error for what delta-rs, pyarrow or the storage raised, in one line without paths.

    StorageError for a full, read-only or forbidden disk, UnknownIdentity or AccessDenied for 401 or 403 of an account,
    ConfigurationError for a container that is not there, ServiceUnavailable for an account that does not answer,
    DataError for a log that cannot be read or a file that is gone. A RuntimeError that is not the storage's is raised.
    """
    azure = _of_azure(error)
    if isinstance(error, RuntimeError) and azure is None:
        raise error
    number = error.errno if isinstance(error, OSError) and error.errno else _os_error(str(error))
    if number in _DISK:
        return StorageError(f"{table}: {_DISK[number]}")
    text = str(azure or error)
    if _GONE.search(text):
        return ConfigurationError(f"{table}: its container does not exist: make it, or correct lake.root")
    if _status(azure) == 401 or _UNKNOWN.search(text):
        return UnknownIdentity(
            f"{table}: the storage does not accept our key or token: check storage.auth and the identity's sign-in, or "
            "the key in the variable of storage.key_env"
        )
    if _status(azure) == 403 or _REFUSED.search(text):
        return AccessDenied(
            f"{table}: the storage refused our identity; assign it the role Storage Blob Data Contributor"
        )
    if azure is not None or _UNREACHABLE.search(text):
        return ServiceUnavailable(f"{table}: the storage account does not answer; try again later")
    if not writing and isinstance(error, FileNotFoundError):
        return DataError(f"{table}: a file of this table is missing; {damage_remedy(table)}")
    if not writing and isinstance(error, DeltaError):
        return DataError(f"{table}: its _delta_log cannot be read; {damage_remedy(table)}")
    return StorageError(f"{table}: the storage failed ({_kind(error, number)}); see to it and run again")


def damage_remedy(table: str) -> str:
    """What to do about a table that is damaged, as the end of an error's line."""
    if table in _MADE_AGAIN:
        return "move its folder away, and dicom-etl columns update makes it again"
    return "restore it from a backup"


def _of_azure(error: Exception) -> AzureError | None:
    """The error of azure.core that it is, or that it wraps."""
    wrapped = error.__cause__ or error.__context__
    return error if isinstance(error, AzureError) else wrapped if isinstance(wrapped, AzureError) else None


def _status(error: AzureError | None) -> int | None:
    return error.status_code if isinstance(error, HttpResponseError) else None


def _os_error(text: str) -> int | None:
    """delta-rs passes the operating system's number on in its text only."""
    match = re.search(r"os error (\d+)|\bcode: (\d+)", text)
    return int(match.group(1) or match.group(2)) if match else None


def _kind(error: Exception, number: int | None) -> str:
    return errno.errorcode.get(number or 0, type(error).__name__)
