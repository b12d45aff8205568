"""The vocabulary of tags: a text such as ``RequestAttributesSequence[0].RequestedProcedureID`` as a path, and back."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from dicom_etl.core.errors import UsageError
from dicom_etl.outputs.columns.dictionary import UNKNOWN, Index, Step, keyword_step, standard_step, vr_of
from dicom_etl.outputs.columns.vr import BINARY_VRS, TYPES, ColumnType, Form, rule_of

_HOW_TO_WRITE: Final = (
    "write SliceThickness, (0018,0050), RequestAttributesSequence[0].RequestedProcedureID or "
    '0019,xx0C@SIEMENS MR HEADER (a creator with . : @ [ or ] in "…"), and behind it :text for another type'
)
_STEP = re.compile(
    r"(?:(?P<open>\()?(?P<group>[0-9A-Fa-f]{4}),?(?P<element>[0-9A-Fa-f]{4}|[xX]{2}[0-9A-Fa-f]{2})(?(open)\))(?![0-9A-Za-z])"
    r'(?:@(?P<creator>"[^"]+"|[^"\[\]:.@]+))?'
    r"|(?P<keyword>[A-Za-z][A-Za-z0-9]*))"
    r"(?:\[(?P<index>[0-9]{1,4}|\*)\])?"
)
_JOINED: Final = "text"


@dataclass(frozen=True, slots=True)
class TagPath:
    """Where a value stands in a header, and as what it is read.

    ``vr`` is the dictionary's, ``US or SS`` where it depends, ``UN`` where no dictionary has the tag. ``modifier`` is
    empty where a standard tag takes its default form.
    """

    steps: tuple[Step, ...]
    vr: str
    modifier: str
    form: Form

    @property
    def text(self) -> str:
        """The canonical text; ``tag_path`` of it is this path again."""
        return ".".join(step.text for step in self.steps) + (f":{self.modifier}" if self.modifier else "")

    @property
    def type(self) -> ColumnType:
        return TYPES[self.form]

    @property
    def joined(self) -> bool:
        """Whether it takes all values, joined by a backslash."""
        return any(step.index == "*" for step in self.steps)

    @property
    def is_private(self) -> bool:
        return any(step.creator is not None for step in self.steps)


def tag_path(text: str) -> TagPath:
    """The path that a text names. Raises UsageError, which says what to write."""
    wanted = text.strip()
    try:
        steps, modifier = _read(wanted)
        for step in steps:
            _check_group(step)
        return _typed(steps, modifier)
    except UsageError as error:
        raise UsageError(f"{wanted or 'an empty text'}: {error}") from None


def _read(text: str) -> tuple[list[Step], str | None]:
    """The steps, and what stands behind the colon, None without one."""
    steps, at = [], 0
    while True:
        found = _STEP.match(text, at)
        if found is None:
            raise UsageError(f"no tag begins at '{text[at:]}': {_HOW_TO_WRITE}")
        steps.append(_step(found))
        at = found.end() + 1
        mark = text[found.end() : at]
        if mark in ("", ":"):
            return steps, text[at:].strip().lower() if mark else None
        if mark != ".":
            raise UsageError(f"cannot go on at '{text[found.end() :]}': {_HOW_TO_WRITE}")


def _step(found: re.Match[str]) -> Step:
    index: Index = "*" if found["index"] == "*" else int(found["index"]) if found["index"] else None
    if found["keyword"]:
        return keyword_step(found["keyword"], index)
    group, element = found["group"].upper(), found["element"].upper().replace("X", "x")
    creator = (found["creator"] or "").strip('"').strip()
    if int(group, 16) % 2 == 0:
        if creator or "x" in element:
            raise UsageError(f"group {group} is even, so this is no private tag: write four digits, and no creator")
        return standard_step(group + element, index)
    if not creator:
        raise UsageError(f"a private tag needs its creator: write {group},xx{element[2:]}@CREATOR")
    if "x" not in element and int(element[:2], 16) < 0x10:
        raise UsageError(f"({group},{element}) is no value of a creator: these begin at ({group},1000)")
    return Step(f"{group}xx{element[2:]}", None, creator, index)


def _check_group(step: Step) -> None:
    if step.tag[:4] in ("0000", "0002") or (step.creator is None and step.tag[4:] == "0000"):
        raise UsageError("the service's headers have no groups 0000 and 0002, and no lengths of groups")


def _typed(steps: list[Step], modifier: str | None) -> TagPath:
    """The path with VR and form; the steps before the last are sequences, of which the first item is the default."""
    *outer, last = steps
    for step in outer:
        if vr_of(step) not in ("SQ", UNKNOWN):
            raise UsageError(
                f"{step.text} has VR {vr_of(step)}, so nothing is in it: only a sequence has a dot behind it"
            )
    path = (*(replace(step, index=0) if step.index is None else step for step in outer), last)
    vr = vr_of(last)
    joined = any(step.index == "*" for step in path)
    forms = _forms(last, vr, joined=joined)
    default = next(iter(forms))
    if modifier is None and vr == UNKNOWN and last.creator is None:
        raise UsageError(f"no dictionary has this tag: say its type, one of :{', :'.join(forms)}")
    chosen = default if modifier is None else modifier
    if chosen not in forms:
        why = "[*] joins values to a text" if joined else f"VR {vr}"
        raise UsageError(f"no type '{modifier}' is possible here ({why}): choose from :{', :'.join(forms)}")
    # Only PS3.6 is sure to say the same tomorrow: all else has its type in the text.
    sure = vr != UNKNOWN and last.creator is None
    return TagPath(path, vr, "" if chosen == default and sure else chosen, forms[chosen])


def _forms(last: Step, vr: str, *, joined: bool) -> dict[str, Form]:
    rule = rule_of(vr)
    if vr == "SQ":
        raise UsageError(f"{last.text} is a sequence: name an attribute in it, as in {last.text}[0].CodeValue")
    if rule is None and set(vr.split(" or ")) <= BINARY_VRS:
        raise UsageError(f"its VR is {vr}, and no header holds binary values")
    if rule is None:
        raise UsageError("this element holds no value")
    return {_JOINED: "text"} if joined and vr != "PN" else dict(rule.forms)
