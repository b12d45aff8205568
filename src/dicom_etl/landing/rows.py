"""Entries of the feed as rows of ``change``; decides which are unusable, and by which reason code.

design/architecture.md: Fold, Rejects.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from typing import Any

import pyarrow as pa

from dicom_etl.core.attributes import DEFAULT_PARTITION
from dicom_etl.core.entry import Entry, InvalidEntry
from dicom_etl.core.reasons import (
    ACTION_UNKNOWN,
    BEFORE_FOLD,
    METADATA_MISSING,
    METADATA_NOT_UTF8,
    STATE_UNKNOWN,
    UID_MISSING,
)
from dicom_etl.core.timerange import TICKS_PER_MICROSECOND
from dicom_etl.core.values import stripped
from dicom_etl.lake.change_schema import TIMESTAMP, change_schema
from dicom_etl.landing.extract import kept_values

_ACTIONS = {name.lower(): name for name in ("Create", "Update", "Delete")}
_STATES = {name.lower(): name for name in ("Current", "Replaced", "Deleted")}
# Metadata with these reasons has no text that a string column could hold.
_NOT_TEXT = frozenset((METADATA_MISSING, METADATA_NOT_UTF8))
_SCHEMA = change_schema()
_ROW_FIELDS = list(_SCHEMA)[2:]


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of some entries, one each, in their order, and the unusable ones among them."""

    batch: pa.RecordBatch
    unusable: tuple[InvalidEntry, ...]


def rows_of(entries: Sequence[Entry], *, run_id: int, read_at: datetime, keep_metadata: bool = True) -> Rows:
    """The entries as rows of ``change``.

    UIDs are stripped of padding, a missing partition is Microsoft.Default, action and state get the service's
    own spelling; unknown ones stay as they came. Metadata that is no JSON object leaves the attributes null.
    ``keep_metadata = False`` leaves the column ``metadata`` null. An Entry's ``ticks`` must be set.
    """
    rows: list[tuple[Any, ...]] = []
    unusable: list[InvalidEntry] = []
    for entry in entries:
        row, reason = _row(entry, keep_metadata)
        rows.append(row)
        if reason:
            partition, study, series, sop = row[3:7]
            unusable.append(InvalidEntry(entry.sequence, entry.ticks, partition, study, series, sop, reason))
    *columns, metadata = list(zip(*rows, strict=True)) or [()] * len(_ROW_FIELDS)
    arrays = [pa.repeat(pa.scalar(run_id), len(rows)), pa.repeat(pa.scalar(read_at, TIMESTAMP), len(rows))]
    arrays += [pa.array(values, field.type) for values, field in zip(columns, _ROW_FIELDS[:-1], strict=True)]
    arrays.append(_texts(metadata))
    return Rows(pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA), tuple(unusable))


def _texts(values: Sequence[bytes | None]) -> pa.Array:
    """Bytes that are known to be UTF-8 as strings. Arrow's own way from a list took five times as long."""
    ends = array("i", accumulate((len(value or b"") for value in values), initial=0))
    missing = pa.array([value is not None for value in values], pa.bool_()).buffers()[1]
    text = b"".join([value or b"" for value in values])
    return pa.Array.from_buffers(pa.string(), len(values), [missing, pa.py_buffer(ends), pa.py_buffer(text)])


def _row(entry: Entry, keep_metadata: bool) -> tuple[tuple[Any, ...], str | None]:
    """The columns from ``sequence`` on, and why the entry is unusable."""
    metadata = bytes(entry.metadata)
    kept, metadata_reason = kept_values(metadata)
    uids = (
        stripped(entry.study_instance_uid),
        stripped(entry.series_instance_uid),
        stripped(entry.sop_instance_uid),
    )
    action = _ACTIONS.get((entry.action or "").lower(), entry.action)
    state = _STATES.get((entry.state or "").lower(), entry.state)
    row = (
        entry.sequence,
        entry.ticks // TICKS_PER_MICROSECOND,
        entry.ticks,
        entry.partition_name or DEFAULT_PARTITION,
        *uids,
        action,
        state,
        entry.file_path,
        *kept,
        metadata if keep_metadata and metadata_reason not in _NOT_TEXT else None,
    )
    return row, _reason(uids, action, state, entry.unreadable, metadata_reason)


def _reason(
    uids: tuple[str | None, ...],
    action: str | None,
    state: str | None,
    unreadable: str | None,
    metadata_reason: str | None,
) -> str | None:
    if None in uids:
        return UID_MISSING
    # The version that a Delete removed cannot be the current one (design/service-protocol.md: Rows that change).
    if state not in _STATES.values() or (action == "Delete" and state == "Current"):
        return STATE_UNKNOWN
    if unreadable in BEFORE_FOLD:
        return unreadable
    # A Deleted or Replaced entry needs neither metadata nor an action that is known (design/architecture.md: Fold).
    if state != "Current":
        return None
    if action not in _ACTIONS.values():
        return ACTION_UNKNOWN
    return unreadable or metadata_reason
