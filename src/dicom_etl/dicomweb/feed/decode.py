"""The bytes of a page of the feed as entries (design/service-protocol.md: Feed entries)."""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from dicom_etl.core.entry import ABSENT, Entry
from dicom_etl.core.errors import ProtocolError
from dicom_etl.core.reasons import FIELD_NOT_TEXT, METADATA_NOT_OBJECT, METADATA_NOT_UTF8
from dicom_etl.core.timerange import parse_instant

_PAGE = msgspec.json.Decoder(list[Entry])
_RAW_PAGE = msgspec.json.Decoder(list[msgspec.Raw])
_RAW_ENTRY = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT = msgspec.json.Decoder(str | None)
_SEQUENCE = msgspec.json.Decoder(int)
_TIMESTAMP = msgspec.json.Decoder(str)
_TEXT_FIELDS = (
    ("partition_name", "partitionName"),
    ("study_instance_uid", "studyInstanceUid"),
    ("series_instance_uid", "seriesInstanceUid"),
    ("sop_instance_uid", "sopInstanceUid"),
    ("action", "action"),
    ("state", "state"),
    ("file_path", "filePath"),
)
_LARGEST_SEQUENCE = 2**63 - 1
_USUAL = re.compile(r"(.{19})(?:\.([0-9]{1,7}))?(?:\+00:00|Z)")


class NotJson(Exception):
    """The body as a whole cannot be parsed."""


def decode_page(body: bytes) -> list[Entry]:
    """The entries in the order of the page, each with ``ticks`` set.

    An entry with odd fields or odd metadata is kept, without what is odd, with its code in
    ``unreadable``. Raises NotJson when the body cannot be parsed at all, ProtocolError when it is no list,
    or an entry is no object or has no sequence or no readable timestamp.
    """
    try:
        entries = _PAGE.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [_decode_alone(raw) for raw in _split(body)]
    # msgspec does not look into raw metadata; the service escapes all but ASCII, so this is one fast pass.
    plain = body.isascii()
    return [_checked(entry, plain) for entry in entries]


def _split(body: bytes) -> list[msgspec.Raw]:
    try:
        return _RAW_PAGE.decode(body)
    except msgspec.ValidationError as error:
        raise ProtocolError("the change feed answered JSON that is no list of entries") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise NotJson from error


def _checked(entry: Entry, plain: bool) -> Entry:
    # In place, for the sake of speed: nobody else has seen this entry yet.
    msgspec.structs.force_setattr(entry, "ticks", _ticks(entry.timestamp))
    if not 0 <= entry.sequence <= _LARGEST_SEQUENCE:
        raise ProtocolError("the change feed sent a sequence that is no 64 bit number")
    reason = _odd_metadata(entry.metadata, plain)
    if reason is not None or entry.unreadable is not None:
        return entry.replace(metadata=ABSENT if reason else entry.metadata, unreadable=reason)
    return entry


def _odd_metadata(metadata: msgspec.Raw, plain: bool) -> str | None:
    view = memoryview(metadata)
    if len(view) == 0 or view[0] != ord("{"):
        return None if len(view) == 0 or bytes(view) == b"null" else METADATA_NOT_OBJECT
    return None if plain or _is_utf8(metadata) else METADATA_NOT_UTF8


def _is_utf8(raw: msgspec.Raw) -> bool:
    try:
        bytes(raw).decode()
    except UnicodeDecodeError:
        return False
    return True


def _decode_alone(raw: msgspec.Raw) -> Entry:
    """One entry of a page that does not decode as a whole: what is odd is left out and named."""
    try:
        fields = _RAW_ENTRY.decode(raw)
        sequence = _SEQUENCE.decode(fields["sequence"])
        timestamp = _TIMESTAMP.decode(fields["timestamp"])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError("the change feed sent an entry without sequence and time") from error
    except KeyError as error:
        raise ProtocolError("the change feed sent an entry without sequence and time") from error
    reason: str | None = None
    texts: dict[str, str | None] = {}
    for name, key in _TEXT_FIELDS:
        texts[name], odd = _text(fields.get(key))
        reason = reason or odd
    metadata = fields.get("metadata", ABSENT) if reason is None else ABSENT
    entry = _checked(Entry(sequence, timestamp, metadata=metadata).replace(**texts), plain=False)
    return entry if reason is None else entry.replace(unreadable=reason)


def _text(raw: msgspec.Raw | None) -> tuple[str | None, str | None]:
    """The text of a field, or null and the reason why not."""
    if raw is None:
        return None, None
    try:
        return _TEXT.decode(raw), None
    # Bytes that are not UTF-8 in a field are no text either: of an entry whose partition cannot be read the key
    # is not known, whatever its metadata says.
    except (UnicodeDecodeError, msgspec.DecodeError):
        return None, FIELD_NOT_TEXT


def _ticks(timestamp: str) -> int:
    """Ticks of a timestamp; the usual form (UTC, seconds shared with the neighbours) goes the short way."""
    match = _USUAL.fullmatch(timestamp)
    try:
        if match is None:
            return parse_instant(timestamp)
        return _second(match[1]) + int((match[2] or "").ljust(7, "0"))
    except (ValueError, OverflowError) as error:
        raise ProtocolError("the change feed sent an entry with a timestamp that cannot be read") from error


@lru_cache(maxsize=1024)
def _second(head: str) -> int:
    return parse_instant(head + "Z")
