"""The bytes of a resource, the same for equal resources, and the digest that tells whether one has changed."""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from dicom_etl.outputs.fhir.facts import Json
from dicom_etl.outputs.fhir.mapping import MAPPING_VERSION

_ENCODER: Final = msgspec.json.Encoder(order="sorted")


def canonical(body: Json) -> bytes:
    """UTF-8 JSON without blanks, keys sorted. It holds no NUL."""
    return _ENCODER.encode(body)


def digest(body: Json, version: int = MAPPING_VERSION) -> str:
    """64 hexadecimal digits: SHA-256 of the canonical bytes, a NUL and the version of the mapping.

    A new version of the mapping changes every digest, so that every resource is sent again.
    """
    return hashlib.sha256(canonical(body) + b"\0" + str(version).encode()).hexdigest()
