"""What a run has committed that did not succeed: from the tables' markers and logs, without Spark.

design/architecture.md: Dead runs.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from dicom_etl.lake.delta.table import history, read_rows
from dicom_etl.lake.ledger import READING_VERBS
from dicom_etl.lake.snapshot import LakeSnapshot

# No run has committed since; what joins files (OPTIMIZE) carries no marker and may lie above.
_NEWEST_COMMITS = 20


def committed(snapshot: LakeSnapshot, run_id: int, verb: str) -> dict[str, Any]:
    """The counts of a run, as fields of its row: what its commit of ``instance`` did; none when it made none.

    As the snapshot's tables are, so before a newer run has committed. *read = inserted + updated + deleted +
    superseded + rejected* holds: read is what it landed, and no less than the rows that it changed; rejected are the
    rejects that it has recorded; superseded is the rest. Raises as ``history`` does.
    """
    landed = snapshot.txn_version("change") == run_id
    fields: dict[str, Any] = {"change_version": snapshot.version("change")} if landed else {}
    if verb not in READING_VERBS or snapshot.txn_version("instance") != run_id:
        return fields
    version, counts = _merge_of(snapshot.table("instance"))
    changed = sum(counts.values())
    rejected = _rejects(snapshot.table("rejected"), run_id) if snapshot.txn_version("rejected") == run_id else 0
    read = max(_entries(snapshot.table("change"), run_id) if landed else 0, changed + rejected)
    superseded = read - changed - rejected
    return {
        **fields,
        **counts,
        "entries_read": read,
        "rejected": rejected,
        "superseded": superseded,
        "instance_version": version,
    }


def _merge_of(instance: DeltaTable) -> tuple[int | None, dict[str, int]]:
    """The newest version that a run made, and the rows that it inserted, updated and deleted.

    A rebuild swaps the whole table: all its rows count as inserted, and those that went are not known.
    """
    for commit in history(instance, _NEWEST_COMMITS):
        metrics = commit.get("operationMetrics") or {}
        if commit.get("operation") == "MERGE":
            names = {"inserted": "Inserted", "updated": "Updated", "deleted": "Deleted"}
            return commit["version"], {
                name: int(metrics.get(f"numTargetRows{key}") or 0) for name, key in names.items()
            }
        if "REPLACE TABLE" in str(commit.get("operation")):
            return commit["version"], {"inserted": int(metrics.get("numOutputRows") or 0), "updated": 0, "deleted": 0}
    return None, {}


def _entries(change: DeltaTable, run_id: int) -> int:
    """How many entries of a run's landing ``change`` holds, by the statistics in its log: a run has its own files."""
    files = pa.table(change.get_add_actions(flatten=True))
    if not {"min.runId", "max.runId"} <= set(files.column_names):
        return 0
    own = pc.and_(pc.equal(files["min.runId"], run_id), pc.equal(files["max.runId"], run_id))
    return int(pc.sum(files.filter(pc.fill_null(own, False))["num_records"]).as_py() or 0)


def _rejects(rejected: DeltaTable, run_id: int) -> int:
    """How many rejects a run has recorded as open."""
    opened = (pc.field("runId") == run_id) & (pc.field("status") == "open")
    return int(read_rows(rejected, ("runId",), opened).num_rows)
