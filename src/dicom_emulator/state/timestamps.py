"""Instants as integer 100 ns ticks since 1970-01-01 UTC, and the ways the service reads and writes them.

Integers, never floats: the feed carries seven fraction digits and its order depends on the last one
(design/service-protocol.md: Timestamps).
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from email.utils import formatdate

TICKS_PER_SECOND = 10_000_000
_TICKS_PER_DAY = 86_400 * TICKS_PER_SECOND
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()

MIN_TICKS = (1 - _EPOCH_ORDINAL) * _TICKS_PER_DAY
"""0001-01-01T00:00:00Z, the feed's default start."""

MAX_TICKS = (date.max.toordinal() + 1 - _EPOCH_ORDINAL) * _TICKS_PER_DAY - 1
"""9999-12-31T23:59:59.9999999Z, the feed's default end."""

_ISO = re.compile(
    r"(?P<year>\d{4})-(?P<month>\d{1,2})-(?P<day>\d{1,2})[Tt ]"
    r"(?P<hour>\d{1,2}):(?P<minute>\d{1,2})(?::(?P<second>\d{1,2})(?:\.(?P<fraction>\d{1,7}))?)?"
    r"\s*(?:[Zz]|(?P<sign>[+-])(?P<zone_hour>\d{1,2})(?::(?P<zone_minute>\d{1,2}))?)"
)
_RFC1123 = re.compile(
    r"[A-Z][a-z]{2}, (?P<day>\d{1,2}) (?P<month>[A-Z][a-z]{2}) (?P<year>\d{4}) "
    r"(?P<hour>\d{2}):(?P<minute>\d{2}):(?P<second>\d{2}) GMT"
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def timestamp_text(ticks: int) -> str:
    """The instant as System.Text.Json writes it: offset `+00:00`, 0 to 7 fraction digits, no trailing zero.

    design/service-protocol.md: Timestamps.
    """
    days, in_day = divmod(ticks, _TICKS_PER_DAY)
    seconds, fraction = divmod(in_day, TICKS_PER_SECOND)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    text = f"{date.fromordinal(days + _EPOCH_ORDINAL).isoformat()}T{hour:02}:{minute:02}:{second:02}"
    if fraction:
        text += f".{fraction:07}".rstrip("0")
    return text + "+00:00"


def http_date(ticks: int) -> str:
    """The instant as an HTTP date (RFC 9110 §5.6.7), cut to whole seconds."""
    return formatdate(ticks // TICKS_PER_SECOND, usegmt=True)


def parse_time(text: str) -> int:
    """Ticks of a time with a zone, in the forms the service's binder accepts.

    design/service-protocol.md: Feed parameters.

    ISO with 0 to 7 fraction digits and `Z`, `+7`, `+7:0`, `-07`, `-07:00`; RFC 1123 with `GMT`.
    Raises ValueError for anything else: no zone, a date alone, a zone out of range.
    """
    text = text.strip()
    if match := _ISO.fullmatch(text):
        ticks = _ticks(match, int(match["month"])) + int((match["fraction"] or "").ljust(7, "0"))
        return _in_range(ticks - _zone_ticks(match))
    if (match := _RFC1123.fullmatch(text)) and match["month"] in _MONTHS:
        return _ticks(match, _MONTHS.index(match["month"]) + 1)
    raise ValueError("not a time with a zone")


def ticks_of(moment: datetime | str | int) -> int:
    """Ticks of an aware datetime, a time text (`parse_time`), or ticks themselves.

    Raises ValueError for a naive datetime or an unreadable text.
    """
    if isinstance(moment, int):
        return moment
    if isinstance(moment, str):
        return parse_time(moment)
    if moment.tzinfo is None:
        raise ValueError("a datetime needs a zone")
    moment = moment.astimezone(UTC)
    seconds = (moment.hour * 60 + moment.minute) * 60 + moment.second
    days = moment.date().toordinal() - _EPOCH_ORDINAL
    return days * _TICKS_PER_DAY + seconds * TICKS_PER_SECOND + moment.microsecond * 10


def _ticks(match: re.Match[str], month: int) -> int:
    day = date(int(match["year"]), month, int(match["day"]))
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"] or 0)
    if hour > 23 or minute > 59 or second > 59:
        raise ValueError("not a time of day")
    seconds = (hour * 60 + minute) * 60 + second
    return (day.toordinal() - _EPOCH_ORDINAL) * _TICKS_PER_DAY + seconds * TICKS_PER_SECOND


def _zone_ticks(match: re.Match[str]) -> int:
    if match["sign"] is None:
        return 0
    minutes = int(match["zone_hour"]) * 60 + int(match["zone_minute"] or 0)
    if minutes > 14 * 60 or int(match["zone_minute"] or 0) > 59:
        raise ValueError("not a zone")
    return minutes * 60 * TICKS_PER_SECOND * (-1 if match["sign"] == "-" else 1)


def _in_range(ticks: int) -> int:
    if not MIN_TICKS <= ticks <= MAX_TICKS:
        raise ValueError("outside the years 1 to 9999")
    return ticks
