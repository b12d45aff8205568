"""The sequence numbers that runs have landed, with their times (architecture §5.10)."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from dicom_etl.deltalog import read_rows

NUMBERS = pa.schema([("sequence", pa.int64()), ("timestampTicks", pa.int64())])


def lowest_later_than(change: DeltaTable, runs: Collection[int], ticks: int) -> int | None:
    """The lowest sequence that one of ``runs`` landed with a time later than ``ticks``; None when there is none.

    Only files of these runs are opened.
    """
    if not runs:
        return None
    theirs = (pc.field("runId") >= min(runs)) & (pc.field("runId") <= max(runs)) & _landed_by(runs)
    rows = read_rows(change, ["sequence"], theirs & (pc.field("timestampTicks") > ticks))
    lowest: int | None = pc.min(rows["sequence"]).as_py()
    return lowest


def numbers_from(change: DeltaTable, runs: Collection[int], lowest: int | None) -> pa.Table:
    """``sequence`` and ``timestampTicks`` of what ``runs`` landed: from ``lowest`` on, and the last one below it.

    With ``lowest`` None: the highest of all. One row for each time that a sequence was landed, in any order.
    Files are skipped by the bounds of their sequences; memory holds two numbers a row.
    """
    theirs = _landed_by(runs)
    below = _highest_below(change, theirs, lowest)
    if lowest is None:
        return below
    return pa.concat_tables([below, read_rows(change, NUMBERS.names, theirs & (pc.field("sequence") >= lowest))])


def _landed_by(runs: Collection[int]) -> pc.Expression:
    return pc.field("runId").isin(pa.array(sorted(runs), pa.int64()))


def _highest_below(change: DeltaTable, theirs: pc.Expression, lowest: int | None) -> pa.Table:
    """The row of the highest sequence below ``lowest``, if any.

    Found from the files' bounds, downwards: a file may hold nothing but what other runs landed.
    """
    for floor in _floors(change, lowest):
        within = pc.field("sequence") >= floor
        if lowest is not None:
            within &= pc.field("sequence") < lowest
        rows = read_rows(change, NUMBERS.names, theirs & within)
        if rows.num_rows:
            return rows.sort_by([("sequence", "descending")]).slice(0, 1)
    return NUMBERS.empty_table()


def _floors(change: DeltaTable, lowest: int | None) -> list[int]:
    """From where to look, highest first; 0 last, when not every file has bounds."""
    files = pa.table(change.get_add_actions(flatten=True))
    if not files.num_rows or "max.sequence" not in files.column_names:
        return [0] if files.num_rows else []
    floors: set[int] = set()
    for first, last in zip(files["min.sequence"].to_pylist(), files["max.sequence"].to_pylist(), strict=True):
        if first is None or last is None:
            floors.add(0)
        else:
            floors.update(bound for bound in (first, last) if lowest is None or bound < lowest)
    return sorted(floors, reverse=True)
