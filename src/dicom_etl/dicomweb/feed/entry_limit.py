"""Where a reading of the feed ends when it may hold only so many entries.

design/architecture.md: Coverage and the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush
from itertools import groupby

from dicom_etl.core.timerange import Window, ceil_to_grid


class EntryLimit:
    """The last edge of the grid before which no more than ``max_entries`` entries are known to lie.

    ``end`` only moves left while entries become known, and never into the first window; once all entries
    before ``end`` are known, it is exact. ``entries`` is the number known before ``end``. Windows are never
    enumerated: only those that hold entries are remembered.
    """

    def __init__(self, window: Window, max_entries: int | None, grid_ticks: int | None) -> None:
        if max_entries is not None and (grid_ticks is None or grid_ticks < 1):
            raise ValueError("a reading can be cut only at the edges of a grid")
        self.end = window.end
        self.entries = 0
        self._start = window.start
        self._max_entries = max_entries
        self._grid_ticks = grid_ticks or 1
        self._counts: dict[int, int] = {}
        self._latest: list[int] = []  # a heap of negative window numbers
        self._first_entry: int | None = None

    def add(self, ticks: Iterable[int]) -> None:
        """Takes note of entries, in the order of time, each once."""
        if self._max_entries is None:
            self.entries += sum(1 for tick in ticks if tick < self.end)
            return
        for number, group in groupby(ticks, key=lambda tick: tick // self._grid_ticks):
            self._note(number, [tick for tick in group if tick < self.end])
        self._shrink(self._max_entries)

    def _note(self, number: int, ticks: list[int]) -> None:
        if not ticks:
            return
        if number not in self._counts:
            heappush(self._latest, -number)
        self._counts[number] = self._counts.get(number, 0) + len(ticks)
        self.entries += len(ticks)
        self._first_entry = min(ticks[0], self._first_entry or ticks[0])

    def _shrink(self, max_entries: int) -> None:
        first_window = self._start // self._grid_ticks
        while self.entries > max_entries and -self._latest[0] > first_window:
            number = -heappop(self._latest)
            self.entries -= self._counts.pop(number)
            self.end = number * self._grid_ticks
        if self.entries > max_entries:
            self.end = min(self.end, (first_window + 1) * self._grid_ticks)

    def plan(self, last: int, page_entries: int, page_ticks: int) -> int:
        """How far to read on after a full page that ended at ``last``: an edge of the grid, or ``end``.

        As much time as should hold what is left, by the density of that page or of all that is known,
        whichever is lower: a burst must not make the steps tiny.
        """
        if self._max_entries is None:
            return self.end
        left = max(0, self._max_entries - self.entries)
        ahead = left * max(1, page_ticks) // max(1, page_entries)
        if self._first_entry is not None and self.entries:
            ahead = max(ahead, left * (last - self._first_entry) // self.entries)
        return min(self.end, ceil_to_grid(last + 1 + ahead, self._grid_ticks))
