"""Real DICOM headers as ready-made DICOM JSON, into which UIDs and a few values are put without parsing."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pydicom.data

from dicom_emulator.dicom.dicomjson import NotWritable, dataset_json
from dicom_emulator.dicom.elements import NotDicom, read_file
from dicom_emulator.dicom.validation import validate
from dicom_emulator.http.jsontext import dumps, quoted
from dicom_emulator.state.uids import InstanceKey

CHANGEABLE = ("00081030", "00100010", "00100020", "00100021")
"""Study description, patient's name and id, issuer of it: what bulk updates change in a header."""

_VRS = dict(zip(CHANGEABLE, ("LO", "PN", "LO", "LO"), strict=True))
_KEY_PLACES = {"0020000D": 1, "0020000E": 2, "00080018": 3}
_LONGEST = 6_000

Values = tuple[str | None, ...]
"""One for each of CHANGEABLE: the header's own value when None, no value when empty."""

OWN: Values = (None,) * len(CHANGEABLE)


@dataclass(frozen=True)
class Header:
    """One file's header: pieces of JSON text, UIDs (a place in the key) and changeable elements between them."""

    pieces: tuple[bytes | int | str, ...]
    own: dict[str, bytes]

    def metadata(self, key: InstanceKey, values: Values = OWN) -> bytes:
        """The DICOM JSON with the key's UIDs and these values."""
        given = dict(zip(CHANGEABLE, values, strict=True))
        return b"".join(self._text(piece, key, given) for piece in self.pieces)

    def _text(self, piece: bytes | int | str, key: InstanceKey, given: dict[str, str | None]) -> bytes:
        if isinstance(piece, bytes):
            return piece
        if isinstance(piece, int):
            return key[piece].encode("ascii")
        value = given[piece]
        return self.own[piece] if value is None else _element(piece, value)


def _element(tag: str, value: str) -> bytes:
    """The member with its comma: no changeable tag is a header's last."""
    if not value:
        return f'"{tag}":{{"vr":"{_VRS[tag]}"}},'.encode("ascii")
    text = f'{{"Alphabetic":{quoted(value)}}}' if _VRS[tag] == "PN" else quoted(value)
    return f'"{tag}":{{"vr":"{_VRS[tag]}","Value":[{text}]}},'.encode("ascii")


@lru_cache(maxsize=1)
def real_headers() -> Sequence[Header]:
    """Those of pydicom's own files, in the order of their names, without the very long ones."""
    folder = Path(pydicom.data.__file__).parent
    paths = sorted(folder.glob("test_files/*.dcm")) + sorted(folder.glob("charset_files/*.dcm"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        headers = [_header(path.read_bytes()) for path in paths]
    return tuple(header for header in headers if header is not None)


def _header(file: bytes) -> Header | None:
    """None for a file that the service would not take."""
    try:
        elements = read_file(file).elements
        validation = validate(elements, 2, None)
        document = dataset_json(validation.without_invalid(elements))
    except (NotDicom, NotWritable):
        return None
    if validation.errors or len(dumps(document)) > _LONGEST:
        return None
    pieces: list[bytes | int | str] = [b"{"]
    for tag in sorted({*document, *CHANGEABLE}):
        if tag in CHANGEABLE:
            pieces.append(tag)
        elif tag in _KEY_PLACES:
            pieces += [f'"{tag}":{{"vr":"UI","Value":["'.encode("ascii"), _KEY_PLACES[tag], b'"]},']
        else:
            pieces.append(b'"%b":%b,' % (tag.encode("ascii"), dumps(document[tag])))
    last = pieces[-1]
    pieces[-1] = last.rstrip(b",") if isinstance(last, bytes) else last
    own = {tag: b'"%b":%b,' % (tag.encode("ascii"), dumps(document[tag])) for tag in CHANGEABLE if tag in document}
    return Header((*_joined(pieces), b"}"), dict.fromkeys(CHANGEABLE, b"") | own)


def _joined(pieces: Sequence[bytes | int | str]) -> list[bytes | int | str]:
    """Neighbouring texts made one."""
    joined: list[bytes | int | str] = []
    for piece in pieces:
        before = joined[-1] if joined else None
        if isinstance(piece, bytes) and isinstance(before, bytes):
            joined[-1] = before + piece
        else:
            joined.append(piece)
    return joined
