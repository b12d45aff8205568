"""Which attributes identify: DICOM PS3.15 Table E.1-1, read from ``profile.tsv``, and which option would keep each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from types import MappingProxyType
from typing import Final

from dicom_etl.outputs.columns.dictionary import Step
from dicom_etl.outputs.columns.tagpath import TagPath

# PS3.16 CID 7050: the options by the names that profile.tsv has for them.
OPTIONS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "graphics": ("113103", "Clean Graphics"),
        "content": ("113104", "Clean Structured Content"),
        "descriptors": ("113105", "Clean Descriptors"),
        "dates": ("113106", "Retain Longitudinal Temporal Information Full Dates"),
        "shifted": ("113107", "Retain Longitudinal Temporal Information Modified Dates"),
        "patient": ("113108", "Retain Patient Characteristics"),
        "device": ("113109", "Retain Device Identity"),
        "uids": ("113110", "Retain UIDs"),
        "private": ("113111", "Retain Safe Private"),
        "institution": ("113112", "Retain Institution Identity"),
    }
)


@dataclass(frozen=True, slots=True)
class Mark:
    """A row of Table E.1-1: the action of the Basic Profile, and per option ``K`` (keep) or ``C`` (clean)."""

    tag: str
    action: str
    options: Mapping[str, str]


# "Private Attributes" is a row of the table, too; an option keeps those that are known to be safe.
PRIVATE: Final = Mark("private", "X", MappingProxyType({"private": "C"}))


@lru_cache(maxsize=1)
def profile() -> Mapping[str, Mark]:
    """All rows by tag, eight digits or a mask with ``x`` for any digit, in the order of the tags."""
    rows: dict[str, Mark] = {}
    text = resources.files(__package__).joinpath("profile.tsv").read_text(encoding="utf-8")
    for line in text.splitlines():
        if not line.startswith("#"):
            tag, action, options = line.split("\t")
            rows[tag] = Mark(tag, action, MappingProxyType(dict(one.split("=") for one in options.split())))
    return MappingProxyType(rows)


def mark_of(step: Step) -> Mark | None:
    """The row of one attribute; None when it is not in the table."""
    if step.creator is not None:
        return PRIVATE
    tag = step.tag
    # Repeating groups: curves are there whole, of overlays two attributes.
    return next(
        (rows for mask in (tag, f"{tag[:2]}xxxxxx", f"{tag[:2]}xx{tag[4:]}") if (rows := profile().get(mask))), None
    )


def marks_of(path: TagPath) -> tuple[tuple[Step, Mark], ...]:
    """The attributes of a path that are in the table, each with its row; empty for a path that does not identify."""
    return tuple((step, mark) for step in path.steps if (mark := mark_of(step)) is not None)


def why_identifying(path: TagPath) -> str:
    """For a message: each attribute that identifies, its action, and the options that keep or clean it."""
    return "; ".join(_reason(step, mark) for step, mark in marks_of(path))


def _reason(step: Step, mark: Mark) -> str:
    name = f"{step.keyword or step.text.split('[')[0]} is in PS3.15 Table E.1-1 (Basic Profile: {mark.action})"
    verbs = {"K": "kept", "C": "kept once cleaned"}
    ways = [f"{verbs[how]} by option {OPTIONS[one][1]} ({OPTIONS[one][0]})" for one, how in mark.options.items()]
    return f"{name}, {' or '.join(ways) or 'kept by no option'}"
