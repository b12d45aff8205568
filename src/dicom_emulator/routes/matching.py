"""How a search value meets an attribute's: exact, wildcard, date range, person name (PS3.4 C.2.2.2)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from datetime import datetime

Matcher = Callable[[Iterable[str]], bool]
"""Whether one of an attribute's values matches; no values: the attribute is empty."""


def matcher(vr: str, wanted: str, fuzzy: bool) -> Matcher:
    """The matcher of a search value for a VR. Raises ValueError for a value the VR cannot have.

    `*` and `?` are wildcards in text VRs (a courtesy to clients: the open server compares them as they are); `*` alone
    matches an empty attribute too. UIDs may be a list. Person names ignore case and accents; with `fuzzy`
    every word must begin a word of the name.
    """
    if vr == "DA":
        return _date_matcher(wanted)
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
