"""The FHIR primitives that DICOM values become: string, id, code, unsignedInt, uri. What cannot be one is None."""

from __future__ import annotations

import re
from typing import Final

from dicom_etl.core.values import stripped
from dicom_etl.outputs.fhir.reasons import LeftOut, Reason

# R4 string: no code points below 32 but tab, line feed, carriage return. DEL, C1, half surrogate pairs and
# noncharacters are no characters of XML, in which a server may answer.
_CONTROLS: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_ID: Final = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_CODE: Final = re.compile(r"\S+(\s\S+)*")
_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")
_MOST: Final = 2**31 - 1


def text(value: str | None, left_out: LeftOut) -> str | None:
    """A FHIR string: no control characters, no white space at the ends, and None rather than an empty one."""
    if value is None:
        return None
    if not value.isprintable():
        value, removed = _CONTROLS.subn("", value)
        if removed:
            left_out[Reason.CHARACTERS] += 1
    return value.strip() or None


def code(value: str | None) -> str | None:
    """A FHIR code: no white space but single spaces between words."""
    found = text(value, LeftOut())
    return found if found is not None and _CODE.fullmatch(found) else None


def id_of_uid(value: str | None, left_out: LeftOut) -> str | None:
    """A UID without padding as a FHIR id (``ImagingStudy.series.uid`` is one); None when it cannot be one."""
    uid = stripped(value) or ""
    if _ID.fullmatch(uid):
        return uid
    left_out[Reason.UID] += 1
    return None


def urn_of_uid(value: str | None) -> str | None:
    """``urn:oid:`` with the UID, which PS3.5 9.1 limits to 64 digits and dots; None when it is none."""
    uid = stripped(value) or ""
    return f"urn:oid:{uid}" if len(uid) <= 64 and _UID.fullmatch(uid) else None


def unsigned(value: int | None, left_out: LeftOut) -> int | None:
    """A FHIR unsignedInt; an IS of DICOM may be negative."""
    if value is None or 0 <= value <= _MOST:
        return value
    left_out[Reason.NUMBER] += 1
    return None
