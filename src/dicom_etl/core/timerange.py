"""Instants as 100 ns ticks since 1970 UTC, and half-open windows of them.

The service counts time in 100 ns (design/service-protocol.md: Timestamps); Python's ``datetime`` and Spark's
``TIMESTAMP`` hold microseconds. A boundary cut to microseconds loses rows, so everything that orders or bounds
the feed is an integer number of ticks; microseconds appear only in table columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

TICKS_PER_SECOND = 10_000_000
TICKS_PER_MICROSECOND = 10
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# RFC 3339, with what the service writes (`+00:00`, 0-7 digits) and what others send (`Z`, `+0100`).
_INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,7})0*)?(?:([Zz])|([+-])([01]\d|2[0-3]):?([0-5]\d))",
    re.ASCII,
)
_EXPECTED = "expected RFC 3339 with a zone, such as 2026-01-31T08:00:00Z"


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """The half-open range of time [start, end), both in ticks."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if self.end < self.start:
            raise ValueError("a window ends before it starts")

    @property
    def empty(self) -> bool:
        return self.start == self.end

    def as_row(self) -> dict[str, str]:
        """The keys ``start`` and ``end``, as RFC 3339."""
        return {"start": format_instant(self.start), "end": format_instant(self.end)}

    def __str__(self) -> str:
        return f"[{format_instant(self.start)}, {format_instant(self.end)})"


def parse_instant(text: str) -> int:
    """Ticks of an RFC 3339 date-time with a zone and 0-7 fraction digits.

    Raises ValueError for anything else; a time without a zone is refused rather than guessed, and so is one
    that lies outside the years 1 to 9999 in UTC.
    """
    match = _INSTANT.fullmatch(text.strip())
    if match is None:
        raise ValueError(_EXPECTED)
    year, month, day, hour, minute, second = (int(part) for part in match.group(1, 2, 3, 4, 5, 6))
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        moment -= timedelta(seconds=_offset_seconds(match))
    except (ValueError, OverflowError) as error:
        raise ValueError(_EXPECTED) from error
    seconds = (moment - EPOCH) // timedelta(seconds=1)
    return seconds * TICKS_PER_SECOND + int((match.group(7) or "").ljust(7, "0"))


def _offset_seconds(match: re.Match[str]) -> int:
    if match.group(8):
        return 0
    seconds = int(match.group(10)) * 3600 + int(match.group(11)) * 60
    return -seconds if match.group(9) == "-" else seconds


def format_instant(ticks: int) -> str:
    """RFC 3339 in UTC with ``Z``, trailing zeros of the fraction cut, all seven digits kept when they count.

    ``Z`` and not ``+00:00``: a plus sign in a query string becomes a space
    (design/service-protocol.md: Feed parameters).
    """
    seconds, fraction = divmod(ticks, TICKS_PER_SECOND)
    moment = EPOCH + timedelta(seconds=seconds)
    digits = f".{fraction:07d}".rstrip("0") if fraction else ""
    # isoformat, because strftime("%Y") does not pad years below 1000 everywhere.
    return moment.replace(tzinfo=None).isoformat() + digits + "Z"


def to_datetime(ticks: int) -> datetime:
    """The instant as an aware UTC ``datetime``, 100 ns cut to microseconds."""
    return EPOCH + timedelta(microseconds=ticks // TICKS_PER_MICROSECOND)


def from_datetime(moment: datetime) -> int:
    """Ticks of an aware ``datetime``; a naive one is a bug and raises ValueError."""
    if moment.tzinfo is None:
        raise ValueError("a naive datetime has no instant")
    return (moment - EPOCH) // timedelta(microseconds=1) * TICKS_PER_MICROSECOND


def union(windows: Iterable[Window]) -> list[Window]:
    """The same instants as disjoint windows, in order, touching ones joined."""
    joined: list[Window] = []
    for window in sorted(w for w in windows if not w.empty):
        if joined and window.start <= joined[-1].end:
            joined[-1] = Window(joined[-1].start, max(joined[-1].end, window.end))
        else:
            joined.append(window)
    return joined


def subtract(whole: Window, covered: Iterable[Window]) -> list[Window]:
    """What of ``whole`` lies in none of ``covered``, in order."""
    left: list[Window] = []
    position = whole.start
    for window in union(covered):
        if window.start >= whole.end:
            break
        if window.start > position:
            left.append(Window(position, window.start))
        position = max(position, window.end)
    if position < whole.end:
        left.append(Window(position, whole.end))
    return left


# A request costs more than some rows read in vain.
MOST_WINDOWS = 256


def windows_around(instants: Iterable[int], most: int = MOST_WINDOWS) -> list[Window]:
    """At most ``most`` disjoint windows, in order, that hold every instant (ticks), with the widest gaps left out."""
    ticks = sorted(set(instants))
    if not ticks:
        return []
    gaps = sorted(range(1, len(ticks)), key=lambda i: ticks[i] - ticks[i - 1], reverse=True)[: most - 1]
    edges = [0, *sorted(gaps), len(ticks)]
    return [Window(ticks[first], ticks[end - 1] + 1) for first, end in pairwise(edges)]


def floor_to_grid(ticks: int, step: int) -> int:
    """The last multiple of ``step`` (since 1970 UTC) at or before ``ticks``."""
    return ticks // step * step


def ceil_to_grid(ticks: int, step: int) -> int:
    """The first multiple of ``step`` (since 1970 UTC) at or after ``ticks``."""
    return -(-ticks // step) * step


_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(value: object) -> int:
    """Ticks of ``90s``, ``15m``, ``1h`` or ``2d``; raises ValueError for anything else."""
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected a duration such as 90s, 15m or 1h")
    return int(match.group(1)) * _UNIT_SECONDS[match.group(2)] * TICKS_PER_SECOND


def format_duration(ticks: int) -> str:
    """The duration in the largest unit that writes it whole: ``15m``."""
    seconds = ticks // TICKS_PER_SECOND
    unit = next(u for u in ("d", "h", "m", "s") if seconds % _UNIT_SECONDS[u] == 0)
    return f"{seconds // _UNIT_SECONDS[unit]}{unit}" if seconds else "0s"
