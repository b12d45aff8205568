"""The column of a path: names as ours are, safe for Delta without column mapping and for Fabric's SQL endpoint."""

from __future__ import annotations

import re
from typing import Final

from dicom_etl.core.attributes import INSTANCE_KEY
from dicom_etl.core.errors import UsageError
from dicom_etl.outputs.columns.dictionary import Step
from dicom_etl.outputs.columns.tagpath import TagPath

MAX_LENGTH: Final = 128
# Columns that the tables of tags have of their own, in all three levels.
RESERVED: Final = frozenset(
    (
        *INSTANCE_KEY,
        "sequence",
        "createdSequence",
        "lastModifiedTimestamp",
        "headerState",
        "headerQuality",
        "settledAt",
        "expectedInstances",
        "missingNumbers",
        "reopened",
        "instanceCount",
        "seriesCount",
        "runId",
        # What a computation of theirs calls its own columns.
        "effect",
        "was",
        "missing",
        "moments",
    )
)
# The number of distinct values stands beside a column of series and study.
COUNT_SUFFIX: Final = "_values"
_RESERVED_LOWER = frozenset(name.lower() for name in RESERVED)

# UID, KVP, SOP before Class; digits belong to the word before them.
_WORDS = re.compile(r"(?:[A-Z]+(?![a-z])|[A-Z]?[a-z]+)[0-9]*|[0-9]+")
_CREATOR_WORDS = re.compile(r"[A-Za-z0-9]+")
_SAFE = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_GROUPS = ("ideographic", "phonetic")


def column_name(path: TagPath) -> str:
    """The name of a path without one of its own: camel case, ``_`` between attributes, ASCII.

    Types are no part of it. Item 0 of a sequence is not named, item n is ``_n``, ``[*]`` is ``_all``, a value chosen
    by ``[n]`` is ``_n``. Raises UsageError when it is longer than 128 characters.
    """
    *outer, last = path.steps
    parts = [part for step in outer for part in (_attribute(step), *_index(step, named_from=1))]
    parts += [_attribute(last), *_index(last, named_from=0)]
    if path.modifier in _GROUPS:
        parts.append(path.modifier)
    name = "_".join(parts)
    if len(name) > MAX_LENGTH:
        raise UsageError(f"{path.text}: its name is longer than {MAX_LENGTH} characters: give it one by name=")
    return name


def check_name(name: str) -> str:
    """The name itself when a column may have it. Raises UsageError."""
    if not _SAFE.fullmatch(name) or len(name) > MAX_LENGTH:
        raise UsageError(f"column {name}: use up to {MAX_LENGTH} letters of a to z, digits and _, a letter first")
    if name.lower() in _RESERVED_LOWER:
        raise UsageError(f"column {name}: the tables have a column of this name already: give another by name=")
    if name.lower().endswith(COUNT_SUFFIX):
        raise UsageError(f"column {name}: names with {COUNT_SUFFIX} are kept for counts: give another by name=")
    return name


def camel(keyword: str) -> str:
    """``FrameOfReferenceUID`` as ``frameOfReferenceUid``, ``KVP`` as ``kvp``."""
    return _joined(_WORDS.findall(keyword))


def _attribute(step: Step) -> str:
    if step.creator is not None:
        return f"{_creator(step.creator)}_{step.tag[:4].lower()}_{step.tag[6:].lower()}"
    return camel(step.keyword) if step.keyword else f"tag_{step.tag.lower()}"


def _creator(creator: str) -> str:
    name = _joined(_CREATOR_WORDS.findall(creator)) or "private"
    return name if name[0].isalpha() else f"private{name}"


def _index(step: Step, *, named_from: int) -> list[str]:
    if step.index == "*":
        return ["all"]
    return [str(step.index)] if step.index is not None and step.index >= named_from else []


def _joined(words: list[str]) -> str:
    lowered = [word.lower() for word in words]
    return "".join(lowered[:1] + [word[0].upper() + word[1:] for word in lowered[1:]])
