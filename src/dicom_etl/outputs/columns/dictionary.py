"""One attribute of a path, and what pydicom's dictionaries (PS3.6, private ones) say of it."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from pydicom._dicom_dict import DicomDictionary, RepeatersDictionary
from pydicom.datadict import dictionary_VR, private_dictionary_VR, tag_for_keyword

from dicom_etl.core.errors import UsageError

Index = int | Literal["*"] | None

# A VR that no dictionary knows; PS3.5 calls it so, too.
UNKNOWN: Final = "UN"
_NEEDS_QUOTES = re.compile(r"[\[\]:.@]")
_REPEATERS: Final = {entry[4]: mask for mask, entry in RepeatersDictionary.items()}


@dataclass(frozen=True, slots=True)
class Step:
    """One attribute of a path.

    ``tag`` is eight upper-case digits, with ``xx`` for the block of a private one (``0019xx0C``). ``keyword`` is
    the dictionary's, None without one. ``index`` chooses an item of a sequence (there it is always set) or a value of
    the last attribute (None: the first); ``*`` takes all.
    """

    tag: str
    keyword: str | None = None
    creator: str | None = None
    index: Index = None

    @property
    def number(self) -> str:
        """``gggg,eeee``"""
        return f"{self.tag[:4]},{self.tag[4:]}"

    @property
    def text(self) -> str:
        """As it is written in a path."""
        name = self.keyword or self.number
        if self.creator is not None:
            name += f'@"{self.creator}"' if _NEEDS_QUOTES.search(self.creator) else f"@{self.creator}"
        return name if self.index is None else f"{name}[{self.index}]"


def standard_step(tag: str, index: Index = None) -> Step:
    """The step of a standard tag of eight digits."""
    entry = DicomDictionary.get(int(tag, 16))
    return Step(tag.upper(), (entry[4] or None) if entry else None, None, index)


def keyword_step(keyword: str, index: Index = None) -> Step:
    """The step of a keyword. Raises UsageError, with the nearest right one, when there is none such."""
    number = tag_for_keyword(keyword)
    if number is not None:
        return Step(f"{number:08X}", keyword, None, index)
    if mask := _REPEATERS.get(keyword):
        raise UsageError(f"{keyword} is ({mask[:4]},{mask[4:]}), in several groups: write the number of one of them")
    raise UsageError(f"no attribute is called {keyword}; did you mean {nearest_keyword(keyword)}?")


def nearest_keyword(text: str) -> str:
    """The keyword of the dictionary that is most like the text, whatever the case."""
    keywords = _by_lower_case()
    return keywords[difflib.get_close_matches(text.lower(), keywords, n=1, cutoff=0.0)[0]]


def vr_of(step: Step) -> str:
    """The VR by the dictionaries, ``US or SS`` where it depends; UNKNOWN when they do not have the tag."""
    try:
        if step.creator is not None:
            return str(private_dictionary_VR(int(step.tag.replace("xx", "10"), 16), step.creator))
        return str(dictionary_VR(int(step.tag, 16)))
    except KeyError:
        return UNKNOWN


@lru_cache(maxsize=1)
def _by_lower_case() -> dict[str, str]:
    return {entry[4].lower(): entry[4] for entry in DicomDictionary.values() if entry[4]}
