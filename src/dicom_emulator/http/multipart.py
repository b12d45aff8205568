"""Bodies of multipart/related: taken apart for STOW-RS, put together for WADO-RS."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from dicom_emulator.http.errors import BadRequest


@dataclass
class Part:
    """One part; header names in lower case."""

    headers: dict[str, str] = field(default_factory=dict)
    content: bytearray = field(default_factory=bytearray)


def read_parts(body: bytes, boundary: bytes) -> list[Part]:
    """The parts in order, none for a body that only ends. Raises BadRequest (400) for a broken body."""
    if body.strip() in (b"", b"--" + boundary + b"--"):
        return []
    reader = _Reader()
    parser = MultipartParser(boundary, reader.callbacks())  # type: ignore[arg-type]
    try:
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise BadRequest("The multipart request body is not well formed.") from None
    if not reader.ended:
        raise BadRequest("The multipart request body ends too early.")
    return reader.parts


def write_parts(contents: Sequence[bytes], part_type: str, part_parameters: str = "") -> tuple[bytes, str]:
    """Body and Content-Type of a multipart/related answer, all parts of one type (`application/dicom`).

    `part_parameters`, such as `; transfer-syntax=…`, stand behind the type of each part.
    """
    boundary = uuid.uuid4().hex
    opening = f"--{boundary}\r\nContent-Type: {part_type}{part_parameters}\r\n\r\n".encode("ascii")
    body = b"".join(opening + content + b"\r\n" for content in contents)
    media_type = f'multipart/related; type="{part_type}"; boundary={boundary}'
    return body + f"--{boundary}--\r\n".encode("ascii"), media_type


class _Reader:
    """Collects what the parser finds."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._name = bytearray()
        self._value = bytearray()

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": lambda: self.parts.append(Part()),
            "on_part_data": lambda data, start, end: self.parts[-1].content.extend(data[start:end]),
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_end": self._end,
        }

    def _header_end(self) -> None:
        name = self._name.decode("latin-1").strip().lower()
        self.parts[-1].headers[name] = self._value.decode("latin-1").strip()
        self._name, self._value = bytearray(), bytearray()

    def _end(self) -> None:
        self.ended = True
