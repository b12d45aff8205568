"""What was done: the table `run`, one row a run, written last (design/architecture.md: Coverage and the ledger)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa
from deltalake import DeltaTable

from dicom_etl.core.timerange import TICKS_PER_MICROSECOND, Window, ceil_to_grid, from_datetime, to_datetime, union
from dicom_etl.lake.column_facts import commented
from dicom_etl.lake.delta.commit import append_rows
from dicom_etl.lake.delta.folder import TableFolder
from dicom_etl.lake.delta.table import STATISTICS_PROPERTY, create_table, read_rows
from dicom_etl.lake.lake_id import LakeIdentity

Status = Literal["succeeded", "failed", "superseded", "killed"]
NAME = "run"
READING_VERBS = ("sync", "repair")

_LONG, _DOUBLE, _TEXT = pa.int64(), pa.float64(), pa.string()
_TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        ("runId", _LONG),
        ("verb", _TEXT),
        ("status", _TEXT),
        ("windowStart", _TIME),
        ("windowEnd", _TIME),
        ("coveredUntil", _TIME),
        ("startedAt", _TIME),
        ("finishedAt", _TIME),
        ("entriesRead", _LONG),
        ("inserted", _LONG),
        ("updated", _LONG),
        ("deleted", _LONG),
        ("superseded", _LONG),
        ("rejected", _LONG),
        ("repeated", _LONG),
        ("pages", _LONG),
        ("retries", _LONG),
        ("startSeconds", _DOUBLE),
        ("fetchSeconds", _DOUBLE),
        ("landSeconds", _DOUBLE),
        ("mergeSeconds", _DOUBLE),
        ("rollupSeconds", _DOUBLE),
        ("changeVersion", _LONG),
        ("instanceVersion", _LONG),
        ("seriesVersion", _LONG),
        ("studyVersion", _LONG),
        ("writerVersion", _TEXT),
        ("host", _TEXT),
        ("settingsDigest", _TEXT),
        ("errorClass", _TEXT),
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One row of `run`, a field per column, in the order of the columns.

    ``window_start``, ``window_end`` and ``covered_until`` are ticks (null for verbs that read nothing); the
    table keeps microseconds, so they are narrowed inwards: what is recorded as covered was covered.
    ``started_at`` and ``finished_at`` are aware UTC. ``error_class`` is a class name and nothing more.

    ``completes`` has no column: the newest of the earlier runs whose roll-up this run has completed. It is known to
    the process that ran it, and stands in the details of the row's commit.
    """

    run_id: int
    verb: str
    status: Status
    window_start: int | None = None
    window_end: int | None = None
    covered_until: int | None = None
    started_at: datetime
    finished_at: datetime
    entries_read: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    superseded: int = 0
    rejected: int = 0
    repeated: int = 0
    pages: int = 0
    retries: int = 0
    start_seconds: float = 0.0
    fetch_seconds: float = 0.0
    land_seconds: float = 0.0
    merge_seconds: float = 0.0
    rollup_seconds: float = 0.0
    change_version: int | None = None
    instance_version: int | None = None
    series_version: int | None = None
    study_version: int | None = None
    writer_version: str | None = None
    host: str | None = None
    settings_digest: str | None = None
    error_class: str | None = None
    completes: int | None = None

    @property
    def covers(self) -> bool:
        """Whether this run counts as coverage: it succeeded, and its verb reads the feed."""
        return self.status == "succeeded" and self.verb in READING_VERBS and self.coverage is not None

    @property
    def coverage(self) -> Window | None:
        """[``window_start`` rounded up, ``covered_until`` rounded down) to microseconds; null when empty."""
        if self.window_start is None or self.covered_until is None:
            return None
        start, end = _up(self.window_start), _down(self.covered_until)
        return Window(start, end) if end > start else None

    def as_row(self) -> dict[str, Any]:
        """The row by column name, times as aware datetimes."""
        row = {column: getattr(self, name) for column, name in _FIELDS.items()}
        row["windowStart"] = None if self.window_start is None else to_datetime(_up(self.window_start))
        for column in ("windowEnd", "coveredUntil"):
            row[column] = None if row[column] is None else to_datetime(row[column])
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Run:
        """The run of a row by column name; columns of a newer version are left out."""
        values = {name: row[column] for column, name in _FIELDS.items()}
        for name in ("window_start", "window_end", "covered_until"):
            values[name] = None if values[name] is None else from_datetime(values[name])
        return cls(**values)


_FIELDS = dict(zip(SCHEMA.names, (field.name for field in fields(Run) if field.name != "completes"), strict=True))


def create_ledger(path: str, identity: LakeIdentity, storage: dict[str, str] | None = None) -> DeltaTable:
    """The new table `run`, the first of its lake: the lake's identity is decided with it.

    Raises as ``create_table`` does.
    """
    properties = identity.properties | {STATISTICS_PROPERTY: "runId"}
    return create_table(path, commented(NAME, SCHEMA), name=NAME, properties=properties, storage=storage)


def record(table: DeltaTable, run: Run, identity: LakeIdentity, folder: TableFolder | None = None) -> int:
    """The version that added the run's row, by one fenced commit; ``folder`` is the table's, needed when it is remote.

    Raises Superseded (75) when a run with this id or a higher one has its row already, or when somebody else
    wrote since ``table`` was read; StorageError (74) or AccessDenied (77) when the storage fails.
    """
    rows = pa.Table.from_pylist([run.as_row()], schema=SCHEMA)
    completes = {} if run.completes is None else {"completes": str(run.completes)}
    return append_rows(
        table,
        rows,
        app_id=identity.app_id(NAME),
        run_id=run.run_id,
        details={"runId": str(run.run_id), "verb": run.verb, "status": run.status, **completes},
        folder=folder,
    )


def runs(table: DeltaTable) -> list[Run]:
    """All runs, by their id.

    Raises DataError (65) when the table or its files are not what we write, StorageError (74) or AccessDenied
    (77) when the storage fails.
    """
    rows = read_rows(table, SCHEMA.names).to_pylist()
    return sorted((Run.from_row(row) for row in rows), key=lambda run: run.run_id)


def covered(all_runs: Iterable[Run]) -> list[Window]:
    """What succeeded runs of the reading verbs cover: disjoint, in order, ends on microseconds."""
    return union(run.coverage for run in all_runs if run.covers and run.coverage is not None)


def last_succeeded(all_runs: Iterable[Run]) -> Run | None:
    """The newest run that succeeded; its versions of the three tables fit each other."""
    return max((r for r in all_runs if r.status == "succeeded"), key=lambda run: run.run_id, default=None)


def last_rebuild(all_runs: Iterable[Run]) -> int:
    """The id of the last run that rebuilt the tables, 0 when there was none: a repair that covers what it read."""
    return max((run.run_id for run in all_runs if run.verb == "repair" and run.covers), default=0)


def _up(ticks: int) -> int:
    return ceil_to_grid(ticks, TICKS_PER_MICROSECOND)


def _down(ticks: int) -> int:
    return ticks // TICKS_PER_MICROSECOND * TICKS_PER_MICROSECOND
