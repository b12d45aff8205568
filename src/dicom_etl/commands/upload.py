"""Uploads DICOM files to the service by STOW-RS, one outcome per file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_etl.core.errors import UsageError
from dicom_etl.core.settings.model import Settings
from dicom_etl.dicomweb.connect import connect
from dicom_etl.dicomweb.store import StoreResult, store
from dicom_etl.remote.identity import dicom_tokens

_PREAMBLE = 128


@dataclass(frozen=True, slots=True)
class Uploaded:
    """One file and what the service said to it."""

    path: Path
    outcome: StoreResult

    def as_row(self) -> dict[str, Any]:
        """By name, as a command prints it."""
        return {"path": str(self.path), "outcome": self.outcome.kind, "reason": self.outcome.reason}


def upload(settings: Settings, paths: Iterable[Path], *, partition: str | None = None) -> Iterator[Uploaded]:
    """Each file with its outcome, in order; several are under way at once.

    A folder stands for the DICOM files below it. Raises UsageError when a path is not there or no file is found.
    """
    files = dicom_files(paths)
    with connect(settings.dicom, dicom_tokens(settings.dicom)) as client:
        pool = ThreadPoolExecutor(settings.dicom.connections)
        outcomes = pool.map(lambda file: store(client, file.read_bytes(), partition=partition), files)
        try:
            yield from (Uploaded(file, outcome) for file, outcome in zip(files, outcomes, strict=True))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def dicom_files(paths: Iterable[Path]) -> list[Path]:
    """The files to upload: those named, and below folders those that are DICOM by their content or ending."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(p for p in path.rglob("*") if p.is_file() and _looks_like_dicom(p))
        elif path.is_file():
            files.append(path)
        else:
            raise UsageError(f"{path}: no such file or folder; nothing was stored")
    if not files:
        raise UsageError("no DICOM files found in the given folders; nothing was stored")
    return files


def _looks_like_dicom(path: Path) -> bool:
    """PS3.10 §7.1: "DICM" after the preamble. Older files have none; those go by their ending."""
    try:
        with path.open("rb") as file:
            head = file.read(_PREAMBLE + 4)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}; nothing was stored") from error
    return head[_PREAMBLE:] == b"DICM" or path.suffix.lower() in (".dcm", ".dicom")
