"""The entry with the highest sequence that was ever landed (architecture §4, §5.10)."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from dicom_etl.deltalog import read_rows

_COLUMNS = ("sequence", "timestampTicks", "runId")


def highest_landed(change: DeltaTable) -> tuple[int, int] | None:
    """The highest sequence in ``change`` and its time in ticks of 100 ns since 1970; None when it is empty.

    Found from the bounds in the log: three columns of one file are read, not the table. (A file whose log
    entry has no bounds, written by somebody else, makes it a scan of these columns.) Raises as
    ``deltalog.read_rows`` does.
    """
    files = pa.table(change.get_add_actions(flatten=True))
    if not files.num_rows:
        return None
    bounds = files["max.sequence"] if "max.sequence" in files.column_names else None
    bounded = bounds is not None and not bounds.null_count
    return _last(read_rows(change, _COLUMNS, pc.field("sequence") == pc.max(bounds) if bounded else None))


def _last(rows: pa.Table) -> tuple[int, int] | None:
    """The highest sequence; where several runs have read it, what the last of them read."""
    if not rows.num_rows:
        return None
    last = rows.sort_by([("sequence", "descending"), ("runId", "descending")]).slice(0, 1)
    return last["sequence"][0].as_py(), last["timestampTicks"][0].as_py()
