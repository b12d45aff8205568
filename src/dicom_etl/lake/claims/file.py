"""The files of `_claims`: one JSON file per run id, on any storage that creates exclusively; and who holds one.

No patient data: ids, host, process and times only (design/architecture.md: Patient data).
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from msgspec import Meta

from dicom_etl.core.errors import AnotherWriter, ConfigurationError, StorageError
from dicom_etl.lake.claims.process import Process
from dicom_etl.lake.delta.errors import FAILURES, storage_error

_NAME = re.compile(r"(\d{20})\.json", re.ASCII)
_SCRATCH = re.compile(r"\.(\d{20})\..*", re.ASCII)
_MOST_RUNS = 2**62
_NO_FOLDER = "lake.root is a file, not a folder: set it to a folder that we may write"


class ClaimFile(msgspec.Struct, frozen=True, rename="camel"):
    """What a claim says. ``released`` is true once its run is over, whatever ended it.

    ``nonce`` tells our own file from another's when an answer of the storage was lost. ``process_started`` is
    in the system's own count (Linux: ticks since boot). ``withdrawn``: it met another one right after its
    creation and never worked. ``overtaken_by``: the run that found it stale and went on.
    """

    run_id: int
    nonce: str
    verb: str
    host: str
    pid: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    process_started: int | None
    boot_id: str | None
    pid_namespace: str | None
    claimed_at: datetime
    heartbeat_at: datetime
    beats: int = 0
    released: bool = False
    withdrawn: bool = False
    overtaken_by: int | None = None

    @property
    def plausible(self) -> bool:
        """Whether it can be told: instants that UTC has, and a host in one line."""
        times = (self.claimed_at, self.heartbeat_at)
        return all(time.tzinfo is not None and 1 < time.year < 9999 for time in times) and self.host.isprintable()

    @property
    def process(self) -> Process:
        """The process that made the claim."""
        return Process(self.host, self.pid, self.process_started, self.boot_id, self.pid_namespace)

    def __str__(self) -> str:
        since = self.claimed_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        process = f"host {self.host}, pid {self.pid}"
        return f"{self.verb} is running on {process}, since {since} (run {self.run_id})"


@dataclass(frozen=True, slots=True)
class ClaimSnapshot:
    """One claim as it was found. Two equal snapshots mean that its heartbeat has not moved.

    ``file`` is null when it is empty or cut (a crash, or a creation just now); ``modified`` is the storage's.
    """

    run_id: int
    content: bytes
    modified: datetime

    @property
    def file(self) -> ClaimFile | None:
        try:
            file = msgspec.json.decode(self.content, type=ClaimFile)
        except msgspec.DecodeError:
            return None
        return file if file.run_id == self.run_id and file.plausible else None

    @property
    def over(self) -> bool:
        """Whether the run is known to be over."""
        return self.file is not None and self.file.released

    def __str__(self) -> str:
        return str(self.file or f"another run has just begun (run {self.run_id})")


@dataclass(frozen=True, slots=True)
class ClaimFolder:
    """The folder `_claims` of one lake; ``path`` without its protocol, as ``fs`` keeps it.

    Every method raises StorageError (74) or AccessDenied (77) when the storage refuses.
    """

    fs: AbstractFileSystem
    path: str

    def make(self) -> None:
        """Make the folder where folders are made; ConfigurationError (78) when the lake's root is no folder.

        Object stores have none to make, and adlfs would make a container.
        """
        root = self.path.rpartition("/")[0]
        with _storage():
            try:
                if root and self.fs.isfile(root):
                    raise ConfigurationError(_NO_FOLDER)
                if isinstance(self.fs, LocalFileSystem):
                    self.fs.makedirs(self.path, exist_ok=True)
            except (NotADirectoryError, FileExistsError) as error:
                raise ConfigurationError(_NO_FOLDER) from error

    def ids(self) -> list[int]:
        """The run ids that have a file, in order; no table could hold those that are left out."""
        ids = (int(match[1]) for match in map(_NAME.fullmatch, self._names()) if match)
        return sorted(one for one in ids if one < _MOST_RUNS)

    def read(self, run_id: int) -> ClaimSnapshot | None:
        """The claim as it stands, or null when its file is gone (deleted as an old one)."""
        with _storage():
            self._forget()
            try:
                modified = self.fs.modified(self._of(run_id))
                return ClaimSnapshot(run_id, self.fs.cat_file(self._of(run_id)), modified)
            except FileNotFoundError:
                return None

    def storage_now(self, run_id: int) -> datetime:
        """The storage's clock: the modification time of a file written just now."""
        probe = f"{self.path}/.{run_id:020d}.{uuid.uuid4().hex}"
        with _storage():
            self.fs.pipe_file(probe, b"{}")
            self._forget()
            now = self.fs.modified(probe)
            self.fs.rm_file(probe)
        if not isinstance(now, datetime):
            raise StorageError("the lake's storage gives no modification times")
        return now

    def create(self, file: ClaimFile) -> None:
        """Create the file; AnotherWriter (75) when the id is taken."""
        try:
            self._create(self._of(file.run_id), msgspec.json.encode(file))
        except (FileExistsError, StorageError) as error:
            snapshot = self.read(file.run_id)
            if snapshot is None and isinstance(error, StorageError):
                raise
            # The answer to our own creation may have been lost, and its repetition refused.
            if snapshot is None or snapshot.file is None or snapshot.file.nonce != file.nonce:
                raise another_writer(snapshot, file.run_id) from error

    def _create(self, path: str, content: bytes) -> None:
        with _storage():
            opened = self.fs.open(path, "xb")
            try:
                with opened:
                    opened.write(content)
            except OSError:
                # On a full disk only the name was made: nothing was done under it, so it may go.
                if isinstance(self.fs, LocalFileSystem):
                    self.fs.rm_file(path)
                raise

    def write(self, file: ClaimFile, writer: int) -> None:
        """Replace the file; a reader sees the old content or the new. ``writer`` is the id of who writes."""
        path, content = self._of(file.run_id), msgspec.json.encode(file)
        with _storage():
            if not isinstance(self.fs, LocalFileSystem):
                self.fs.pipe_file(path, content)
                return
            scratch = f"{self.path}/.{writer:020d}.{file.run_id}"
            self.fs.pipe_file(scratch, content)
            os.replace(scratch, path)

    def delete(self, run_id: int) -> None:
        """Delete the claim; nothing when it is gone."""
        self._remove(f"{run_id:020d}.json")

    def delete_below(self, run_id: int) -> None:
        """Delete the claims with smaller ids, and what crashed writes left beside them."""
        for name in self._names():
            match = _NAME.fullmatch(name) or _SCRATCH.fullmatch(name)
            if match and int(match[1]) < run_id:
                self._remove(name)

    def _remove(self, name: str) -> None:
        with _storage(), suppress(FileNotFoundError):
            self.fs.rm_file(f"{self.path}/{name}")

    def _of(self, run_id: int) -> str:
        return f"{self.path}/{run_id:020d}.json"

    def _names(self) -> list[str]:
        # A folder of an object store is there with its first file.
        with _storage(), suppress(FileNotFoundError):
            self._forget()
            return [str(path).rpartition("/")[2] for path in self.fs.ls(self.path, detail=False)]
        return []

    def _forget(self) -> None:
        """Object stores keep listings in a cache, modification times with them."""
        self.fs.invalidate_cache(self.path)


def another_writer(snapshot: ClaimSnapshot | None, run_id: int) -> AnotherWriter:
    """The error that says who writes and since when."""
    who = snapshot or f"another run has just begun (run {run_id})"
    return AnotherWriter(f"{who}; try again later")


@contextmanager
def _storage() -> Iterator[None]:
    """Storage errors as ours; FileExistsError stays, it is an answer."""
    try:
        yield
    except FileExistsError:
        raise
    except FAILURES as error:
        raise storage_error(error, "_claims", writing=True) from error
