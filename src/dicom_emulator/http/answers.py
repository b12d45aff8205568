"""The media types the service writes, and what it makes of an Accept header."""

from __future__ import annotations

from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.requests import Request
from starlette.responses import Response

from dicom_emulator.http.errors import NotAcceptable
from dicom_emulator.http.jsontext import dumps

JSON_TYPE = "application/json; charset=utf-8"
DICOM_JSON_TYPE = "application/dicom+json"  # without charset: dicomweb-client compares the whole header
_JSON_RANGES = frozenset({"*/*", "application/*", "application/json", "application/dicom+json"})


def accepted(request: Request) -> list[tuple[str, dict[str, str]]]:
    """Media ranges of the Accept headers with their parameters, the most wanted first; empty when absent."""
    ranges = []
    for header in request.headers.getlist("accept"):
        for part in _split(header):
            media_type, options = parse_options_header(part)
            parameters = {name.decode("latin-1"): value.decode("latin-1") for name, value in options.items()}
            ranges.append((media_type.decode("latin-1").strip().lower(), parameters))
    wanted = [one for one in ranges if _quality(one[1]) > 0]
    return sorted(wanted, key=lambda one: -_quality(one[1]))


def require_dicom_json(request: Request) -> None:
    """Raises NotAcceptable (406) unless Accept is there and lets application/dicom+json through.

    design/service-protocol.md: STOW-RS.
    """
    if not any(media_type in _JSON_RANGES for media_type, _ in accepted(request)):
        raise NotAcceptable


def dicom_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer of DICOM JSON: a dataset or an array of them."""
    return Response(dumps(value), status, headers, DICOM_JSON_TYPE)


def plain_json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer of ordinary JSON."""
    return Response(dumps(value), status, headers, JSON_TYPE)


def _split(header: str) -> list[str]:
    parts, quoted = [""], False
    for character in header:
        quoted ^= character == '"'
        if character == "," and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return [part for part in parts if part.strip()]


def _quality(parameters: dict[str, str]) -> float:
    try:
        return float(parameters.get("q", "1"))
    except ValueError:
        return 1.0
