"""The elements of a header one by one, as msgspec leaves them: by path, through sequences and private blocks.

Slow and tolerant: each element is decoded by itself, so that an odd one affects only the columns that read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import Raw

from dicom_etl.core.values import UNDECODABLE
from dicom_etl.outputs.columns.dictionary import Step
from dicom_etl.outputs.columns.vr import Outcome

Elements = Mapping[str, Raw]


@dataclass(frozen=True, slots=True)
class Found:
    """The undecoded members at a path, PRESENT or SEVERAL; or why there are none. ``vr`` is the header's."""

    outcome: Outcome
    members: Sequence[Raw] = ()
    vr: str | None = None


class _Element(msgspec.Struct, gc=False):
    vr: Raw = Raw()
    value: Raw = msgspec.field(default=Raw(), name="Value")
    inline: Raw = msgspec.field(default=Raw(), name="InlineBinary")
    bulk: Raw = msgspec.field(default=Raw(), name="BulkDataURI")


NULL: Final = Raw(b"null")
_ELEMENTS = msgspec.json.Decoder(dict[str, Raw])
_ELEMENT = msgspec.json.Decoder(_Element)
_MEMBERS = msgspec.json.Decoder(list[Raw])
_TEXT = msgspec.json.Decoder(str)
_MISSING = Raw()
_BAD = (Outcome.BINARY, Outcome.WRONG_VR, Outcome.UNPARSABLE)


def elements_of(header: bytes | Raw) -> Elements:
    """The elements of a dataset by their keys; of two with one key the last. Raises what UNDECODABLE has."""
    return _ELEMENTS.decode(header)


def find(steps: Sequence[Step], elements: Elements) -> Found:
    """What stands at a path. Nothing raises: what is no such thing is UNPARSABLE."""
    step, *rest = steps
    try:
        found = _members(_raw(step, elements))
        if found.outcome is not Outcome.PRESENT:
            return found
        return _in_items(step, rest, found) if rest else _chosen(step, found)
    except UNDECODABLE:
        return Found(Outcome.UNPARSABLE)


def _raw(step: Step, elements: Elements) -> Raw:
    if step.creator is None:
        return elements.get(step.tag, _MISSING)
    return next((raw for key in _private_keys(step, elements) if (raw := elements.get(key))), _MISSING)


def _private_keys(step: Step, elements: Elements) -> list[str]:
    """The keys that the tag may have in this dataset: one for each block that its creator reserved (PS3.5 7.8.1)."""
    group, low = step.tag[:4], step.tag[6:]
    # Creators stand at (gggg,0010) to (gggg,00FF).
    creators = sorted(key for key in elements if key.startswith(f"{group}00") and len(key) == 8 and key[6:] >= "10")
    return [f"{group}{key[6:]}{low}" for key in creators if _creator(elements[key]) == step.creator]


def _creator(raw: Raw) -> str | None:
    try:
        members = _members(raw).members
        return _TEXT.decode(members[0]).strip(" \0") if members else None
    except UNDECODABLE:
        return None


def _members(raw: Raw) -> Found:
    if not raw:
        return Found(Outcome.ABSENT)
    if raw == NULL:
        return Found(Outcome.EMPTY)
    element = _ELEMENT.decode(raw)
    vr = _vr(element.vr)
    members = _MEMBERS.decode(element.value) if element.value and element.value != NULL else []
    if members:
        return Found(Outcome.PRESENT, members, vr)
    return Found(Outcome.BINARY if element.inline or element.bulk else Outcome.EMPTY, vr=vr)


def _vr(raw: Raw) -> str | None:
    try:
        return _TEXT.decode(raw) if raw else None
    except UNDECODABLE:
        return None


def _chosen(step: Step, found: Found) -> Found:
    """The members that the index of the last step chooses."""
    members, vr = found.members, found.vr
    if step.index == "*":
        return found
    if step.index is None:
        return Found(Outcome.SEVERAL if len(members) > 1 else Outcome.PRESENT, members[:1], vr)
    chosen = members[step.index : step.index + 1]
    return Found(Outcome.PRESENT if chosen else Outcome.EMPTY, chosen, vr)


def _in_items(step: Step, rest: Sequence[Step], found: Found) -> Found:
    """What stands in the items that the step chooses; of each item its own, with null where it has none."""
    if found.vr not in ("SQ", None) and not bytes(found.members[0]).startswith(b"{"):
        return Found(Outcome.WRONG_VR, vr=found.vr)
    if step.index == "*":
        return _together([find(rest, _item(item)) for item in found.members])
    at = step.index or 0
    if at >= len(found.members):
        return Found(Outcome.EMPTY)
    inner = find(rest, _item(found.members[at]))
    left_out = at == 0 and len(found.members) > 1 and inner.outcome is Outcome.PRESENT
    return Found(Outcome.SEVERAL, inner.members, inner.vr) if left_out else inner


def _item(raw: Raw) -> Elements:
    return {} if raw == NULL else elements_of(raw)


def _together(parts: Sequence[Found]) -> Found:
    """All items' members in order; what cannot be read in one of them makes the whole so."""
    bad = next((part for part in parts if part.outcome in _BAD), None)
    if bad is not None:
        return bad
    members = [member for part in parts for member in (part.members or (NULL,))]
    vr = next((part.vr for part in parts if part.vr), None)
    outcome = max((part.outcome for part in parts), key=lambda one: (one is Outcome.SEVERAL, one is Outcome.PRESENT))
    return Found(outcome, members, vr)
