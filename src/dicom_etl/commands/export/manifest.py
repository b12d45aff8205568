"""The manifest of an export: what it holds, and what it was made from."""

from __future__ import annotations

import hashlib
import platform
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import msgspec

from dicom_etl.core.errors import DataError

NAME = "manifest.json"
FORMAT = 1
_PACKAGES = ("dicom-etl", "pyspark", "delta-spark", "pyarrow", "deltalake")
_CHUNK_BYTES = 1 << 20


class ExportedFile(msgspec.Struct, frozen=True, rename="camel"):
    """A file of the export: its path below the folder, with slashes, its size and its SHA-256 in hexadecimal."""

    path: str
    size_bytes: int
    sha256: str


class Column(msgspec.Struct, frozen=True, rename="camel"):
    """A column of the result, with Spark's name of its type."""

    name: str
    type: str


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """All of ``manifest.json``. Times are RFC 3339 in UTC; ``rows_digest`` is that of ``rows.RowsDigest``."""

    manifest_format: int
    statement: str
    lake_id: str
    run_id: int
    run_finished_at: str
    versions: dict[str, int]
    exported_at: str
    columns: list[Column]
    row_count: int
    rows_digest: str
    result: ExportedFile
    files: list[ExportedFile]
    software: dict[str, str]

    def encoded(self) -> bytes:
        """The text of the file, indented."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    def sha256(self) -> str:
        """The SHA-256 of the file in hexadecimal: who has written it down elsewhere knows the manifest again."""
        return hashlib.sha256(self.encoded()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an export. Raises DataError when there is none, or it is none that this version reads."""
    try:
        manifest = msgspec.json.decode((folder / NAME).read_bytes(), type=Manifest)
    except OSError as error:
        raise DataError(f"--verify: the folder has no {NAME} that can be read: name the folder of an export") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(f"--verify: {NAME} is not one of dicom-etl export: was it changed?") from error
    if manifest.manifest_format != FORMAT:
        raise DataError(f"--verify: {NAME} was written by a newer version: upgrade dicom-etl")
    if not all(_within(one.path) for one in (manifest.result, *manifest.files)):
        raise DataError(f"--verify: {NAME} names a file outside its folder: it is not followed")
    return manifest


def manifest_sha256(folder: Path) -> str:
    """The SHA-256 of the manifest as it lies there, in hexadecimal. Raises DataError as ``read_manifest``."""
    try:
        with (folder / NAME).open("rb") as file:
            return copied(file, NAME).sha256
    except OSError as error:
        raise DataError(f"--verify: the folder has no {NAME} that can be read: name the folder of an export") from error


def software() -> dict[str, str]:
    """The versions of Python and of the packages that decide what a statement gives."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # a cluster brings its own
            continue
    return versions


def copied(source: BinaryIO, path: str, sink: BinaryIO | None = None) -> ExportedFile:
    """What ``source`` holds, as a manifest says it; written to ``sink`` when there is one."""
    size, hashed = 0, hashlib.sha256()
    while chunk := source.read(_CHUNK_BYTES):
        size += len(chunk)
        hashed.update(chunk)
        if sink is not None:
            sink.write(chunk)
    return ExportedFile(path, size, hashed.hexdigest())


def _within(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and parts[0] != "/" and ".." not in parts and "\0" not in path
