"""What of the feed is due: pure arithmetic on half-open ranges of ticks.

design/architecture.md: Coverage and the ledger.

Nothing here enumerates windows, so ten years without a run cost as much as one hour.
"""

from __future__ import annotations

from collections.abc import Iterable

from dicom_etl.core.errors import ConfigurationError
from dicom_etl.core.timerange import (
    TICKS_PER_MICROSECOND,
    Window,
    ceil_to_grid,
    floor_to_grid,
    format_instant,
    subtract,
    union,
)


def due(now: int, *, start: int, window: int, delay: int, covered: Iterable[Window]) -> list[Window]:
    """The stretches to read now, oldest first: disjoint, not touching, none empty.

    They are the whole windows of the grid that ended by ``now - delay``, from ``start`` (`feed.start`),
    minus ``covered``. Of a window that is partly covered only the rest is due, and the first one begins at
    ``start``, not at the grid. All in ticks.
    """
    return until(floor_to_grid(now - delay, window), start=start, covered=covered)


def until(end: int, *, start: int, covered: Iterable[Window]) -> list[Window]:
    """Every uncovered stretch of [``start``, ``end``), oldest first; the last one may end off the grid.

    ``start`` is taken down to the microsecond: the ledger keeps microseconds, so a seventh digit would leave
    less than one uncovered, and always due.
    """
    start = floor_to_grid(start, TICKS_PER_MICROSECOND)
    return subtract(Window(start, end), covered) if end > start else []


def cut(stretch: Window, read_until: int, window: int) -> Window:
    """The front of ``stretch`` that a run which stopped at ``read_until`` may merge and record.

    It ends at the last edge of the grid at or before ``read_until``, but holds at least the first window, and
    never more than the stretch.
    """
    first_edge = floor_to_grid(stretch.start, window) + window
    end = max(floor_to_grid(read_until, window), first_edge)
    return Window(stretch.start, min(end, stretch.end))


def coverage_end(read: Window, now: int, delay: int) -> int:
    """Up to where ``read`` counts as covered: min(its end, ``now - delay``), and never before its start.

    Later rows of the range may still become visible, so it stays due from there.
    """
    return max(read.start, min(read.end, now - delay))


def covered_until(start: int, covered: Iterable[Window]) -> int:
    """The end of the coverage that is contiguous from ``start`` (`feed.start`); ``start`` when there is none.

    ``now - covered_until`` is the lag.
    """
    start = floor_to_grid(start, TICKS_PER_MICROSECOND)
    for stretch in union(covered):
        if stretch.start <= start < stretch.end:
            return stretch.end
    return start


def require_past_start(start: int, now: int) -> None:
    """Raise ConfigurationError for a `feed.start` after ``now``: nothing would ever be due, and nothing seem to lag."""
    if start > now:
        raise ConfigurationError(f"feed.start: {format_instant(start)} is still to come; name a time that is past")


def windows_in(stretches: Iterable[Window], window: int) -> int:
    """How many windows of the grid the stretches touch; one that two stretches share counts once."""
    whole = union(Window(floor_to_grid(s.start, window), ceil_to_grid(s.end, window)) for s in stretches if not s.empty)
    return sum((w.end - w.start) // window for w in whole)
