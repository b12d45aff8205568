"""The value of a column from the undecoded members that ``elements.find`` gives: one converted, or all joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import msgspec
from msgspec import Raw

from dicom_etl.core.values import UNDECODABLE
from dicom_etl.outputs.columns.convert import CONVERTERS, UNUSABLE, Scalar
from dicom_etl.outputs.columns.dictionary import UNKNOWN
from dicom_etl.outputs.columns.elements import Found
from dicom_etl.outputs.columns.tagpath import TagPath
from dicom_etl.outputs.columns.vr import Form, Outcome, Value

Taken = tuple[Value, Outcome]
NAME_GROUPS: Final[tuple[Form, ...]] = ("alphabetic", "ideographic", "phonetic")
NUMBERS: Final[tuple[Form, ...]] = ("decimal", "float", "long")

_ANY_NUMBER = msgspec.json.Decoder(int | float | str | None)
_DOUBLE = msgspec.json.Decoder(float | str | None)
_TEXT = msgspec.json.Decoder(str | None)
_NAME = msgspec.json.Decoder(dict[str, Raw])
PADDING: Final = " \0"
_NUMBER_STARTS = frozenset(b"-0123456789")


def taker(path: TagPath) -> Callable[[Found], Taken]:
    """What makes the column's value and outcome of what was found."""
    form = path.form
    vrs = header_vrs(path)
    read = _joined if path.joined else _first

    def take(found: Found) -> Taken:
        if found.outcome not in (Outcome.PRESENT, Outcome.SEVERAL):
            return None, found.outcome
        try:
            value = read(found, form)
        except UNDECODABLE:
            value = UNUSABLE
        return judged(value, found.outcome, vrs is None or found.vr is None or found.vr in vrs)

    return take


def header_vrs(path: TagPath) -> frozenset[str] | None:
    """The VRs that a header may give the column's attribute; None when any will do."""
    return None if path.vr == UNKNOWN else frozenset(path.vr.split(" or "))


def judged(value: object, outcome: Outcome, right_vr: bool) -> Taken:
    """A converter's answer as value and outcome; ``outcome`` is PRESENT or SEVERAL."""
    if value is UNUSABLE:
        return None, Outcome.UNPARSABLE if right_vr else Outcome.WRONG_VR
    if value is None:
        return None, Outcome.EMPTY
    return cast(Value, value), outcome if right_vr else Outcome.OTHER_VR


def group_of_text(text: str | None, form: Form) -> str | None:
    """A group of a name that is plain text: all of it is the alphabetic one, as in `instance`; ``=`` begins others."""
    if text is None or form == "alphabetic":
        return text
    return [*text.split("="), "", ""][NAME_GROUPS.index(form)]


def joined_texts(texts: Sequence[str | None]) -> str | None:
    """All texts with a backslash between them; None when none of them has a character."""
    parts = [(text or "").strip(PADDING) for text in texts]
    return "\\".join(parts) if any(parts) else None


def joined_raws(members: Sequence[Raw]) -> object:
    """As ``joined_texts``, of undecoded members; UNUSABLE when one is neither text nor number."""
    try:
        return joined_texts([_verbatim(bytes(member)) for member in members])
    except UNDECODABLE:
        return UNUSABLE


def verbatim_converter(form: Form) -> Callable[[Raw], object]:
    """A converter of an undecoded member, of which a number keeps its digits."""
    convert = CONVERTERS[form]

    def read(member: Raw) -> object:
        try:
            return convert(_verbatim(bytes(member)))
        except UNDECODABLE:
            return UNUSABLE

    return read


def _first(found: Found, form: Form) -> object:
    return CONVERTERS[form](_scalar(found.members[0], form))


def _joined(found: Found, form: Form) -> object:
    return joined_texts([cast("str | None", _scalar(member, form)) for member in found.members])


def _scalar(member: Raw, form: Form) -> Scalar:
    """The member as text, number or None; a number is a text with its own digits where a text is wanted."""
    text = bytes(member)
    if form in NAME_GROUPS:
        if text.startswith(b"{"):
            return _group(text, form)
        return group_of_text(_verbatim(text), form)
    if form == "long":
        return cast(Scalar, _ANY_NUMBER.decode(text))
    return cast(Scalar, _DOUBLE.decode(text)) if form in NUMBERS else _verbatim(text)


def _group(text: bytes, form: Form) -> str | None:
    group: Any = _NAME.decode(text).get(form.capitalize())
    return _verbatim(bytes(group)) if group else None


def _verbatim(text: bytes) -> str | None:
    return text.decode("ascii") if text[0] in _NUMBER_STARTS else _TEXT.decode(text)
