"""The one table from a value representation (VR) to a column's type, and the outcomes of reading.

docs/tags.md is generated from it. A value of a header is one member of the element's ``Value``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from enum import IntEnum
from typing import Final, Literal

ColumnType = Literal["string", "long", "double", "date", "timestamp"]
Value = str | int | float | date | datetime | None
# How a member of ``Value`` becomes a column's value; the groups of a person's name are told apart by the reader.
Form = Literal[
    "text", "alphabetic", "ideographic", "phonetic", "decimal", "float", "long", "date", "day", "time", "timestamp"
]

# Raised by one when a converter changes, so that digests of designs change with it.
CONVERSION: Final = 1


class Outcome(IntEnum):
    """What became of one column in one header. The value is null exactly in those of ``LOST``."""

    ABSENT = 0
    PRESENT = 1
    SEVERAL = 2
    OTHER_VR = 3
    EMPTY = 4
    WRONG_VR = 5
    UNPARSABLE = 6
    BINARY = 7


LOST: Final = frozenset((Outcome.ABSENT, Outcome.EMPTY, Outcome.WRONG_VR, Outcome.UNPARSABLE, Outcome.BINARY))

OUTCOME_TEXTS: Final[Mapping[Outcome, str]] = {
    Outcome.ABSENT: "the header has no such element; so is every column of a header that is missing or unreadable",
    Outcome.PRESENT: "the value is in the column, and nothing was left out",
    Outcome.SEVERAL: "the first of several values, or of several items of a sequence, is in the column",
    Outcome.OTHER_VR: "the value is in the column, though the header gives the element another VR",
    Outcome.EMPTY: "no value: none at all, null, blank, or fewer values or items than the path asks for",
    Outcome.WRONG_VR: "the header gives another VR, and the value is none of the column's type",
    Outcome.UNPARSABLE: "the VR is right, and the value is none of the column's type",
    Outcome.BINARY: "the value is not in the header: `InlineBinary` or `BulkDataURI` in its place",
}


@dataclass(frozen=True, slots=True)
class VrRule:
    """The forms that a VR may take, by what is written behind the colon, the default first; and how it is read."""

    forms: Mapping[str, Form]
    note: str

    @property
    def default(self) -> str:
        return next(iter(self.forms))


TYPES: Final[Mapping[Form, ColumnType]] = {
    "text": "string",
    "alphabetic": "string",
    "ideographic": "string",
    "phonetic": "string",
    "decimal": "double",
    "float": "double",
    "long": "long",
    "date": "date",
    "day": "date",
    "time": "string",
    "timestamp": "timestamp",
}

_PADDED = "spaces and NULs at both ends are stripped"
_TEXT = VrRule({"text": "text"}, _PADDED)
_SHORT = VrRule({"text": "text", "long": "long", "double": "decimal", "date": "date"}, _PADDED)
_INTEGER = VrRule(
    {"long": "long", "double": "decimal", "text": "text"},
    "64 bits with a sign; what is larger or has a fraction is unparsable",
)
_FLOAT = VrRule({"double": "float", "long": "long", "text": "text"}, "NaN and the infinities are values of a double")

VRS: Final[Mapping[str, VrRule]] = {
    "AE": _TEXT,
    "AS": _TEXT,
    "AT": VrRule({"text": "text"}, "eight hexadecimal digits"),
    "CS": _SHORT,
    "DA": VrRule({"date": "date", "text": "text"}, "eight digits that are a date"),
    "DS": VrRule(
        {"double": "decimal", "long": "long", "text": "text"}, "with a decimal comma, or NaN, it is unparsable"
    ),
    "DT": VrRule(
        {"text": "text", "timestamp": "timestamp", "date": "day"},
        "as written; `:timestamp` takes those with minutes and an offset from UTC, `:date` those with a day",
    ),
    "FD": _FLOAT,
    "FL": _FLOAT,
    "IS": _INTEGER,
    "LO": _SHORT,
    "LT": _TEXT,
    "PN": VrRule(
        {"alphabetic": "alphabetic", "ideographic": "ideographic", "phonetic": "phonetic"},
        "one group of the name; what is plain text is its alphabetic group",
    ),
    "SH": _SHORT,
    "SL": _INTEGER,
    "SS": _INTEGER,
    "ST": _TEXT,
    "SV": _INTEGER,
    "TM": VrRule(
        {"time": "time", "text": "text"},
        "`hh`, `hh:mm`, `hh:mm:ss` or `hh:mm:ss.f`, as precise as the header; `:text` as written",
    ),
    "UC": _SHORT,
    "UI": _TEXT,
    "UL": _INTEGER,
    "UR": _TEXT,
    "US": _INTEGER,
    "UT": _TEXT,
    "UV": _INTEGER,
    "UN": VrRule(
        {"text": "text", "double": "float", "long": "long", "date": "date", "timestamp": "timestamp"},
        "stands for a tag that no dictionary has; whatever VR a header gives it will do",
    ),
}
BINARY_VRS: Final = frozenset(("OB", "OD", "OF", "OL", "OV", "OW"))


def rule_of(vr: str) -> VrRule | None:
    """The rule of a VR as a dictionary writes it (``US or SS``); None for a binary one, and for what is no value."""
    return next((VRS[one] for one in vr.split(" or ") if one in VRS), None)
