"""How a search value meets an attribute's: exact, wildcard, date range, person name (PS3.4 C.2.2.2)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

Matcher = Callable[[Iterable[str]], bool]
"""Whether one of an attribute's values matches; no values: the attribute is empty."""


_MOMENTS = {
    "TM": re.compile(r"(?P<digits>\d{2}(\d{2}(\d{2})?)?)(\.(?P<fraction>\d{1,6}))?"),
    "DT": re.compile(r"(?P<digits>\d{4}(\d{2}){0,5})(\.(?P<fraction>\d{1,6}))?([+-]\d{4})?"),
}
_NUMBERS: Mapping[str, Callable[[str], float]] = {
    "FD": float, "FL": float, "IS": int, "SL": int, "SS": int, "UL": int, "US": int,
}  # fmt: skip


def matcher(vr: str, wanted: str, fuzzy: bool) -> Matcher:
    """The matcher of a search value for a VR. Raises ValueError for a value the VR cannot have.

    `*` and `?` are wildcards in text VRs (a courtesy to clients: the open server compares them as they are); `*` alone
    matches an empty attribute too. UIDs may be a list. Person names ignore case and accents; with `fuzzy`
    every word must begin a word of the name.
    """
    if vr == "DA":
        return _date_matcher(wanted)
    if vr in _MOMENTS:
        return _moment_matcher(vr, wanted)
    if vr in _NUMBERS:
        number = _NUMBERS[vr](wanted)
        return lambda values: any(_NUMBERS[vr](value) == number for value in values)
    if vr == "UI":
        uids = {uid.strip() for uid in re.split(r"[,\\]", wanted)}
        return lambda values: any(value.rstrip(" ") in uids for value in values)
    if vr == "PN" and fuzzy:
        return _words_matcher(wanted)
    fold: Callable[[str], str] = _folded if vr == "PN" else str
    if wanted.strip("*") == "":
        return lambda _values: True
    pattern = re.compile(_wildcards(fold(wanted)), re.DOTALL)
    return lambda values: any(pattern.fullmatch(fold(value)) for value in values)


def _moment_matcher(vr: str, wanted: str) -> Matcher:
    """A time (TM) or a date and time (DT), which may leave out its end, or an inclusive range of two."""
    first, dash, last = (part.strip() for part in wanted.partition("-"))
    low, high = (_moment(vr, text) if text else None for text in (first, last))
    if low is None and high is None:
        raise ValueError("a range needs one end")
    if not dash:
        return lambda values: any(_moment(vr, value) == low for value in values)
    if low is not None and high is not None and low > high:
        raise ValueError("the range is reversed")
    return lambda values: any((low or "") <= _moment(vr, value) <= (high or "~") for value in values)


def _moment(vr: str, text: str) -> str:
    """All its digits, with the first of what is left out; an offset from UTC is not looked at."""
    match = _MOMENTS[vr].fullmatch(text.strip().rstrip("\0"))
    if match is None:
        raise ValueError("not a time")
    least = "00000101000000" if vr == "DT" else "000000"
    digits, fraction = match["digits"], match["fraction"] or ""
    return digits + least[len(digits) :] + fraction.ljust(6, "0")


def _wildcards(text: str) -> str:
    return re.escape(text).replace(r"\*", ".*").replace(r"\?", ".")


def _folded(text: str) -> str:
    """Without case, accents and the carets that a name may end with."""
    letters = unicodedata.normalize("NFKD", text.strip().rstrip("^"))
    return "".join(one for one in letters if not unicodedata.combining(one)).casefold()


def _words_matcher(wanted: str) -> Matcher:
    prefixes = _words(wanted)

    def match(values: Iterable[str]) -> bool:
        words = [word for value in values for word in _words(value)]
        return all(any(word.startswith(prefix) for word in words) for prefix in prefixes)

    return match


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[\s^=]+", _folded(name)) if word]


def _date_matcher(wanted: str) -> Matcher:
    """A date `yyyyMMdd`, or an inclusive range `a-b`, `a-`, `-b`."""
    first, dash, last = (part.strip() for part in wanted.partition("-"))
    if not first and not last:
        raise ValueError("a range needs one end")
    for text in filter(None, (first, last)):
        datetime.strptime(text, "%Y%m%d")  # noqa: DTZ007 - a date without time
        if len(text) != 8:
            raise ValueError("not yyyyMMdd")
    if not dash:
        return lambda values: first in values
    if first and last and first > last:
        raise ValueError("the range is reversed")
    return lambda values: any((first or value) <= value <= (last or value) for value in values)
