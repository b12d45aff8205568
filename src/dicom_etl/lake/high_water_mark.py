"""The entry with the highest sequence that was ever landed (design/architecture.md: Identity of a lake)."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from dicom_etl.lake.delta.table import read_rows

_COLUMNS = ("sequence", "timestampTicks", "runId")


def highest_landed(change: DeltaTable, *, since_run: int = 0) -> tuple[int, int] | None:
    """The highest sequence in ``change`` and its time in ticks of 100 ns since 1970; None when it is empty.

    ``since_run``: of what this run and later ones have read. Found from the bounds in the log: three columns of one
    file are read, not the table. (A file whose log entry has no bounds, written by somebody else, makes it a scan of
    these columns; files that join older runs with newer ones are looked into, the highest first.) Raises as
    ``read_rows`` does.
    """
    files = pa.table(change.get_add_actions(flatten=True))
    if not files.num_rows:
        return None
    later = pc.field("runId") >= since_run
    if not {"max.sequence", "max.runId"} <= set(files.column_names) or files["max.sequence"].null_count:
        return _last(read_rows(change, _COLUMNS, later))
    bounds = files.filter(pc.greater_equal(pc.fill_null(files["max.runId"], since_run), since_run))["max.sequence"]
    for bound in sorted(set(bounds.to_pylist()), reverse=True):
        if highest := _last(read_rows(change, _COLUMNS, later & (pc.field("sequence") >= bound))):
            return highest
    return _last(read_rows(change, _COLUMNS, later))


def _last(rows: pa.Table) -> tuple[int, int] | None:
    """The highest sequence; where several runs have read it, what the last of them read."""
    if not rows.num_rows:
        return None
    last = rows.sort_by([("sequence", "descending"), ("runId", "descending")]).slice(0, 1)
    return last["sequence"][0].as_py(), last["timestampTicks"][0].as_py()
