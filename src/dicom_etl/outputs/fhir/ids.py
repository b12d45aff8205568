"""What makes a resource ours: a computed id, so that a repeated PUT changes nothing, its source and its tag."""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import Final

from dicom_etl.outputs.fhir.facts import Json, MappingOptions

LAKE: Final = "urn:dicom-etl:lake"


def resource_id(key: bytes, kind: str, *parts: str) -> str:
    """64 hexadecimal digits (FHIR R4 ``id``): HMAC-SHA-256 of the kind and the parts.

    Each text stands behind its length in bytes, so different parts never are the same message, whatever is in them.
    """
    message = b"".join(_counted(text) for text in (kind, *parts))
    return hmac.new(key, message, hashlib.sha256).hexdigest()


def study_id(partition: str, uid: str, options: MappingOptions) -> str:
    """The id of a study's ImagingStudy."""
    return resource_id(options.key, "ImagingStudy", options.source, partition, uid)


def meta(options: MappingOptions) -> Json:
    """``Resource.meta``: the DICOM service as source, and a tag by which all that is ours is found."""
    return {"source": options.source, "tag": [{"system": LAKE, "code": options.lake}]}


def _counted(text: str) -> bytes:
    # Text of a header may hold half a surrogate pair, which UTF-8 has no bytes for.
    encoded = text.encode("utf-8", "surrogatepass")
    return struct.pack(">I", len(encoded)) + encoded
