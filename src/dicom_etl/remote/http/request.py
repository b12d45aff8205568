"""One request to a service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import httpx
import msgspec

Sink = Callable[[httpx.Headers], Callable[[bytes], None]]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request, without the address of the service.

    ``path`` may have a query of its own, encoded, where ``params`` are empty, as a link to the next page has one.
    ``json`` is sent as the body, encoded, and needs no ``content``; its Content-Type is application/json unless
    ``headers`` name another. ``expected`` are the statuses that the caller understands; the endpoint makes errors of
    the others. ``expect_json`` demands JSON of a 200. ``max_bytes`` bounds the decoded body (body.TooLarge).

    ``sink`` takes the body of a 200 as it comes, and the answer then has none: called with the headers of each attempt,
    it gives what takes the decoded parts of that attempt, from its beginning. What both raise ends the attempt.
    """

    path: str
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    json: object = None
    expected: frozenset[int] = frozenset({200})
    expect_json: bool = False
    max_bytes: int | None = None
    sink: Sink | None = None

    def encoded(self) -> tuple[httpx.Headers, bytes | None]:
        """The headers and the body as they are sent."""
        if self.json is None:
            return httpx.Headers(self.headers), self.content
        headers = httpx.Headers({"Content-Type": "application/json"})
        headers.update(self.headers)
        return headers, msgspec.json.encode(self.json)
