"""What storage and delta-rs raise, as our named errors (architecture §6, §8)."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterator

from deltalake.exceptions import DeltaError

from dicom_etl.errors import AccessDenied, DataError, DicomEtlError, StorageError

_REFUSED = re.compile(r"\b(401|403)\b|Forbidden|Unauthori[sz]ed|Unauthenticated|AuthorizationPermission")

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
    except (DeltaError, OSError) as error:
        raise storage_error(error, table, writing=True) from error


def storage_error(error: Exception, table: str, *, writing: bool = False) -> DicomEtlError:
    """Our error for what delta-rs, pyarrow or the storage raised, in one line without paths.

    StorageError for a full, read-only or forbidden disk, AccessDenied for 401/403 of a storage account,
    DataError for a log that cannot be read or a file that is gone.
    """
    number = error.errno if isinstance(error, OSError) and error.errno else _os_error(str(error))
    if number in _DISK:
        return StorageError(f"{table}: {_DISK[number]}")
    if _REFUSED.search(str(error)):
        return AccessDenied(
            f"{table}: the storage refused our identity; assign it the role Storage Blob Data Contributor"
        )
    if not writing and isinstance(error, FileNotFoundError):
        return DataError(f"{table}: a file of this table is missing; restore it from a backup")
    if not writing and isinstance(error, DeltaError):
        return DataError(f"{table}: its _delta_log cannot be read; restore it from a backup")
    return StorageError(f"{table}: the storage failed ({_kind(error, number)}); see to it and run again")


def _os_error(text: str) -> int | None:
    """delta-rs passes the operating system's number on in its text only."""
    found = re.search(r"os error (\d+)|\bcode: (\d+)", text)
    return int(found.group(1) or found.group(2)) if found else None


def _kind(error: Exception, number: int | None) -> str:
    return errno.errorcode.get(number or 0, type(error).__name__)
