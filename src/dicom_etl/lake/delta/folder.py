"""Where the files of one table are written, and with which rights (design/architecture.md: Patient data)."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

from deltalake import DeltaTable
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from dicom_etl.remote.uri import is_remote

_LOG = "_delta_log"
_OPEN_TO_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class TableFolder:
    """A filesystem, and the path of a table on it.

    ``private`` makes the files that we create 0600; else the umask decides.
    """

    filesystem: AbstractFileSystem
    path: str
    private: bool = False

    def create(self, name: str) -> BinaryIO:
        """A new file, open for writing; on a local disk FileExistsError when there is one."""
        if isinstance(self.filesystem, LocalFileSystem):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            return os.fdopen(os.open(self._full(name), flags, 0o600 if self.private else 0o666), "wb")
        return cast(BinaryIO, self.filesystem.open(self._full(name), "wb"))

    def open(self, name: str) -> BinaryIO:
        return cast(BinaryIO, self.filesystem.open(self._full(name), "rb"))

    def remove(self, name: str) -> None:
        self.filesystem.rm_file(self._full(name))

    def size_bytes(self, name: str) -> int:
        return int(self.filesystem.size(self._full(name)))

    def _full(self, name: str) -> str:
        return f"{self.path.rstrip('/')}/{name}"


def local_folder(path: str, *, private: bool = False) -> TableFolder:
    """The folder of a table on the local disk."""
    return TableFolder(LocalFileSystem(), local_path(path), private)


def folder_of(table: DeltaTable) -> TableFolder:
    """The folder of a local table; private when its log is, which ``create_table`` decided."""
    if not is_local(table.table_uri):
        raise ValueError("a table that is not on the local disk needs its folder given")
    return local_folder(table.table_uri, private=_is_private(_log(table)))


def is_local(path: str) -> bool:
    """Whether ``path`` is a folder of this machine: a plain path or file://."""
    return not is_remote(path)


def local_path(path: str) -> str:
    """The plain path of a local folder that may be written as file://."""
    return url2pathname(urlsplit(path).path) if path.startswith("file://") else path


def make_table_folder(path: str, *, private: bool) -> None:
    """Make the folders of a local table and of its log, and their missing parents.

    0700 when private, else by the umask. Raises OSError.
    """
    folder = Path(local_path(path)) / _LOG
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    # One by one: Path.mkdir(parents=True) gives the mode to the last one only.
    for part in reversed(missing):
        part.mkdir(mode=0o700 if private else 0o777, exist_ok=True)


def protect_log(table: DeltaTable, version: int) -> None:
    """Make the files of one version 0600 when the log is private: delta-rs writes them by the umask."""
    if not is_local(table.table_uri) or not _is_private(_log(table)):
        return
    for path in (*_log(table).glob(f"{version:020d}.*"), _log(table) / "_last_checkpoint"):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            path.chmod(0o600)


def sync_to_disk(sink: BinaryIO) -> None:
    """Make the bytes outlive a power cut before a log names their file; does nothing on other storage."""
    sink.flush()
    with contextlib.suppress(io.UnsupportedOperation, AttributeError):
        os.fsync(sink.fileno())


def _log(table: DeltaTable) -> Path:
    return Path(local_path(table.table_uri)) / _LOG


def _is_private(folder: Path) -> bool:
    return not folder.stat().st_mode & _OPEN_TO_OTHERS
