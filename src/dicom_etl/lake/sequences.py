"""The sequences that runs have landed, by the time of their entries (design/architecture.md: Late rows)."""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from dicom_etl.core.timerange import Window
from dicom_etl.lake.delta.table import read_rows


def landed_sequences(change: DeltaTable, runs: Collection[int], window: Window) -> set[int]:
    """The sequences of ``window`` that one of ``runs`` landed.

    Only files of these runs are opened: the log bounds run ids and sequences, not times. Raises as
    ``read_rows`` does.
    """
    if not runs:
        return set()
    run_id, ticks = pc.field("runId"), pc.field("timestampTicks")
    theirs = (run_id >= min(runs)) & (run_id <= max(runs)) & run_id.isin(pa.array(sorted(runs), pa.int64()))
    rows = read_rows(change, ["sequence"], theirs & (ticks >= window.start) & (ticks < window.end))
    return set(rows["sequence"].to_pylist())
