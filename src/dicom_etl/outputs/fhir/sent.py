"""What the FHIR server has of us, by our own record: the table `fhir_sent`, of a resource the newest row counts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from dicom_etl.lake.column_facts import commented
from dicom_etl.lake.delta.commit import append_rows
from dicom_etl.lake.delta.table import STATISTICS_PROPERTY, create_table, properties, read_rows, txn_version
from dicom_etl.lake.lake_id import check_owner
from dicom_etl.lake.snapshot import Lake, opened

NAME: Final = "fhir_sent"
Kind = Literal["ImagingStudy", "Endpoint", "Patient", "Observation", "PatientSearch"]
State = Literal["sent", "deleted", "refused", "failed", "adopted", "one", "none", "several"]

_LONG, _TEXT = pa.int64(), pa.string()
SCHEMA = pa.schema(
    [
        ("number", _LONG),
        ("executionId", _LONG),
        ("server", _TEXT),
        ("kind", _TEXT),
        ("key", _TEXT),
        ("resourceId", _TEXT),
        ("parent", _TEXT),
        ("digest", _TEXT),
        ("state", _TEXT),
        ("httpStatus", _LONG),
        ("issueCode", _TEXT),
        ("at", pa.timestamp("us", tz="UTC")),
    ]
)
# Commits of one execution: each has a number of its own, above those of all earlier executions.
_MOST_COMMITS: Final = 1_000_000
# What an execution that dies has sent and not recorded is sent again by the next one.
_ROWS_A_COMMIT: Final = 2_000
_SECONDS_A_COMMIT: Final = 30.0


@dataclass(frozen=True, slots=True)
class Sent:
    """One row: what became of a resource, or of a search for a Patient.

    ``resource_id`` is its id in the server, None where a search found none. ``digest`` is that of what was to stand
    there, None behind a deletion and where a resource was taken over as it is.
    """

    kind: Kind
    key: str
    resource_id: str | None
    state: State
    at: datetime
    parent: str | None = None
    digest: str | None = None
    http_status: int | None = None
    issue_code: str | None = None
    execution_id: int = 0

    @property
    def stands(self) -> bool:
        """Whether the server may hold it: what was refused or failed may stand as it was before."""
        return self.state in ("sent", "refused", "failed", "adopted")


Record = dict[tuple[str, str], Sent]
"""The newest row of each resource and search, by kind and key."""


def open_sent(lake: Lake) -> DeltaTable | None:
    """The table, or None where nothing was sent yet. Raises DataError when it is another lake's."""
    table = opened(lake.paths, NAME)
    if table is not None:
        check_owner(NAME, properties(table), lake.identity)
    return table


def made_sent(lake: Lake) -> DeltaTable:
    """The table, made if there was none. Raises as ``create_table`` does."""
    table = open_sent(lake)
    if table is not None:
        return table
    told = lake.identity.properties | {STATISTICS_PROPERTY: "number,executionId"}
    storage = lake.storage.delta(lake.path(NAME))
    schema = commented(NAME, SCHEMA)
    return create_table(lake.path(NAME), schema, name=NAME, properties=told, storage=storage, private=True)


def last_execution(lake: Lake, table: DeltaTable | None) -> int:
    """The id of the last execution that committed to the table; 0 where none did."""
    return 0 if table is None else txn_version(table, lake.app_id(NAME)) // _MOST_COMMITS


def put_back(lake: Lake, table: DeltaTable | None) -> bool:
    """Whether the table was restored to an older version, so that it does not tell what was sent."""
    if table is None:
        return False
    numbers = read_rows(table, ["number"])["number"]
    return (pc.max(numbers).as_py() or 0) != txn_version(table, lake.app_id(NAME))


def record_of(table: DeltaTable | None, server: str) -> Record:
    """What stands in this server; ``server`` is its fingerprint. Raises as ``read_rows`` does."""
    if table is None:
        return {}
    rows = read_rows(table, SCHEMA.names, pc.field("server") == server).sort_by("number")
    newest: Record = {}
    for batch in rows.to_batches(max_chunksize=10_000):
        for row in batch.to_pylist():
            newest[row["kind"], row["key"]] = _from_row(row)
    return newest


def _from_row(row: dict[str, Any]) -> Sent:
    return Sent(
        kind=row["kind"],
        key=row["key"],
        resource_id=row["resourceId"],
        state=row["state"],
        at=row["at"],
        parent=row["parent"],
        digest=row["digest"],
        http_status=row["httpStatus"],
        issue_code=row["issueCode"],
        execution_id=row["executionId"],
    )


@dataclass
class Recorder:
    """Adds the rows of one execution to the table, many in a commit; ``flush`` adds those that are left.

    ``record`` is what stands, kept up to date with what is added. Raises Superseded when a later execution has written.
    """

    lake: Lake
    server: str
    execution_id: int
    record: Record
    monotonic: Callable[[], float]
    _waiting: list[Sent] = field(default_factory=list)
    _commits: int = 0
    _since: float = 0.0

    def add(self, rows: Iterable[Sent]) -> None:
        """Take these rows; they are committed at the latest with the first call half a minute later."""
        for row in rows:
            self.record[row.kind, row.key] = replace(row, execution_id=self.execution_id)
            self._waiting.append(row)
        self._since = self._since or self.monotonic()
        if len(self._waiting) >= _ROWS_A_COMMIT or self.monotonic() - self._since > _SECONDS_A_COMMIT:
            self.flush()

    def flush(self) -> int | None:
        """The version that has all rows; None where there was nothing to add."""
        self._since = 0.0
        if not self._waiting:
            return None
        self._commits += 1
        number = self.execution_id * _MOST_COMMITS + self._commits
        rows = [_as_row(row, self.server, self.execution_id, number) for row in self._waiting]
        version = append_rows(
            made_sent(self.lake),
            pa.Table.from_pylist(rows, schema=SCHEMA),
            app_id=self.lake.app_id(NAME),
            run_id=number,
            details={"output": "fhir", "executionId": str(self.execution_id)},
            folder=self.lake.folder(NAME),
        )
        self._waiting = []
        return version


def _as_row(row: Sent, server: str, execution_id: int, number: int) -> dict[str, Any]:
    return {
        "number": number,
        "executionId": execution_id,
        "server": server,
        "kind": row.kind,
        "key": row.key,
        "resourceId": row.resource_id,
        "parent": row.parent,
        "digest": row.digest,
        "state": row.state,
        "httpStatus": row.http_status,
        "issueCode": row.issue_code,
        "at": row.at,
    }
