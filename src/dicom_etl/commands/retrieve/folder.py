"""The folder that takes retrieved files: each appears whole, or not at all, and nothing is written outside of it."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dicom_etl.core.errors import AnotherWriter, UsageError

_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS}


class LeadsOutside(Exception):
    """A folder below the given one is a link to another place."""


@dataclass(frozen=True, slots=True)
class Folder:
    """The given folder, and the one below it for one partition's files; ``root`` has no links in it."""

    root: Path
    inner: Path

    def file(self, *names: str) -> Path:
        """The place of a file below; the names are single components."""
        return self.inner.joinpath(*names)

    def shown(self, path: Path) -> str:
        """The path as it stands below the given folder."""
        return path.relative_to(self.root).as_posix()


class PartFile:
    """A file on its way to ``path``: written beside it under a hidden name, and renamed when it is whole."""

    def __init__(self, folder: Folder, path: Path) -> None:
        self.path = path
        self.size = 0
        self._hidden = path.with_name(f".{path.name}.part")
        self._root = folder.root
        self._sink: BinaryIO | None = None

    def begin(self) -> None:
        """Opens it, empty, also when an earlier attempt has written. Raises LeadsOutside, OSError."""
        self.close()
        # Before a folder is made: it would be made behind the link.
        if not self.path.parent.resolve().is_relative_to(self._root):
            raise LeadsOutside
        for missing in reversed([one for one in self.path.parents if not one.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        self._sink = os.fdopen(os.open(self._hidden, flags, 0o600), "wb")
        self.size = 0

    def write(self, data: bytes) -> None:
        """The next bytes. Raises OSError."""
        if self._sink is None:
            raise ValueError("not begun")
        self._sink.write(data)
        self.size += len(data)

    def commit(self) -> None:
        """Makes it appear, after its bytes are on the disk. Raises OSError."""
        if self._sink is None:
            raise ValueError("not begun")
        self._sink.flush()
        os.fsync(self._sink.fileno())
        self.close()
        os.replace(self._hidden, self.path)

    def close(self) -> None:
        """Closes what is open."""
        if self._sink is not None:
            self._sink.close()
            self._sink = None

    def discard(self) -> None:
        """Leaves nothing of what was not committed; a place outside is left alone."""
        self.close()
        if not self.path.parent.resolve().is_relative_to(self._root):
            return
        with suppress(FileNotFoundError, NotADirectoryError):
            self._hidden.unlink()


@contextmanager
def open_folder(text: Path, partition: str | None = None) -> Iterator[Folder]:
    """The folder, made when missing (0700), for this process alone until the block ends.

    Raises UsageError when it is no folder, AnotherWriter while another process retrieves into it, OSError.
    """
    root = text.expanduser()
    if root.exists() and not root.is_dir():
        raise UsageError("--to: a file has this name; name a folder")
    for missing in reversed([one for one in (root, *root.parents) if not one.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)
    root = root.resolve()
    handle = os.open(root, os.O_RDONLY)
    try:
        _lock(handle)
        yield Folder(root, root if partition is None else root / partition)
    finally:
        os.close(handle)


def _lock(handle: int) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise AnotherWriter("--to: another retrieve writes into this folder; try again when it has ended") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:  # a file system without locks
            raise
