"""Counts, durations and instants as people write them; pure."""

from __future__ import annotations

from datetime import datetime, timedelta

from dicom_etl.core.timerange import TICKS_PER_SECOND, Window, to_datetime

_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86_400, 365 * 86_400
# From these seconds on the larger unit says enough: 90 minutes are still "1 hour 30 minutes".
_WHOLE_HOURS = 12 * _HOUR
_WHOLE_DAYS = 2 * _DAY
_WHOLE_YEARS = 2 * _YEAR


def number(count: int) -> str:
    """``1,204``."""
    return f"{count:,}"


def counted(count: int, one: str, many: str | None = None) -> str:
    """``no rows``, ``1 row``, ``1,204 rows``; ``many`` is the plural where it is not ``one`` with an s."""
    noun = one if count == 1 else many or f"{one}s"
    return f"{number(count) if count else 'no'} {noun}"


def duration(seconds: float) -> str:
    """``47 seconds``, ``15 minutes``, ``1 hour 30 minutes``, ``3 days``: in the units that matter, rounded."""
    whole = round(seconds)
    if whole < 1:
        return "less than a second"
    if whole < _MINUTE:
        return counted(whole, "second")
    minutes = round(whole / _MINUTE)
    if minutes * _MINUTE < _HOUR:
        return counted(minutes, "minute")
    if whole < _WHOLE_HOURS:
        hours, rest = divmod(minutes, 60)
        return counted(hours, "hour") + (f" {counted(rest, 'minute')}" if rest else "")
    if whole < _WHOLE_DAYS:
        return counted(round(whole / _HOUR), "hour")
    if whole < _WHOLE_YEARS:
        return counted(round(whole / _DAY), "day")
    return counted(round(whole / _YEAR), "year")


def instant(ticks: int, now: int) -> str:
    """``03:47 UTC`` on the day of ``now`` (ticks), else ``2026-05-01 03:47 UTC``; seconds are cut."""
    moment, today = to_datetime(ticks), to_datetime(now).date()
    return f"{moment:%H:%M} UTC" if moment.date() == today else f"{_day(moment)} {moment:%H:%M} UTC"


def since(ticks: int, now: int) -> str:
    """The instant, and how long before ``now`` it was: ``03:47 UTC, 15 minutes ago``."""
    return f"{instant(ticks, now)}, {duration(max(0, now - ticks) / TICKS_PER_SECOND)} ago"


def span(window: Window) -> str:
    """``2026-05-01 09:00 to 10:00``, in UTC; the day of the end where it is another, seconds where there are any.

    A midnight that ends the day is ``24:00``.
    """
    start, end = to_datetime(window.start), to_datetime(window.end)
    clock = "%H:%M:%S" if start.second or end.second else "%H:%M"
    if end.date() == start.date():
        last = format(end, clock)
    elif end == _midnight_after(start):
        last = "24:00:00" if start.second else "24:00"
    else:
        last = f"{_day(end)} {end:{clock}}"
    return f"{_day(start)} {start:{clock}} to {last}"


def timestamp(moment: datetime) -> str:
    """``2026-05-01 09:00:12``; fractions are cut."""
    return f"{_day(moment)} {moment:%H:%M:%S}"


def size(count: int) -> str:
    """``0 bytes``, ``512 bytes``, ``3.4 MB``: bytes in decimal units."""
    value, unit = float(count), "bytes"
    for unit_above in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, unit_above
    return f"{count} bytes" if unit == "bytes" else f"{value:.1f} {unit}"


def _midnight_after(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)


def _day(moment: datetime) -> str:
    # Not %Y, which does not pad years below 1000 everywhere.
    return moment.date().isoformat()
