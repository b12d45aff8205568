"""What a request says about extended query tags: paths, the tags to add, a query status.

design/service-protocol.md: Extended query tags.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.tag import Tag

from dicom_emulator.dicom.indexing import Attribute
from dicom_emulator.http.errors import BadRequest
from dicom_emulator.routes.resources import SEARCHABLE
from dicom_emulator.state.querytags import DISABLED, ENABLED

SUPPORTED_VRS = frozenset(
    {"AE", "AS", "CS", "DA", "DT", "FD", "FL", "IS", "LO", "PN", "SH", "SL", "SS", "TM", "UI", "UL", "US"}
)
"""Those of the service's code; its documentation has DS, too (ExtendedQueryTagEntryValidator.cs)."""

_ALL_VRS = SUPPORTED_VRS | {
    "AT", "DS", "LT", "OB", "OD", "OF", "OL", "OV", "OW", "SQ", "ST", "SV", "UC", "UN", "UR", "UT", "UV",
}  # fmt: skip
_CORE_TAGS = frozenset(tag for tags in SEARCHABLE.values() for tag in tags)
_LEVELS = {"study": "Study", "series": "Series", "instance": "Instance"}
_STATUSES = {"enabled": ENABLED, "disabled": DISABLED}

Entry = tuple[Attribute, str]
"""A tag to add, and its level."""


def tag_of_path(text: str) -> int:
    """The tag of eight hex digits or a keyword, in its own case. Raises BadRequest (400)."""
    tag = tag_for_keyword(text)
    if tag is None and re.fullmatch(r"[0-9A-Fa-f]{8}", text):
        return int(text, 16)
    if tag is None:
        raise BadRequest(f"The extended query tag '{text}' is invalid as it cannot be parsed into a valid Dicom Tag.")
    return tag


def read_entries(body: bytes) -> list[Entry]:
    """The tags of a body that adds some. Raises BadRequest (400) for the first that cannot be."""
    document = _document(body)
    if not isinstance(document, list) or not all(isinstance(one, dict) for one in document):
        raise BadRequest("The request body is not an array of extended query tags.")
    if not document:
        raise BadRequest("The extended query tag(s) is missing.")
    entries: list[Entry] = []
    for fields in document:
        attribute, level = _entry({str(name).lower(): value for name, value in fields.items()})
        if any(attribute.path == known.path for known, _ in entries):
            raise BadRequest(f"The extended query tag '{attribute.path}' has been specified before.")
        entries.append((attribute, level))
    return entries


def read_query_status(body: bytes) -> str:
    """Enabled or Disabled, of a body that sets it. Raises BadRequest (400)."""
    document = _document(body)
    fields = {str(name).lower(): value for name, value in document.items()} if isinstance(document, dict) else {}
    status = _STATUSES.get(str(fields.get("querystatus", "")).lower())
    if status is None:
        raise BadRequest("The QueryStatus must be 'Enabled' or 'Disabled'.")
    return status


def _document(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        raise BadRequest("The request body is not valid JSON.") from None


def _entry(fields: Mapping[str, Any]) -> Entry:
    path, vr, creator = (_text(fields, name) for name in ("path", "vr", "privatecreator"))
    if not path:
        raise BadRequest("The Dicom Tag Property Path must be specified and must not be null, empty or whitespace.")
    tag = tag_of_path(path)
    if tag in _CORE_TAGS:
        raise BadRequest(f"The query tag '{path}' is already supported.")
    level = _level(path, fields.get("level"))
    _check_creator(tag, path, creator)
    return Attribute(f"{tag:08X}", _vr(tag, path, vr.upper()), creator or None), level


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"The field {name} must be a string.")
    return (value or "").strip()


def _level(path: str, wanted: Any) -> str:
    if wanted is None:
        raise BadRequest(f"The level for extended query tag '{path}' is missing.")
    level = _LEVELS.get(str(wanted).lower())
    if level is None:
        raise BadRequest(
            f"Input Dicom Tag Level '{wanted}' is invalid. It must have value 'Study', 'Series' or 'Instance'."
        )
    return level


def _check_creator(tag: int, path: str, creator: str) -> None:
    is_private, is_creator = Tag(tag).is_private, Tag(tag).is_private_creator
    if creator and not is_private:
        raise BadRequest(f"The private creator is not empty for standard tag '{path}'.")
    if creator and is_creator:
        raise BadRequest(f"The private creator is not empty for private identification code '{path}'.")
    if is_private and not is_creator and not creator:
        raise BadRequest(f"The private creator for private tag '{path}' is missing.")
    if len(creator) > 64 or "\\" in creator:
        raise BadRequest(f"The private creator for tag '{path}' is not a valid LO attribute.")


def _vr(tag: int, path: str, wanted: str) -> str:
    if wanted and wanted not in _ALL_VRS:
        raise BadRequest(f"The VR code '{wanted}' for tag '{path}' is invalid.")
    known = _dictionary_vrs(tag)
    if wanted and known and wanted not in known:
        raise BadRequest(
            f"The VR code '{wanted}' is incorrectly specified for '{path}'. The expected VR code for it is "
            f"'{known[0]}'. Retry this request either with the correct VR code or without specifying it."
        )
    if not wanted and not known:
        raise BadRequest(f"The vr for tag '{path}' is missing.")
    vr = wanted or known[0]
    if vr not in SUPPORTED_VRS:
        raise BadRequest(f"The VR code '{vr}' specified for tag '{path}' is not supported.")
    return vr


def _dictionary_vrs(tag: int) -> list[str]:
    """The VRs that the standard's dictionary has for a tag; none for one that it does not know."""
    if Tag(tag).is_private_creator:
        return ["LO"]
    try:
        return dictionary_VR(tag).split(" or ")
    except KeyError:
        return []
