"""The table ``rejected``: what could not be merged, and what became of it (design/architecture.md: Rejects)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa
from deltalake import DeltaTable

from dicom_etl.core.entry import InvalidEntry
from dicom_etl.core.timerange import to_datetime
from dicom_etl.lake.change_schema import TIMESTAMP
from dicom_etl.lake.delta.commit import append_rows
from dicom_etl.lake.delta.folder import TableFolder
from dicom_etl.lake.delta.table import STATISTICS_PROPERTY, add_text_column, read_rows

Status = Literal["open", "resolved", "void"]

REJECTED_PROPERTIES: dict[str, str] = {STATISTICS_PROPERTY: "runId,sequence"}


# Why an operator closed a reject; the column comes into a table with the first such text.
WHY = "why"


def rejected_schema() -> pa.Schema:
    """One row per reject and run that learned something of it; key runId, sequence."""
    return pa.schema(
        [
            ("runId", pa.int64()),
            ("sequence", pa.int64()),
            ("timestamp", TIMESTAMP),
            ("partitionName", pa.string()),
            ("studyInstanceUid", pa.string()),
            ("seriesInstanceUid", pa.string()),
            ("sopInstanceUid", pa.string()),
            ("reason", pa.string()),
            ("status", pa.string()),
            ("recordedAt", TIMESTAMP),
        ]
    )


@dataclass(frozen=True, slots=True)
class Reject:
    """One row of ``rejected``: ``timestamp`` is the entry's time cut to microseconds, UIDs may be unknown."""

    run_id: int
    sequence: int
    timestamp: datetime
    partition: str
    study: str | None
    series: str | None
    sop: str | None
    reason: str
    status: Status
    recorded_at: datetime

    def as_row(self) -> dict[str, Any]:
        """By name, as a command prints it: without UIDs, since that ends in logs of schedulers."""
        return {
            "sequence": self.sequence,
            "timestamp": self.timestamp,
            "reason": self.reason,
            "status": self.status,
            "runId": self.run_id,
            "recordedAt": self.recorded_at,
        }


def new_rejects(unusable: Iterable[InvalidEntry], *, run_id: int, recorded_at: datetime) -> list[Reject]:
    """An open reject for each entry."""
    return [
        Reject(
            run_id=run_id,
            sequence=entry.sequence,
            timestamp=to_datetime(entry.ticks),
            partition=entry.partition,
            study=entry.study,
            series=entry.series,
            sop=entry.sop,
            reason=entry.reason,
            status="open",
            recorded_at=recorded_at,
        )
        for entry in unusable
    ]


def closed_rejects(
    rejects: Iterable[Reject], *, run_id: int, recorded_at: datetime, status: Status = "resolved"
) -> list[Reject]:
    """The rejects as this run leaves them: resolved, or void."""
    return [replace(r, run_id=run_id, status=status, recorded_at=recorded_at) for r in rejects]


def read_open(rejected: DeltaTable) -> list[Reject]:
    """The open rejects, by sequence.

    The newest row of a sequence counts: by runId, then recordedAt, then the order in which they were written.
    """
    return [reject for reject in read_newest(rejected) if reject.status == "open"]


def closed_among(rejected: DeltaTable, unusable: Iterable[InvalidEntry]) -> frozenset[int]:
    """The sequences of those entries that nobody waits for: their instance is gone, or an operator closed them.

    An entry is known by its time too: a service that was restored gives its sequences again.
    """
    closed = {(r.sequence, r.timestamp) for r in read_newest(rejected) if r.status == "void"}
    return frozenset(u.sequence for u in unusable if (u.sequence, to_datetime(u.ticks)) in closed)


def read_newest(rejected: DeltaTable) -> list[Reject]:
    """The newest row of each sequence, whatever its status, by sequence."""
    return newest_of(read_history(rejected))


def read_history(rejected: DeltaTable, until_run: int | None = None) -> list[Reject]:
    """All rows, or those of the run ``until_run`` and of earlier ones, from the oldest to the newest."""
    rows = read_rows(rejected, rejected_schema().names)
    rejects = [Reject(*row.values()) for row in rows.to_pylist()]
    # Rows of one run stand in one file, in their order; sorting is stable.
    rejects.sort(key=lambda r: (r.run_id, r.recorded_at))
    return [one for one in rejects if until_run is None or one.run_id <= until_run]


def newest_of(history: Iterable[Reject]) -> list[Reject]:
    """The newest row of each sequence, by sequence, of rows from the oldest to the newest."""
    newest = {reject.sequence: reject for reject in history}
    return [newest[sequence] for sequence in sorted(newest)]


@dataclass(frozen=True, slots=True)
class Refusal:
    """The runs that could not use an entry: from ``from_run`` on, before ``usable_run`` (None: to the end)."""

    sequence: int
    timestamp: datetime
    from_run: int
    usable_run: int | None


def refusals(history: Iterable[Reject]) -> list[Refusal]:
    """For each entry that was rejected once, which runs could not use it; ``history`` from the oldest to the newest.

    An entry is known by its time too: a service that was restored gives its sequences again. A run before ``from_run``
    may have used it: a later one has read it again, from a page that was bad.
    """
    found: dict[tuple[int, datetime], Refusal] = {}
    for row in history:
        key = (row.sequence, row.timestamp)
        if row.status == "open":
            found.setdefault(key, Refusal(*key, row.run_id, None))
        elif row.status == "resolved" and key in found and found[key].usable_run is None:
            found[key] = replace(found[key], usable_run=row.run_id)
    return list(found.values())


def append_rejects(
    rejected: DeltaTable,
    rejects: Iterable[Reject],
    *,
    app_id: str,
    run_id: int,
    details: Mapping[str, str],
    folder: TableFolder | None = None,
) -> int:
    """The version of ``rejected`` that holds these rows too: new rejects and resolutions, one commit.

    Nothing to record commits nothing. Raises as ``commit_files`` does.
    """
    rows = reject_rows(rejects)
    if not rows.num_rows:
        return rejected.version()
    return append_rows(rejected, rows, app_id=app_id, run_id=run_id, details=details, folder=folder)


def reject_rows(rejects: Iterable[Reject]) -> pa.Table:
    """The rejects as rows of ``rejected``, in their order."""
    schema = rejected_schema()
    fields = tuple(Reject.__dataclass_fields__)
    rows = list(rejects)
    columns = [[getattr(row, name) for row in rows] for name in fields]
    return pa.table(
        [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema
    )


def append_closed(
    rejected: DeltaTable, closed: Reject, why: str, *, app_id: str, folder: TableFolder | None = None
) -> None:
    """Add the row of a reject that an operator has closed, with the text in the column ``why``.

    Raises as ``commit_files`` does.
    """
    add_text_column(rejected, WHY)
    rows = reject_rows([closed]).append_column(WHY, pa.array([why], pa.string()))
    details = {"runId": str(closed.run_id)}
    append_rows(rejected, rows, app_id=app_id, run_id=closed.run_id, details=details, folder=folder)
