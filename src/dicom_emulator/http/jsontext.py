"""JSON text as System.Text.Json writes it by default, with numbers that keep their own digits."""

from __future__ import annotations

import json
import re
from typing import Any

_ESCAPED = re.compile("[\x00-\x1f\"&'+<>\\\\`\x7f-\U0010ffff]")
_SHORT = {"\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


class Number(str):
    """A JSON number, kept as the text it was written with (`1.0` stays `1.0`)."""

    __slots__ = ()


def dumps(value: Any) -> bytes:
    """ASCII bytes of a value made of dict, list, str, int, float, bool, None and Number.

    No spaces; `"`, `&`, `'`, `+`, `<`, `>`, backtick, control and all non-ASCII characters as upper-case
    `\\uXXXX` (the default JavaScriptEncoder; design/service-protocol.md: DICOM JSON).
    Raises TypeError for other types and ValueError for floats that JSON cannot hold.
    """
    pieces: list[str] = []
    _write(value, pieces)
    return "".join(pieces).encode("ascii")


def loads(text: bytes | str) -> Any:
    """The value of a JSON text, every number a Number."""
    return json.loads(text, parse_int=Number, parse_float=Number)


def quoted(text: str) -> str:
    """The JSON string literal of a text."""
    if _ESCAPED.search(text) is None:
        return f'"{text}"'
    return f'"{_ESCAPED.sub(_escape, text)}"'


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if code > 0xFFFF:
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04X}\\u{0xDC00 + (code & 0x3FF):04X}"
    return "\\uFFFD" if 0xD800 <= code <= 0xDFFF else f"\\u{code:04X}"


def _write(value: Any, pieces: list[str]) -> None:
    if isinstance(value, Number):
        pieces.append(value)
    elif isinstance(value, str):
        pieces.append(quoted(value))
    elif value is None or isinstance(value, bool | int):
        pieces.append(json.dumps(value))
    elif isinstance(value, float):
        pieces.append(json.dumps(value, allow_nan=False))
    elif isinstance(value, dict):
        _write_object(value, pieces)
    elif isinstance(value, list | tuple):
        _write_array(value, pieces)
    else:
        raise TypeError(f"no JSON for {type(value).__name__}")


def _write_object(value: dict[str, Any], pieces: list[str]) -> None:
    opening = "{"
    for name, member in value.items():
        pieces.append(f"{opening}{quoted(name)}:")
        _write(member, pieces)
        opening = ","
    pieces.append("{}" if opening == "{" else "}")


def _write_array(value: list[Any] | tuple[Any, ...], pieces: list[str]) -> None:
    opening = "["
    for member in value:
        pieces.append(opening)
        _write(member, pieces)
        opening = ","
    pieces.append("[]" if opening == "[" else "]")
