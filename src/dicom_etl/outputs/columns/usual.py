"""The quick way for elements that look as the service writes them: structs made from the wanted top-level tags.

What does not fit raises, and the header is then read element by element, with the same results for what fits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Raw

from dicom_etl.core.values import stripped
from dicom_etl.outputs.columns.convert import CONVERTERS, UNUSABLE
from dicom_etl.outputs.columns.dictionary import UNKNOWN
from dicom_etl.outputs.columns.members import (
    NAME_GROUPS,
    NUMBERS,
    Taken,
    group_of_text,
    header_vrs,
    joined_raws,
    joined_texts,
    judged,
    verbatim_converter,
)
from dicom_etl.outputs.columns.tagpath import TagPath
from dicom_etl.outputs.columns.vr import VRS, Form, Outcome

# How the members of an element are decoded; "raw": the whole element is left for `elements.find`.
Kind = Literal["texts", "doubles", "longs", "names", "verbatim", "raw"]


class _Name(msgspec.Struct, gc=False):
    alphabetic: str | None = msgspec.field(default=None, name="Alphabetic")
    ideographic: str | None = msgspec.field(default=None, name="Ideographic")
    phonetic: str | None = msgspec.field(default=None, name="Phonetic")


def _element(name: str, member: Any) -> type[msgspec.Struct]:
    return msgspec.defstruct(
        name,
        [
            ("vr", str | None, None),
            ("value", list[member] | None, msgspec.field(default=None, name="Value")),
            ("inline", Raw, msgspec.field(default=Raw(), name="InlineBinary")),
            ("bulk", Raw, msgspec.field(default=Raw(), name="BulkDataURI")),
        ],
        gc=False,
    )


# Members of an enumeration are slow to reach by its name.
_PRESENT: Final = Outcome.PRESENT
_SEVERAL: Final = Outcome.SEVERAL
_ABSENT: Final[Taken] = (None, Outcome.ABSENT)
_EMPTY: Final[Taken] = (None, Outcome.EMPTY)
_BINARY: Final[Taken] = (None, Outcome.BINARY)
# JSON has no number that is not finite, and a long is bounded by its decoder.
_READY: Final[dict[Form, type]] = {"decimal": float, "float": float, "long": int}
_Long = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_ELEMENTS: Final[dict[Kind, Any]] = {
    "texts": _element("Texts", str | None) | None,
    "doubles": _element("Doubles", float | str | None) | None,
    "longs": _element("Longs", _Long | float | str | None) | None,
    "names": _element("Names", _Name | str | None) | None,
    "verbatim": _element("Verbatim", Raw) | None,
    "raw": Raw,
}
_NUMBER_VRS = frozenset(vr for vr, rule in VRS.items() if rule.forms[rule.default] in NUMBERS)


def kind_of(path: TagPath) -> Kind:
    """How the path's first element is decoded in one pass with the others."""
    if len(path.steps) > 1 or path.is_private or (path.joined and path.form in NAME_GROUPS):
        return "raw"
    if path.form in NAME_GROUPS:
        return "names"
    if path.form in NUMBERS:
        return "longs" if path.form == "long" else "doubles"
    # A number keeps its digits as text, which a decoder of numbers would lose.
    return "verbatim" if set(path.vr.split(" or ")) & {*_NUMBER_VRS, UNKNOWN} else "texts"


def header_decoder(fields: Sequence[tuple[str, Kind]]) -> msgspec.json.Decoder[Any]:
    """A decoder to a struct with one field for each tag and kind in their order; UNSET where the header lacks it.

    A struct has one field a tag: the kinds of a tag that is wanted in two ways must be one ("raw").
    """
    return msgspec.json.Decoder(
        msgspec.defstruct(
            "UsualHeader",
            [
                (f"f{tag}", _ELEMENTS[kind] | msgspec.UnsetType, msgspec.field(default=UNSET, name=tag))
                if kind != "raw"
                else (f"f{tag}", Raw, msgspec.field(default=Raw(), name=tag))
                for tag, kind in fields
            ],
            gc=False,
        )
    )


def usual_taker(path: TagPath, field: int) -> Callable[[tuple[Any, ...]], Taken]:
    """What makes the column's value and outcome of the struct's fields; the element was decoded as ``kind_of`` says.

    Called for every column of every header, so that the usual case makes one call at most.
    """
    index, vrs = path.steps[-1].index, header_vrs(path)
    at, alone = (0 if index is None or index == "*" else index), index is None
    convert = _converter(path)
    # What the decoder has made already.
    ready = _READY.get(path.form)

    def take(fields: tuple[Any, ...]) -> Taken:
        element = fields[field]
        if element is UNSET:
            return _ABSENT
        members = element.value if element is not None else None
        if not members or at >= len(members):
            return _BINARY if element is not None and not members and (element.inline or element.bulk) else _EMPTY
        member = members[at] if index != "*" else members
        value: Any = member if type(member) is ready else convert(member)
        if value is None:
            return _EMPTY
        if value is not UNUSABLE and (vrs is None or element.vr in vrs):
            return value, (_SEVERAL if alone and len(members) > 1 else _PRESENT)
        outcome = _SEVERAL if alone and len(members) > 1 else _PRESENT
        return judged(value, outcome, vrs is None or element.vr is None or element.vr in vrs)

    return take


def _converter(path: TagPath) -> Callable[[Any], Any]:
    form, convert, kind = path.form, CONVERTERS[path.form], kind_of(path)
    if kind == "names":
        return lambda member: convert(
            getattr(member, form) if isinstance(member, _Name) else group_of_text(member, form)
        )
    if path.joined:
        return joined_raws if kind == "verbatim" else joined_texts
    if kind == "verbatim":
        return verbatim_converter(form)
    return stripped if form == "text" else convert
