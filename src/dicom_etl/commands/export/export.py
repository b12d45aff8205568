"""Writes a result, its manifest and its DICOM files into a folder, all or nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

from dicom_etl.commands.export.files import copy_files
from dicom_etl.commands.export.manifest import FORMAT, NAME, Column, ExportedFile, Manifest, copied, software
from dicom_etl.commands.export.rows import RowsDigest, RowsFormat, listed, writer
from dicom_etl.commands.query import OpenTables, open_tables
from dicom_etl.commands.verify.row_files import batches
from dicom_etl.commands.verify.scratch import Scratch, scratch
from dicom_etl.core.clock import utc_now
from dicom_etl.core.errors import DataError, UsageError
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import format_instant, from_datetime
from dicom_etl.lake.delta.errors import storage_errors
from dicom_etl.lake.delta.folder import local_folder, sync_to_disk
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.open import existing_lake
from dicom_etl.lake.past import When, last_run, run_at, versions

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
    without filePath where files are wanted; DataError when a file is not there any more or a row names none; else as
    ``query.answer``.
    """
    folder = target(request.to)
    known = existing_lake(settings, private=False)
    runs = known.runs()
    run = last_run(runs) if request.when is None else run_at(runs, request.when)
    with (
        appearing(folder) as new,
        # Around the tables: a JVM of our own still writes into it until they are closed.
        scratch(known.lake.paths, spark, new) as spill,
        open_tables(settings, When(run_id=run.run_id), spark=spark) as tables,
        tables.answer(request.sql) as rows,
    ):
        if request.with_files:
            refuse_without_paths(rows.dtypes)
        written = _write_rows(rows, spill, new, request)
        files = copy_files(written.paths, settings, new) if request.with_files else []
        manifest = _manifest(request, run, tables, written, files, _text(clock()))
        with local_folder(str(new), private=True).create(NAME) as sink:
            sink.write(manifest.encoded())
            sync_to_disk(sink)
    return manifest


def refuse_without_paths(columns: Iterable[tuple[str, str]]) -> None:
    """Raise UsageError unless filePath is among these columns (name and Spark's type), once and as text."""
    kinds = [kind for name, kind in columns if name == _PATH]
    if len(kinds) != 1 or not kinds[0].startswith(("string", "varchar", "char")):
        raise UsageError(f"--files: the statement must give the column {_PATH} once and as text: it names the files")


def target(text: str) -> Path:
    """The folder that ``--to`` names. Raises UsageError for one that is not empty, a file, or an address."""
    if "://" in text:
        raise UsageError("--to: name a folder of this machine by its path")
    folder = Path(text).expanduser().resolve()
    if folder.exists() and not folder.is_dir():
        raise UsageError("--to: a file has this name: name a new folder, or an empty one")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError("--to: the folder is not empty: name a new one, or an empty one")
    return folder


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """A new folder, for this user only, whose content is ``folder``'s when the block has ended well.

    It lies beside ``folder`` and takes its name; in one that is there already, which may be a disk of its own or in a
    parent where this user may not write, it lies inside, and what it holds moves up.
    """
    there = folder.is_dir()
    with storage_errors("export"):
        if there:
            new = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))  # 0700
        else:
            folder.parent.mkdir(parents=True, exist_ok=True)
            new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield new
        with storage_errors("export"):
            if there:
                _move_up(new, folder)
            else:
                os.rename(new, folder)
    finally:
        with suppress(OSError):
            shutil.rmtree(new)


def _move_up(new: Path, folder: Path) -> None:
    """Move all of ``new`` into ``folder``, the manifest last: without it a folder is no export."""
    moved: list[Path] = []
    with suppress(PermissionError):  # somebody else's folder: the files themselves are 0600
        folder.chmod(0o700)
    try:
        for item in sorted(new.iterdir(), key=lambda one: one.name == NAME):
            moved.append(item.rename(folder / item.name))
    except BaseException:
        for item in moved:  # back to where all of it is removed
            with suppress(OSError):
                item.rename(new / item.name)
        raise


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
    without = 0
    given = batches(spill, rows)
    first = next(given)
    with storage_errors("export"), local_folder(str(folder), private=True).create(name) as sink:
        with writer(request.rows_format, sink, first.schema) as written:
            for batch in given:
                values = listed(batch)
                digest.add(values)
                written.write(batch, values)
                if request.with_files:
                    named = [path for path in batch.column(_PATH).to_pylist() if path]
                    paths.update(named)
                    without += batch.num_rows - len(named)
        sync_to_disk(sink)
    if without:
        raise DataError(
            f"{without} of {digest.count} rows have no {_PATH}: add WHERE {_PATH} IS NOT NULL (and {_PATH} <> ''), or "
            "export without --files"
        )
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
