"""FHIR dateTime from a DICOM date, a time and what is known of its zone, no more precise than the header."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from dicom_etl.outputs.fhir.reasons import LeftOut, Reason

_OFFSET: Final = re.compile(r"([+-])([01][0-9])([0-5][0-9])")
# PS3.5 6.2 (DT), in minutes.
_OFFSETS: Final = range(-12 * 60, 14 * 60 + 1)


def date_time(
    day: date | None, time: str | None, offset: str | None, zone: ZoneInfo | None, left_out: LeftOut
) -> str | None:
    """``YYYY-MM-DDThh:mm:ss[.f]±hh:mm``; the date alone where the time has no minutes or no zone (R4 dateTime).

    ``time`` is ``hh``, ``hh:mm``, ``hh:mm:ss`` or ``hh:mm:ss.f``. ``offset`` is the header's, ``+hhmm``, and counts
    before ``zone``. R4 lets seconds, and no minutes, be filled with zeros.
    """
    if day is None:
        if time is not None:
            left_out[Reason.TIME_WITHOUT_DATE] += 1
        return None
    if time is None:
        return day.isoformat()
    if len(time) < 5:
        left_out[Reason.TIME_WITHOUT_MINUTES] += 1
        return day.isoformat()
    clock = _clock(time, left_out)
    known = _offset(offset, left_out) or _offset_in(zone, day, clock)
    if known is None:
        left_out[Reason.TIME_WITHOUT_ZONE] += 1
        return day.isoformat()
    return f"{day.isoformat()}T{clock}{known}"


def _clock(time: str, left_out: LeftOut) -> str:
    """With seconds. PS3.5 6.2 allows a leap second; R4 does too, but the clocks of Java and .NET have no second 60."""
    if len(time) == 5:
        return f"{time}:00"
    if time[6:8] != "60":
        return time
    left_out[Reason.LEAP_SECOND] += 1
    return f"{time[:6]}59"


def _offset(text: str | None, left_out: LeftOut) -> str | None:
    """(0008,0201) as ``±hh:mm``; None when it is absent or no offset."""
    if text is None:
        return None
    found = _OFFSET.fullmatch(text)
    if found is not None:
        sign, hours, minutes = found.groups()
        signed = (int(hours) * 60 + int(minutes)) * (-1 if sign == "-" else 1)
        if signed in _OFFSETS:
            return _written(signed)
    left_out[Reason.OFFSET] += 1
    return None


def _offset_in(zone: ZoneInfo | None, day: date, clock: str) -> str | None:
    """The zone's offset at that local time; of an hour that clocks show twice the first, in a gap the one before."""
    if zone is None:
        return None
    local = datetime.combine(day, datetime.strptime(clock[:8], "%H:%M:%S").time(), zone)  # noqa: DTZ007
    offset = local.utcoffset()
    # Local mean time, before a country had zones, has seconds, which a FHIR offset has not.
    if offset is None or offset % timedelta(minutes=1):
        return None
    return _written(offset // timedelta(minutes=1))


def _written(minutes: int) -> str:
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
