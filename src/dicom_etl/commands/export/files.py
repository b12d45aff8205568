"""Copies the DICOM files of a result below the export."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import BinaryIO

from dicom_etl.commands.export.manifest import ExportedFile, copied
from dicom_etl.core.errors import DataError
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake.delta.errors import storage_errors
from dicom_etl.lake.delta.folder import local_folder, sync_to_disk
from dicom_etl.outputs.dicom_file import files_storage, recorded_file

FOLDER = "files"
# What is there and was not copied, since another file is not.
_FOUND = ExportedFile("", 0, "")


def copy_files(paths: Iterable[str], settings: Settings, folder: Path) -> list[ExportedFile]:
    """Copy each file that a filePath names into ``folder``/files, under its recorded path; in the order of the paths.

    Raises DataError when any of them is not there any more, with how many, or leads out of files.root; AccessDenied
    when this identity may not read them, StorageError when the storage fails. From the first one that is not there on
    nothing more is copied, and the others are only looked for.
    """
    filesystem_of = files_storage(settings).filesystem
    gone = Event()

    def copy_one(path: str) -> ExportedFile | None:
        source = recorded_file(path, settings, filesystem_of)
        if source is None:
            gone.set()
            return None
        with source:
            return _FOUND if gone.is_set() else _copy(source, folder, f"{FOLDER}/{path}")

    with ThreadPoolExecutor(settings.dicom.connections, thread_name_prefix="export") as pool:
        copies = list(pool.map(copy_one, sorted(set(paths))))
    if missing := copies.count(None):
        raise DataError(
            f"{missing} of {len(copies)} files are not there: their instances were updated or deleted after that run; "
            "export a later run, or without --files"
        )
    return [one for one in copies if one is not None]


def _copy(source: BinaryIO, folder: Path, name: str) -> ExportedFile:
    with storage_errors(FOLDER):
        parent = (folder / name).parent
        for missing in reversed([one for one in (parent, *parent.parents) if not one.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        with local_folder(str(folder), private=True).create(name) as sink:
            entry = copied(source, name, sink)
            sync_to_disk(sink)
        return entry
