"""Attributes by their keyword or tag, as a person writes them (PS3.6; PS3.18 §8.3.4.1)."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

from pydicom.datadict import dictionary_VM, dictionary_VR, keyword_dict, keyword_for_tag

from dicom_etl.core.errors import UsageError

_TAG = re.compile(r"\(?([0-9A-Fa-f]{4}),?([0-9A-Fa-f]{4})\)?")
# What can be a keyword is said back; anything else may be a value that stands in the wrong place.
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")


@dataclass(frozen=True, slots=True)
class Keyword:
    """An attribute: its tag as 8 upper-case hex digits, and the standard's keyword or, without one, the tag again."""

    tag: str
    name: str

    @property
    def is_single(self) -> bool:
        """Whether the standard gives it one value at most; what it does not know may have many."""
        return self.name != self.tag and dictionary_VM(int(self.tag, 16)) == "1"

    @property
    def vr(self) -> str:
        """The standard's VR; "" where it has none."""
        return "" if self.name == self.tag else str(dictionary_VR(int(self.tag, 16)))


def keyword(text: str) -> Keyword:
    """The attribute of a keyword, of ``00100020``, ``0010,0020`` or ``(0010,0020)``.

    Raises UsageError that names the nearest keyword.
    """
    if match := _TAG.fullmatch(text.strip()):
        tag = (match[1] + match[2]).upper()
        return Keyword(tag, keyword_for_tag(int(tag, 16)) or tag)
    if text in keyword_dict:
        return Keyword(f"{keyword_dict[text]:08X}", text)
    if not _WORD.fullmatch(text):
        raise UsageError("expected a DICOM keyword such as PatientID, or a tag such as 00100020")
    raise UsageError(f"{text}: no DICOM keyword{_nearest(text)}")


def _nearest(text: str) -> str:
    by_lower = {name.lower(): name for name in keyword_dict if name}
    near = difflib.get_close_matches(text.lower(), by_lower, n=1, cutoff=0.6)
    return f"; did you mean {by_lower[near[0]]}?" if near else "; see PS3.6 of the standard, or give its tag"
