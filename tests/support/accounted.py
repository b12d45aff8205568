"""The accounting, checked for every run that a test makes: each entry by itself.

design/architecture.md: Accounting.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import pyarrow.compute as pc
from deltalake import DeltaTable
from pyarrow.dataset import Dataset
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from dicom_etl.lake.delta.folder import is_local, local_path
from dicom_etl.lake.ledger import Run
from support.oracle import INSTANCE_KEY, Row, accounting, instance_row

COUNTS = ("inserted", "updated", "deleted", "superseded", "rejected")
_STATES = ("Current", "Replaced", "Deleted")


def check_accounting(
    change: DeltaTable, run: Run, stored: Mapping[tuple[str, ...], Row], closed: Iterable[int] = ()
) -> None:
    """What the run says of its entries is what becomes of each of them, as it was when it was read.

    ``stored`` are the rows of ``instance`` before the run, by key; ``closed`` the sequences of void rejects.
    """
    entries = landed_entries(change, run.run_id)
    unfit = [entry for entry in entries if not _fit(entry)]
    unusable = {entry.sequence for entry in entries if not _has_header(entry.metadata)}
    closed = set(closed)
    fates = accounting([entry for entry in entries if _fit(entry)], stored, instance_row, unusable, closed)
    fates["rejected"] += sum(entry.sequence not in closed for entry in unfit)
    fates["superseded"] += sum(entry.sequence in closed for entry in unfit)
    said = {name: getattr(run, name) for name in COUNTS}
    assert (run.entries_read, said) == (len(entries), {name: fates[name] for name in COUNTS}), run


def dataset_of(table: DeltaTable) -> Dataset:
    """A table's rows through Arrow's own filesystem where they lie in a local folder.

    (Through delta-rs's, the interpreter may abort at its end.)
    """
    uri = table.table_uri
    local = SubTreeFileSystem(local_path(uri), LocalFileSystem()) if is_local(uri) else None
    return table.to_pyarrow_dataset(filesystem=local)


def landed_entries(change: DeltaTable, run_id: int) -> list[Any]:
    """What a run has landed, one object an entry."""
    names = [*INSTANCE_KEY, "sequence", "timestampTicks", "action", "state", "filePath", "metadata"]
    rows = dataset_of(change).to_table(columns=names, filter=pc.field("runId") == run_id).to_pylist()
    return [
        SimpleNamespace(
            **row,
            key=tuple(row[name] for name in INSTANCE_KEY),
            ticks=row["timestampTicks"],
            file_path=row["filePath"],
        )
        for row in rows
    ]


def _fit(entry: Any) -> bool:
    """Whether its key and its state are certain; of what was deleted nothing is current."""
    return None not in entry.key and entry.state in _STATES and (entry.action, entry.state) != ("Delete", "Current")


def _has_header(metadata: str | None) -> bool:
    try:
        return isinstance(json.loads(metadata or "null"), dict)
    except ValueError:
        return False


def total(counted: Counter[str], run: Run) -> None:
    """Add what became of the run's entries."""
    counted.update({name: getattr(run, name) for name in COUNTS})
