"""What the outputs did: the table `output`, one row an execution, written last (design/outputs.md: Executions)."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa
from deltalake import DeltaTable

from dicom_etl import __version__
from dicom_etl.core.errors import AnotherWriter, Superseded
from dicom_etl.lake.column_facts import commented
from dicom_etl.lake.delta.commit import append_rows
from dicom_etl.lake.delta.table import (
    STATISTICS_PROPERTY,
    add_text_column,
    create_table,
    properties,
    read_rows,
    txn_version,
)
from dicom_etl.lake.lake_id import check_owner
from dicom_etl.lake.snapshot import Lake, opened

NAME = "output"
Mode = Literal["changed", "compare", "full", "service"]
Status = Literal["succeeded", "failed"]

_LONG, _TEXT = pa.int64(), pa.string()
_TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        ("output", _TEXT),
        ("executionId", _LONG),
        ("mode", _TEXT),
        ("status", _TEXT),
        ("fromRun", _LONG),
        ("toRun", _LONG),
        ("startedAt", _TIME),
        ("finishedAt", _TIME),
        ("touched", _LONG),
        ("unchanged", _LONG),
        ("written", _LONG),
        ("withdrawn", _LONG),
        ("refused", _LONG),
        ("failed", _LONG),
        ("versions", _TEXT),
        ("designDigest", _TEXT),
        ("writerVersion", _TEXT),
        ("host", _TEXT),
        ("errorClass", _TEXT),
        ("details", _TEXT),
    ]
)
# Came later than the others: a table that lacks it gets it with the next row.
_LATER = "details"
# Outputs write their rows at the same time; each try opens the table again.
_TRIES = 20


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the keys of one execution: *touched = unchanged + written + withdrawn + refused + failed*.

    Each is counted, and none is the difference of others: ``whole`` tells whether they agree.
    """

    touched: int = 0
    unchanged: int = 0
    written: int = 0
    withdrawn: int = 0
    refused: int = 0
    failed: int = 0

    @property
    def whole(self) -> bool:
        return self.touched == self.unchanged + self.written + self.withdrawn + self.refused + self.failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One row of `output`: what one execution of an output did, from the run it had reached to the run it reached.

    ``versions`` are the Delta versions that its tables then had, by name. ``design_digest`` tells of what the output
    was made. Of a failed execution ``to_run`` is where it was to come. ``details`` are counts of its own, by word.
    """

    output: str
    execution_id: int
    mode: Mode
    status: Status
    from_run: int
    to_run: int
    started_at: datetime
    finished_at: datetime
    counts: Counts = field(default_factory=Counts)
    versions: Mapping[str, int] = field(default_factory=dict)
    design_digest: str | None = None
    error_class: str | None = None
    writer_version: str | None = __version__
    host: str | None = field(default_factory=socket.gethostname)
    details: Mapping[str, int] = field(default_factory=dict)

    def as_row(self) -> dict[str, Any]:
        """The row by column name, times as aware datetimes."""
        return {
            "output": self.output,
            "executionId": self.execution_id,
            "mode": self.mode,
            "status": self.status,
            "fromRun": self.from_run,
            "toRun": self.to_run,
            "startedAt": self.started_at,
            "finishedAt": self.finished_at,
            **{one.name: getattr(self.counts, one.name) for one in fields(Counts)},
            "versions": json.dumps(dict(self.versions), sort_keys=True),
            "designDigest": self.design_digest,
            "writerVersion": self.writer_version,
            "host": self.host,
            "errorClass": self.error_class,
            "details": json.dumps(dict(self.details), sort_keys=True) if self.details else None,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Execution:
        """The execution of a row by column name; columns of a newer version are left out."""
        return cls(
            output=row["output"],
            execution_id=row["executionId"],
            mode=row["mode"],
            status=row["status"],
            from_run=row["fromRun"],
            to_run=row["toRun"],
            started_at=row["startedAt"],
            finished_at=row["finishedAt"],
            counts=Counts(**{one.name: row[one.name] or 0 for one in fields(Counts)}),
            versions=json.loads(row["versions"] or "{}"),
            design_digest=row["designDigest"],
            writer_version=row["writerVersion"],
            host=row["host"],
            error_class=row["errorClass"],
            details=json.loads(row.get(_LATER) or "{}"),
        )


def open_executions(lake: Lake) -> DeltaTable | None:
    """The table `output`, or None where no output has run yet. Raises DataError when it is another lake's."""
    table = opened(lake.paths, NAME)
    if table is not None:
        check_owner(NAME, properties(table), lake.identity)
    return table


def made_executions(lake: Lake) -> DeltaTable:
    """The table `output`, made if there was none. Raises as ``create_table`` does."""
    table = open_executions(lake)
    if table is not None:
        add_text_column(table, _LATER)
        return table
    told = lake.identity.properties | {STATISTICS_PROPERTY: "executionId"}
    storage = lake.storage.delta(lake.path(NAME))
    try:
        return create_table(lake.path(NAME), commented(NAME, SCHEMA), name=NAME, properties=told, storage=storage)
    except AnotherWriter:  # of two outputs that begin at once, one has made it
        if (table := open_executions(lake)) is None:
            raise
        return table


def executions(table: DeltaTable | None) -> list[Execution]:
    """All executions, by output and id; none where there is no table. Raises as ``read_rows`` does."""
    if table is None:
        return []
    there = {found.name for found in table.schema().fields}
    rows = read_rows(table, [name for name in SCHEMA.names if name in there]).to_pylist()
    return sorted((Execution.from_row(row) for row in rows), key=lambda one: (one.output, one.execution_id))


def last_succeeded(all_executions: Iterable[Execution], output: str) -> Execution | None:
    """The last execution of the output that succeeded: up to its ``to_run`` the output equals the tables."""
    own = (one for one in all_executions if one.output == output and one.status == "succeeded")
    return max(own, key=lambda one: one.execution_id, default=None)


def highest_id(all_executions: Iterable[Execution], output: str) -> int:
    """The highest id of an execution of the output; 0 where it has run never."""
    return max((one.execution_id for one in all_executions if one.output == output), default=0)


def record(lake: Lake, execution: Execution) -> None:
    """Add the row of an execution.

    Raises Superseded when a later execution of this output has its row already, StorageError or AccessDenied when the
    storage fails.
    """
    rows = pa.Table.from_pylist([execution.as_row()], schema=SCHEMA)
    app_id = lake.identity.app_id(f"{NAME}/{execution.output}")
    for left in reversed(range(_TRIES)):
        try:
            append_rows(
                made_executions(lake),
                rows,
                app_id=app_id,
                run_id=execution.execution_id,
                details={"output": execution.output, "executionId": str(execution.execution_id)},
                folder=lake.folder(NAME),
            )
        except Superseded:
            # Another output wrote between; our own marker tells whether a later execution of this one did.
            if not left or txn_version(made_executions(lake), app_id) >= execution.execution_id:
                raise
        else:
            return
