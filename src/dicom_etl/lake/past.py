"""The shared tables as one run left them: which run, at which versions, and whether these can still be read.

design/architecture.md: Coverage and the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Self
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable

from dicom_etl.core.clock import utc_now
from dicom_etl.core.errors import DataError, UsageError
from dicom_etl.core.timerange import format_instant, from_datetime, parse_instant
from dicom_etl.lake.delta.errors import FAILURES, storage_error
from dicom_etl.lake.delta.table import txn_version
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.snapshot import Lake, LakeSnapshot

Clock = Callable[[], datetime]
SHARED = ("instance", "series", "study")


@dataclass(frozen=True, slots=True)
class When:
    """A moment of the lake: a run by its id, or the last one that had succeeded by a time (ticks)."""

    run_id: int | None = None
    as_of: int | None = None

    @classmethod
    def parsed(cls, text: str, option: str, clock: Clock = utc_now) -> Self:
        """A run's number, or RFC 3339 with a zone, not after now.

        Raises UsageError, which names ``option``, for anything else.
        """
        if text.isascii() and text.isdigit():
            return cls(run_id=int(text))
        return cls(as_of=_past_instant(text, option, clock))

    @classmethod
    def either(cls, run_id: int | None, as_of: str | None, clock: Clock = utc_now) -> Self | None:
        """What ``--run`` and ``--as-of`` say; None without both.

        Raises UsageError for both, or a time that is none or to come.
        """
        if run_id is not None and as_of is not None:
            raise UsageError("--run and --as-of: give one of them")
        if as_of is not None:
            return cls(as_of=_past_instant(as_of, "--as-of", clock))
        return None if run_id is None else cls(run_id=run_id)


def run_at(runs: Iterable[Run], when: When) -> Run:
    """The run that ``when`` names; of a time the run with the highest id among those that had succeeded by then.

    By id and not by the time it ended: ids grow from run to run, also where a clock is put back. Raises UsageError when
    there is none, or it has not succeeded; DataError when it recorded no versions.
    """
    if when.run_id is None:
        return _as_of(runs, when.as_of or 0)
    run = next((one for one in runs if one.run_id == when.run_id), None)
    if run is None:
        raise UsageError(f"there is no run {when.run_id} in the ledger: dicom-etl runs lists them")
    if run.status != "succeeded":
        raise UsageError(
            f"run {run.run_id} has not succeeded ({run.status}), so no versions of the tables fit each other after "
            "it: name one that has (dicom-etl runs)"
        )
    if not _has_versions(run):
        raise DataError(f"run {run.run_id} recorded no versions: there were no tables yet; name a later one")
    return run


def last_run(runs: Iterable[Run]) -> Run:
    """The last run that succeeded. Raises DataError when there is none."""
    last = max((run for run in runs if _usable(run)), key=lambda run: run.run_id, default=None)
    if last is None:
        raise DataError("no run has finished here yet: run dicom-etl sync")
    return last


def versions(run: Run) -> dict[str, int]:
    """The versions of the shared tables that the run recorded, by table."""
    return {name: int(getattr(run, f"{name}_version")) for name in SHARED}


def table_at(snapshot: LakeSnapshot, run: Run, name: str) -> DeltaTable:
    """One of the shared tables as ``run`` left it.

    Raises DataError when its log does not reach back so far, StorageError or AccessDenied when it cannot be read.
    """
    return version_of(snapshot.lake, name, versions(run)[name], run)


def version_of(lake: Lake, name: str, version: int, run: Run) -> DeltaTable:
    """A table of the lake at a version, which is that of ``run``. Raises as ``table_at`` does."""
    path = lake.path(name)
    try:
        return DeltaTable(path, version=version, storage_options=lake.storage.delta(path))
    except FAILURES as error:
        named = storage_error(error, name)
        raise (gone(run) if isinstance(named, DataError) else named) from error


def gone(run: Run) -> DataError:
    """That the tables of this run cannot be read any more."""
    return DataError(
        f"the tables as run {run.run_id} left them are gone: maintain removes files that no version of the last "
        "maintenance.retention_hours needs; name a later run, or take an export of that time"
    )


def readable(snapshot: LakeSnapshot, run: Run, *names: str) -> bool:
    """Whether these shared tables, or all, still have all files of the versions that ``run`` recorded.

    Raises DataError when such a version is another's: the table was made again since, or its log was put back.
    """
    return all(_readable(snapshot, run, name, versions(run)[name]) for name in names or SHARED)


def _readable(snapshot: LakeSnapshot, run: Run, name: str, version: int) -> bool:
    lake = snapshot.lake
    path = lake.path(name)
    if version > snapshot.version(name):
        raise _another(name, run)
    try:
        table = DeltaTable(path, version=version, storage_options=lake.storage.delta(path))
        wanted = pa.table(table.get_add_actions())["path"].to_pylist()
        filesystem, folder = lake.storage.filesystem(path)
        there = {str(file).removeprefix(f"{folder.rstrip('/')}/") for file in filesystem.find(folder)}
    except FAILURES as error:
        named = storage_error(error, name)
        if isinstance(named, DataError):  # the log does not reach back to it
            return False
        raise named from error
    if txn_version(table, lake.app_id(name)) > run.run_id:
        raise _another(name, run)
    return all(one in there or unquote(one) in there for one in wanted)


def _another(name: str, run: Run) -> DataError:
    return DataError(
        f"the table {name} has another history than run {run.run_id} recorded: was it restored from a backup? Name a "
        "later run"
    )


def _as_of(runs: Iterable[Run], ticks: int) -> Run:
    usable = [run for run in runs if _usable(run)]
    ended = [run for run in usable if from_datetime(run.finished_at) <= ticks]
    if not ended:
        first = min((from_datetime(run.finished_at) for run in usable), default=None)
        found = "none has yet" if first is None else f"the first ended at {format_instant(first)}"
        raise UsageError(f"--as-of: no run had succeeded by then: {found}; dicom-etl runs lists them")
    return max(ended, key=lambda run: run.run_id)


def _usable(run: Run) -> bool:
    return run.status == "succeeded" and _has_versions(run)


def _has_versions(run: Run) -> bool:
    return all(getattr(run, f"{name}_version") is not None for name in SHARED)


def _past_instant(text: str, option: str, clock: Clock) -> int:
    try:
        ticks = parse_instant(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error
    # A run that ends later would change what the same words give.
    if ticks > from_datetime(clock()):
        raise UsageError(f"{option}: this time is still to come: name one that has passed, or a run")
    return ticks
