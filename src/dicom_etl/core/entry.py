"""One entry of the change feed as the service wrote it, and the record of one that others found unusable.

design/service-protocol.md: Feed entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

ABSENT = msgspec.Raw()


class Entry(msgspec.Struct, rename="camel", frozen=True, gc=False):
    """One row of the feed, undecoded metadata included.

    ``action`` and ``state`` keep the service's own spelling; ``metadata`` is the JSON text as it came, empty
    bytes when absent (``null`` arrives as the bytes ``null`` and means absent too). ``ticks`` is the
    timestamp in 100 ns since 1970, set by the reader of the feed. ``unreadable`` is the reason code of an entry
    whose metadata could not be had, and null for all others (design/architecture.md: Rejects).
    """

    sequence: int
    timestamp: str
    partition_name: str | None = None
    study_instance_uid: str | None = None
    series_instance_uid: str | None = None
    sop_instance_uid: str | None = None
    action: str | None = None
    state: str | None = None
    file_path: str | None = None
    metadata: msgspec.Raw = ABSENT
    ticks: int = msgspec.field(default=0, name="__ticks")
    unreadable: str | None = msgspec.field(default=None, name="__unreadable")

    def replace(self, **changes: Any) -> Entry:
        """The same entry with some fields changed."""
        return msgspec.structs.replace(self, **changes)

    @property
    def has_metadata(self) -> bool:
        """Whether any metadata came, of whatever type."""
        return bytes(self.metadata) not in (b"", b"null")


@dataclass(frozen=True, slots=True)
class InvalidEntry:
    """An entry that can be neither merged nor told to be harmless by itself; ``reason`` is a code.

    ``ticks`` is its time in 100 ns since 1970. The UIDs are null where the entry has none.
    """

    sequence: int
    ticks: int
    partition: str
    study: str | None
    series: str | None
    sop: str | None
    reason: str
