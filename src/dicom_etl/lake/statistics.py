"""How many rows and files the tables of a lake have, and what their files may hold, by the statistics in their logs."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from dicom_etl.lake.snapshot import LakeSnapshot

Ranges = list[tuple[str, str]]

_STUDY_BOUNDS = ("min.studyInstanceUid", "max.studyInstanceUid")
_BEYOND = "\U0010ffff"


def shared_rows(snapshot: LakeSnapshot) -> int:
    """About how many rows those of the shared tables hold that are there."""
    return sum(pc.sum(_files(table)["num_records"]).as_py() or 0 for table in snapshot.shared().values())


def rows_within(snapshot: LakeSnapshot, ranges: Ranges) -> int:
    """About how many rows the files of the shared tables hold that may have studies in the ranges."""
    tables = snapshot.shared().values()
    return sum(rows for table in tables for rows, low, high in _extents(table) if _meets(low, high, ranges))


def most_files(snapshot: LakeSnapshot) -> int:
    """How many files the largest of the shared tables has, of those that are there."""
    return max((len(table.file_uris()) for table in snapshot.shared().values()), default=0)


def may_hold(table: DeltaTable, sequence: int) -> bool:
    """Whether a row of the table may have this sequence or a higher one."""
    files = _files(table)
    bounds = files["max.sequence"] if "max.sequence" in files.column_names else pa.nulls(files.num_rows, pa.int64())
    return any(highest is None or highest >= sequence for highest in bounds.to_pylist())


def landed_between(change: DeltaTable, above_run: int, below_run: int, besides: int | None = None) -> bool:
    """Whether ``change`` may hold entries of runs in (above_run, below_run).

    ``besides``: a sequence that does not count.
    """
    files = _files(change)
    if not files.num_rows:
        return False
    inside = pc.and_(pc.greater(files["max.runId"], above_run), pc.less(files["min.runId"], below_run))
    if besides is not None:
        alone = pc.and_(pc.equal(files["min.sequence"], besides), pc.equal(files["max.sequence"], besides))
        inside = pc.and_(inside, pc.invert(pc.fill_null(alone, False)))
    return bool(pc.any(inside).as_py())


def _files(table: DeltaTable) -> pa.Table:
    return pa.table(table.get_add_actions(flatten=True))


def _extents(table: DeltaTable) -> Iterator[tuple[int, str, str]]:
    """For each file its rows and the bounds of its study UIDs; without statistics it may hold any."""
    files = _files(table)
    nothing = pa.nulls(files.num_rows, pa.string())
    bounds = (files[name] if name in files.column_names else nothing for name in _STUDY_BOUNDS)
    columns = (column.to_pylist() for column in (files["num_records"], *bounds))
    for rows, low, high in zip(*columns, strict=True):
        yield rows or 0, low or "", _BEYOND if high is None else high


def _meets(low: str, high: str, ranges: Ranges) -> bool:
    return any(low <= last and first <= high for first, last in ranges)
