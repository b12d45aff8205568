"""Keys that were served once and are no longer: how far their entries are void.

design/architecture.md: Change of UIDs.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from deltalake import DeltaTable

from dicom_etl.core.reasons import UID_CHANGED
from dicom_etl.core.timerange import to_datetime
from dicom_etl.lake.rejected import Reject, read_newest

Key = tuple[str, str, str, str]


def read_voids(rejected: DeltaTable) -> list[Reject]:
    """The voids that hold, by sequence; few. Raises as ``read_rows`` does."""
    return voids_among(read_newest(rejected))


def voids_among(newest: Iterable[Reject]) -> list[Reject]:
    """The voids of keys among the newest rows of ``rejected``."""
    return [r for r in newest if r.status == "void" and r.reason == UID_CHANGED and None not in _key(r)]


def void_until(voids: Iterable[Reject]) -> dict[Key, int]:
    """By the four parts of an instance's key: the sequence up to which its entries count as Deleted."""
    until: dict[Key, int] = {}
    for void in voids:
        until[_key(void)] = max(void.sequence, until.get(_key(void), 0))
    return until


def new_voids(entries: Iterable[tuple[Key, int, int]], *, run_id: int, recorded_at: datetime) -> list[Reject]:
    """A void for each (key, sequence, time in ticks of 100 ns since 1970)."""
    return [
        Reject(run_id, sequence, to_datetime(ticks), *key, UID_CHANGED, "void", recorded_at)
        for key, sequence, ticks in entries
    ]


def _key(reject: Reject) -> Key:
    return (reject.partition, reject.study, reject.series, reject.sop)  # type: ignore[return-value]
