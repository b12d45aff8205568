"""Query parameters as the service binds them: names in any case, no clamping, the first bad one reported."""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.requests import Request

from dicom_emulator.http.errors import BadRequest, InvalidParameter
from dicom_emulator.state.timestamps import parse_time

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1
_INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*")


def query_of(request: Request) -> dict[str, str]:
    """The query's parameters by lower-case name, the first of each. Raises BadRequest (400) for a `<`."""
    refuse_tags(request)
    query: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        query.setdefault(name.lower(), value)
    return query


def refuse_tags(request: Request) -> None:
    """Raises BadRequest (400) when the query string holds `<`, plain or escaped.

    design/service-protocol.md: Addresses and errors.
    """
    text = request.url.query.lower()
    if "<" in text or "%3c" in text:
        raise BadRequest("The query string included invalid characters.")


def integer(
    query: Mapping[str, str], name: str, *, default: int, least: int, most: int, largest: int = INT64_MAX
) -> int:
    """A number in [least, most]; `largest` is that of its type. Raises InvalidParameter (400)."""
    text = query.get(name.lower())
    if text is None:
        return default
    if not _INTEGER.fullmatch(text) or abs(value := int(text)) > largest:
        raise InvalidParameter(name, f"The value '{text}' is not valid for {name}.")
    if not least <= value <= most:
        raise InvalidParameter(name, f"The field {name} must be between {least} and {most}.")
    return value


def boolean(query: Mapping[str, str], name: str, default: bool) -> bool:
    """`true` or `false` in any case. Raises InvalidParameter (400) for others, `0` and `1` too."""
    text = query.get(name.lower())
    if text is None:
        return default
    if text.strip().lower() not in ("true", "false"):
        raise InvalidParameter(name, f"The value '{text}' is not valid.")
    return text.strip().lower() == "true"


def instant(query: Mapping[str, str], name: str, default: int) -> int:
    """Ticks of a time with a zone. Raises InvalidParameter (400); a raw `+` has become a space by now."""
    text = query.get(name.lower())
    if text is None:
        return default
    try:
        return parse_time(text)
    except ValueError:
        detail = f"The value '{text}' is not a valid date and time with a time zone."
        raise InvalidParameter(name, detail) from None
