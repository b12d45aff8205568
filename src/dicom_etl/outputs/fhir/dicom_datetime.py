"""A DICOM DT (PS3.5 6.2) as a FHIR dateTime, by the rule of all times."""

from __future__ import annotations

import re
from datetime import date
from typing import Final
from zoneinfo import ZoneInfo

from dicom_etl.outputs.fhir.reasons import LeftOut
from dicom_etl.outputs.fhir.times import date_time

_TIME: Final = (
    r"(?P<hour>[01][0-9]|2[0-3])(?:(?P<minute>[0-5][0-9])(?:(?P<second>[0-5][0-9]|60)(?P<part>\.[0-9]{1,6})?)?)?"
)
_DT: Final = re.compile(
    rf"(?P<year>[0-9]{{4}})(?:(?P<month>[0-9]{{2}})(?:(?P<day>[0-9]{{2}})(?:{_TIME})?)?)?(?P<offset>[+-][0-9]{{4}})?"
)


def dicom_datetime(value: str, offset: str | None, zone: ZoneInfo | None, left_out: LeftOut) -> str | None:
    """The dateTime, as precise as the value is; None for what is no DT.

    The value's own offset counts before the header's ``offset`` (0008,0201), this before ``zone``.
    """
    found = _DT.fullmatch(value)
    if found is None:
        return None
    year, month, day = found.group("year", "month", "day")
    try:
        whole = date(int(year), int(month or 1), int(day or 1))
    except ValueError:
        return None
    if day is None:
        return f"{year}-{month}" if month else year
    return date_time(whole, _time(found), found["offset"] or offset, zone, left_out)


def _time(found: re.Match[str]) -> str | None:
    clock = ":".join(part for part in found.group("hour", "minute", "second") if part)
    part = (found["part"] or "").rstrip("0")
    return clock + (part if len(part) > 1 else "") if clock else None
