"""Prints results on standard output as JSON, one object a line, the same from a command and from a job."""

from __future__ import annotations

import json
import sys
from datetime import date, datetime
from typing import Any


def print_json(document: dict[str, Any]) -> None:
    """Print one JSON object on one line; times as RFC 3339 in UTC, with ``Z``.

    Where the output has no room for all characters, such as ASCII, JSON's own escapes stand for them.
    """
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    print(json.dumps(document, default=as_text, ensure_ascii=not unicode))  # noqa: T201


def as_text(value: Any) -> str:
    """A value as a person and a program read it."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z") if value.tzinfo else value.isoformat() + "Z"
    if isinstance(value, date):
        return value.isoformat()
    return str(value)
