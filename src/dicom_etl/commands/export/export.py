"""Writes a result, its manifest and its DICOM files into a folder, all or nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

from dicom_etl.commands.export.files import copy_files
from dicom_etl.commands.export.manifest import FORMAT, NAME, Column, ExportedFile, Manifest, copied, software
from dicom_etl.commands.export.rows import RowsDigest, RowsFormat, batches, listed, writer
from dicom_etl.commands.query import OpenTables, open_tables
from dicom_etl.commands.verify.scratch import Scratch, scratch
from dicom_etl.core.clock import utc_now
from dicom_etl.core.errors import UsageError
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import format_instant, from_datetime
from dicom_etl.lake.delta.errors import storage_errors
from dicom_etl.lake.delta.folder import local_folder, sync_to_disk
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.open import existing_lake
from dicom_etl.lake.past import When, last_run, run_at, versions
from dicom_etl.remote.uri import is_remote

_PATH = "filePath"


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export: the statement, where to, and ``when`` (None: as the last run that succeeded left the tables)."""

    sql: str
    to: str
    rows_format: RowsFormat = "parquet"
    with_files: bool = False
    when: When | None = None


def export(
    settings: Settings,
    request: ExportRequest,
    *,
    spark: SparkSession | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> Manifest:
    """What was written: the result as one file, the DICOM files that it names, and the manifest.

    The folder appears when all of it is written. Raises UsageError for a folder that is not empty, or a statement
    without filePath where files are wanted; DataError when a file is not there any more; else as ``query.answer``.
    """
    folder = _target(request.to)
    runs = existing_lake(settings, private=False).runs()
    run = last_run(runs) if request.when is None else run_at(runs, request.when)
    with (
        open_tables(settings, When(run_id=run.run_id), spark=spark) as tables,
        _appearing(folder) as new,
        scratch(tables.snapshot.lake.paths, spark) as spill,
        tables.answer(request.sql) as rows,
    ):
        if request.with_files and _PATH not in rows.columns:
            raise UsageError(f"--files: the statement must give the column {_PATH}, which names the files")
        written = _write_rows(rows, spill, new, request)
        files = copy_files(written.paths, settings, new) if request.with_files else []
        manifest = _manifest(request, run, tables, written, files, _text(clock()))
        with local_folder(str(new), private=True).create(NAME) as sink:
            sink.write(manifest.encoded())
            sync_to_disk(sink)
    return manifest


def _target(text: str) -> Path:
    if is_remote(text):
        raise UsageError("--to: name a folder of this machine")
    folder = Path(text).expanduser().resolve()
    if folder.exists() and not folder.is_dir():
        raise UsageError("--to: a file has this name: name a new folder, or an empty one")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError("--to: the folder is not empty: name a new one, or an empty one")
    return folder


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A new folder beside ``folder``, for this user only, which takes its name when the block has ended well."""
    with storage_errors("export"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))  # 0700
    try:
        yield new
        with storage_errors("export"):
            os.rename(new, folder)  # over an empty folder, too
    finally:
        with suppress(OSError):
            shutil.rmtree(new)


@dataclass(frozen=True, slots=True)
class _Written:
    """The file of the rows, their columns and digest, and the DICOM files that they name."""

    file: ExportedFile
    columns: list[Column]
    digest: RowsDigest
    paths: set[str]


def _write_rows(rows: DataFrame, spill: Scratch, folder: Path, request: ExportRequest) -> _Written:
    name, digest = f"rows.{request.rows_format}", RowsDigest()
    paths: set[str] = set()
    given = batches(spill, rows)
    first = next(given)
    with storage_errors("export"), local_folder(str(folder), private=True).create(name) as sink:
        with writer(request.rows_format, sink, first.schema) as written:
            for batch in given:
                values = listed(batch)
                digest.add(values)
                written.write(batch, values)
                if request.with_files:
                    paths.update(path for path in batch.column(_PATH).to_pylist() if path)
        sync_to_disk(sink)
    with (folder / name).open("rb") as file:
        return _Written(copied(file, name), [Column(*one) for one in rows.dtypes], digest, paths)


def _manifest(
    request: ExportRequest, run: Run, tables: OpenTables, written: _Written, files: list[ExportedFile], now: str
) -> Manifest:
    return Manifest(
        manifest_format=FORMAT,
        statement=request.sql,
        lake_id=str(tables.snapshot.lake.identity.lake_id),
        run_id=run.run_id,
        run_finished_at=_text(run.finished_at),
        versions=versions(run),
        exported_at=now,
        columns=written.columns,
        row_count=written.digest.count,
        rows_digest=written.digest.hexdigest(),
        result=written.file,
        files=files,
        software={**software(), "spark": tables.session.version},
    )


def _text(moment: datetime) -> str:
    return format_instant(from_datetime(moment))
