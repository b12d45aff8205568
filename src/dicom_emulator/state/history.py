"""The rows of the change feed and how later events rewrite them (design/service-protocol.md: Rows that change)."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from dataclasses import dataclass
from itertools import islice

from dicom_emulator.state.uids import InstanceKey


@dataclass(slots=True)
class FeedRow:
    """One event of one instance; `current_watermark` and `file_path` change with later events of its key.

    `uids` are study, series and SOP instance UID as the file has them, padding included.
    """

    sequence: int
    ticks: int
    action: str
    key: InstanceKey
    uids: tuple[str, str, str]
    original_watermark: int
    current_watermark: int | None
    file_path: str | None

    @property
    def state(self) -> str:
        """Current, Replaced or Deleted, as it is now (Sql/Features/ChangeFeed/SqlChangeFeedStoreV4.cs)."""
        if self.current_watermark is None:
            return "Deleted"
        return "Current" if self.current_watermark == self.original_watermark else "Replaced"


class History:
    """All rows, ordered by (timestamp, sequence) and by sequence, and by key; rows are never removed."""

    def __init__(self) -> None:
        self._by_time: list[tuple[int, int]] = []
        self._sequences: list[int] = []
        self._rows: dict[int, FeedRow] = {}
        self._of_key: defaultdict[InstanceKey, list[FeedRow]] = defaultdict(list)
        self._hidden: dict[int, int | None] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, sequence: int) -> bool:
        return sequence in self._rows

    def of_key(self, key: InstanceKey) -> list[FeedRow]:
        """The key's rows in the order of their commits."""
        return self._of_key[key]

    def created(self, row: FeedRow) -> None:
        """Older rows of the key point to the new version; their file paths stay."""
        self._point_at(row.key, row.original_watermark)
        self._add(row)

    def updated(self, row: FeedRow) -> None:
        """All rows of the key, Delete rows too, get the new version and its file path."""
        self._point_at(row.key, row.original_watermark)
        for older in self._of_key[row.key]:
            older.file_path = row.file_path
        self._add(row)

    def deleted(self, row: FeedRow, clear_file_path: bool) -> None:
        """All rows of the key lose their version; the file paths of older rows stay unless cleared."""
        self._point_at(row.key, None)
        if clear_file_path:
            for older in self._of_key[row.key]:
                older.file_path = None
        self._add(row)

    def hide(self, sequence: int, until: int | None) -> None:
        """Keeps a row, also one that does not exist yet, from being served before `until`; None: for good."""
        self._hidden[sequence] = until

    def show(self, sequence: int | None) -> None:
        """Serves a hidden row again; None: all of them."""
        if sequence is None:
            self._hidden.clear()
        else:
            self._hidden.pop(sequence, None)

    def window(self, start: int, end: int, offset: int, limit: int, now: int | None = None) -> list[FeedRow]:
        """Rows with start <= ticks < end by (ticks, sequence), `limit` of them after skipping `offset`.

        With `now` only those that are visible by then; without it all, also the hidden ones.
        """
        first, last = bisect_left(self._by_time, (start, -1)), bisect_left(self._by_time, (end, -1))
        if now is None or not self._hidden:
            numbers = [sequence for _, sequence in self._by_time[first + offset : min(last, first + offset + limit)]]
        else:
            shown = (sequence for _, sequence in islice(self._by_time, first, last) if self._is_shown(sequence, now))
            numbers = list(islice(shown, offset, offset + limit))
        return [self._rows[sequence] for sequence in numbers]

    def sequence_range(self, first: int, last: int, now: int | None = None) -> list[FeedRow]:
        """Rows with first <= sequence <= last, by sequence; with `now` only those visible by then."""
        low = bisect_left(self._sequences, first)
        high = bisect_left(self._sequences, last + 1)
        return [self._rows[sequence] for sequence in self._sequences[low:high] if self._is_shown(sequence, now)]

    def latest_in_time(self, now: int | None = None) -> FeedRow | None:
        """The row with the greatest (ticks, sequence) that is visible by `now`; None when there is none."""
        return next((self._rows[s] for _, s in reversed(self._by_time) if self._is_shown(s, now)), None)

    def latest_by_sequence(self, now: int | None = None) -> FeedRow | None:
        """The row with the greatest sequence that is visible by `now`; None when there is none."""
        return next((self._rows[s] for s in reversed(self._sequences) if self._is_shown(s, now)), None)

    def _is_shown(self, sequence: int, now: int | None) -> bool:
        if now is None or sequence not in self._hidden:
            return True
        until = self._hidden[sequence]
        return until is not None and until <= now

    def _point_at(self, key: InstanceKey, watermark: int | None) -> None:
        for row in self._of_key[key]:
            row.current_watermark = watermark

    def _add(self, row: FeedRow) -> None:
        self._rows[row.sequence] = row
        self._of_key[row.key].append(row)
        insort(self._by_time, (row.ticks, row.sequence))
        insort(self._sequences, row.sequence)
