"""Compares an export with its manifest, and, where the lake can be reached, with the lake."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pyarrow.lib import ArrowException
from pyspark.sql import SparkSession

from dicom_etl.commands.export.manifest import NAME, ExportedFile, Manifest, copied, manifest_sha256, read_manifest
from dicom_etl.commands.export.rows import RowsDigest, count_csv, listed
from dicom_etl.commands.query import open_tables
from dicom_etl.commands.verify.row_files import batches, read_batches
from dicom_etl.commands.verify.scratch import scratch
from dicom_etl.core.errors import (
    AccessDenied,
    ConfigurationError,
    DataError,
    StorageError,
    TemporaryError,
    UsageError,
)
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake.delta.errors import storage_errors
from dicom_etl.lake.open import existing_lake
from dicom_etl.lake.past import When, readable, run_at, versions

Versions = Literal["readable", "gone", "not reachable", "another lake"]
Rows = Literal["equal", "different", "not compared"]


@dataclass(frozen=True, slots=True)
class Check:
    """What an export still equals.

    The lists hold paths below its folder: files that are as the manifest says, that are not, that lack, and that it
    does not name. ``versions``: whether the lake still has what the result was made from. ``rows``: whether the
    statement gives the same rows of these versions, in any order. ``manifest_sha256`` is that of the manifest itself,
    which nothing in the folder vouches for.
    """

    equal: list[str]
    changed: list[str]
    missing: list[str]
    unexpected: list[str]
    versions: Versions
    rows: Rows
    statement: str
    manifest_sha256: str

    @property
    def differs(self) -> bool:
        """Whether something is other than it was; what could not be compared does not count."""
        return bool(self.changed or self.missing or self.unexpected) or self.rows == "different"

    def as_row(self) -> dict[str, Any]:
        """By name, as a command prints it: of files that are equal their number."""
        return {
            "equalFiles": len(self.equal),
            "changedFiles": self.changed,
            "missingFiles": self.missing,
            "unexpectedFiles": self.unexpected,
            "versions": self.versions,
            "rows": self.rows,
            "statement": self.statement,
            "manifestSha256": self.manifest_sha256,
        }


def check_export(settings: Settings | None, folder: Path, *, spark: SparkSession | None = None) -> Check:
    """What of the export in ``folder`` is still equal; without ``settings`` the lake is not asked.

    Raises DataError when the folder has no manifest that can be read, StorageError when a file of it cannot.
    """
    manifest = read_manifest(folder)
    files: dict[str, list[str]] = {"equal": [], "changed": [], "missing": []}
    named = [manifest.result, *manifest.files]
    for one in named:
        files[_state(folder, one)].append(one.path)
    if manifest.result.path in files["equal"] and not _as_counted(folder, manifest):
        files["equal"].remove(manifest.result.path)
        files["changed"].insert(0, manifest.result.path)
    # A link to a folder is none of ours, whatever lies behind it.
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    there = {path.relative_to(folder).as_posix() for path in found}
    unexpected = sorted(there - {NAME, *(one.path for one in named)})
    readability = "not reachable" if settings is None else _versions(settings, manifest)
    same: Rows = "not compared"
    if settings is not None and readability == "readable":
        same = "equal" if _same_rows(settings, manifest, spark) else "different"
    return Check(
        **files,
        unexpected=unexpected,
        versions=readability,
        rows=same,
        statement=manifest.statement,
        manifest_sha256=manifest_sha256(folder),
    )


def _state(folder: Path, wanted: ExportedFile) -> str:
    path = folder / wanted.path
    if not path.is_file():
        return "missing"
    with storage_errors("export"), path.open("rb") as file:
        return "equal" if copied(file, wanted.path) == wanted else "changed"


def _as_counted(folder: Path, manifest: Manifest) -> bool:
    """Whether the result has the manifest's number of rows, and of Parquet their digest.

    A CSV has lost the types of the values, so that only its rows can be counted.
    """
    path = folder / manifest.result.path
    if path.suffix == ".csv":
        with storage_errors("export"), path.open("rb") as file:
            return count_csv(file) == manifest.row_count
    digest = RowsDigest()
    try:
        with path.open("rb") as file:
            for batch in read_batches(file):
                digest.add(listed(batch))
    except (OSError, ArrowException):
        return False
    return _agrees(digest, manifest)


def _agrees(digest: RowsDigest, manifest: Manifest) -> bool:
    return (digest.count, digest.hexdigest()) == (manifest.row_count, manifest.rows_digest)


def _versions(settings: Settings, manifest: Manifest) -> Versions:
    """Whether the lake of the settings is the export's, and still has the versions of its run."""
    try:
        snapshot = existing_lake(settings, private=False)
    except (ConfigurationError, StorageError, AccessDenied, TemporaryError):
        return "not reachable"
    if str(snapshot.lake.identity.lake_id) != manifest.lake_id:
        return "another lake"
    try:
        run = run_at(snapshot.runs(), When(run_id=manifest.run_id))
        return "readable" if versions(run) == manifest.versions and readable(snapshot, run) else "gone"
    except (UsageError, DataError):  # a ledger or a table that was put back does not know of it
        return "gone"


def _same_rows(settings: Settings, manifest: Manifest, spark: SparkSession | None) -> bool:
    digest = RowsDigest()
    known = existing_lake(settings, private=False)
    with (
        # Around the tables: a JVM of our own still writes into it until they are closed.
        scratch(known.lake.paths, spark) as spill,
        open_tables(settings, When(run_id=manifest.run_id), spark=spark) as tables,
        tables.answer(manifest.statement) as rows,
    ):
        for batch in batches(spill, rows):
            digest.add(listed(batch))
    return _agrees(digest, manifest)
