"""A DICOM file as elements with their VR and plain values, read from the raw bytes without conversion.

pydicom finds the elements and knows the character sets; it is not asked for values, because it pads,
strips, warns and converts in its own way and the service in another (design/service-protocol.md: DICOM JSON).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import dcmread
from pydicom.tag import BaseTag
from pydicom.uid import ImplicitVRLittleEndian

BULK_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
SINGLE_TEXT_VRS = frozenset({"LT", "ST", "UT", "UR"})
_CHARSET_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_TEXT_VRS = _CHARSET_VRS | {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "TM", "UI", "UR"}
_BINARY_FORMATS = {"SL": "l", "SS": "h", "UL": "L", "US": "H", "FL": "f", "FD": "d", "SV": "q", "UV": "Q"}
_DELIMITERS = {"PN": {0x5C, 0x5E, 0x3D}}
_TEXT_DELIMITERS = {0x5C, 0x09, 0x0A, 0x0C, 0x0D}
_SPECIFIC_CHARACTER_SET = 0x00080005
_PIXEL_REPRESENTATION = 0x00280103

_UNREADABLE = (
    InvalidDicomError, EOFError, ValueError, TypeError, KeyError, AttributeError, NotImplementedError,
    OSError, RecursionError, struct.error, zlib.error,
)  # fmt: skip


class NotDicom(Exception):
    """The bytes are no DICOM file of PS3.10 that can be read."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element; `values` are texts, numbers or, for SQ, Elements; empty when it has no value."""

    vr: str
    values: tuple[Any, ...]


Elements = dict[int, Element]
"""Elements by tag, in tag order; bulk data, group lengths and the file meta group are left out."""


@dataclass(frozen=True)
class DicomFile:
    """A file's elements and the transfer syntax it is stored in."""

    elements: Elements
    transfer_syntax: str

    @property
    def is_implicit_vr(self) -> bool:
        """Whether its VRs come from the dictionary."""
        return self.transfer_syntax == ImplicitVRLittleEndian


def read_file(content: bytes) -> DicomFile:
    """The elements of a PS3.10 file. Raises NotDicom: no preamble and `DICM`, or not readable to its end."""
    if content[128:132] != b"DICM":
        raise NotDicom
    try:
        dataset = dcmread(BytesIO(content))
        syntax = str(dataset.file_meta.get("TransferSyntaxUID", ""))
        return DicomFile(_elements(dataset, ["iso8859"], None), syntax)
    except _UNREADABLE as error:
        raise NotDicom from error


def transfer_syntax(content: bytes) -> str:
    """The transfer syntax UID in a file's meta group, empty when it has none. Raises NotDicom."""
    try:
        meta = dcmread(BytesIO(content), stop_before_pixels=True, specific_tags=["SOPInstanceUID"]).file_meta
    except _UNREADABLE as error:
        raise NotDicom from error
    return str(meta.get("TransferSyntaxUID", ""))


def _elements(dataset: Dataset, encodings: Sequence[str], signed: bool | None) -> Elements:
    encodings = _encodings(dataset, encodings)
    signed = _signed_pixels(dataset, signed)
    return dict(_read(dataset, encodings, signed))


def _read(dataset: Dataset, encodings: Sequence[str], signed: bool | None) -> Iterator[tuple[int, Element]]:
    for tag in sorted(dataset.keys()):
        if tag.element == 0 or tag.group == 2:
            continue
        raw = dataset.get_item(tag, keep_deferred=True)
        vr = _vr(raw, tag, signed)
        if vr == "SQ":
            items = dataset[tag].value or ()
            yield int(tag), Element(vr, tuple(_elements(item, encodings, signed) for item in items))
        elif tag == _SPECIFIC_CHARACTER_SET:
            yield int(tag), Element(vr, tuple(_character_sets(dataset)))
        elif vr not in BULK_VRS and isinstance(raw, RawDataElement):
            yield int(tag), Element(vr, _values(vr, raw, encodings))


def _vr(raw: Any, tag: BaseTag, signed: bool | None) -> str:
    """The VR in the file, else the dictionary's; UN for implicit private elements and unknown VRs.

    Private creators are LO whatever the file says; other elements of VR UN stay UN, known or not (fo-dicom).
    """
    vr = raw.VR
    if tag.is_private_creator and vr in (None, "UN"):
        return "LO"
    if vr is None:
        if tag.is_private:
            return "UN"
        try:
            vr = dictionary_VR(tag)
        except KeyError:
            return "UN"
    if " or " in vr:  # ambiguous until PixelRepresentation is known, PS3.5 A.1
        vr = "OW" if vr.startswith("OB") else "SS" if signed and "SS" in vr else "US"
    known = vr in _TEXT_VRS or vr in _BINARY_FORMATS or vr in ("AT", "SQ")
    return str(vr) if known else "UN"


def _values(vr: str, raw: RawDataElement, encodings: Sequence[str]) -> tuple[Any, ...]:
    content = raw.value or b""
    order = "<" if raw.is_little_endian else ">"
    if vr in _BINARY_FORMATS:
        code = _BINARY_FORMATS[vr]
        count = len(content) // struct.calcsize(order + code)
        return struct.unpack_from(f"{order}{count}{code}", content)
    if vr == "AT":
        pairs = struct.unpack_from(f"{order}{len(content) // 4 * 2}H", content)
        return tuple(f"{group:04X}{element:04X}" for group, element in zip(pairs[::2], pairs[1::2], strict=True))
    return _texts(vr, content, encodings)


def _texts(vr: str, content: bytes, encodings: Sequence[str]) -> tuple[str, ...]:
    """The components of a text; the padding character of the VR trimmed at their ends, nothing else.

    Decoded before it is split: in GB18030 and ISO 2022 IR 87 a byte 5C may be half of a character.
    """
    if vr in _CHARSET_VRS:
        text = decode_bytes(content, list(encodings), _DELIMITERS.get(vr, _TEXT_DELIMITERS))
    else:
        text = content.decode("iso8859")
    padding = "\0" if vr == "UI" else " "
    text = text.rstrip(padding)
    if not text:
        return ()
    if vr in SINGLE_TEXT_VRS:
        return (text,)
    return tuple(component.rstrip(padding) for component in text.split("\\"))


def _encodings(dataset: Dataset, inherited: Sequence[str]) -> Sequence[str]:
    """Python's names of the item's character sets; those of the enclosing dataset when it says nothing."""
    if _SPECIFIC_CHARACTER_SET not in dataset:
        return inherited
    return convert_encodings([name.strip() for name in _character_sets(dataset)] or [""])


def _character_sets(dataset: Dataset) -> list[str]:
    """The values of Specific Character Set; pydicom has converted it while it was reading."""
    value = dataset[_SPECIFIC_CHARACTER_SET].value
    if not value:
        return []
    return [value] if isinstance(value, str) else [str(one) for one in value]


def _signed_pixels(dataset: Dataset, inherited: bool | None) -> bool | None:
    if _PIXEL_REPRESENTATION not in dataset:
        return inherited
    raw = dataset.get_item(_PIXEL_REPRESENTATION, keep_deferred=True)
    return bool(raw.value and any(raw.value)) if isinstance(raw, RawDataElement) else inherited
