"""The requests that reached the service, listed and counted, for tests to look at."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass

_SHOWN_VALUES = frozenset({"offset", "limit", "starttime", "endtime", "includemetadata", "fuzzymatching"})


@dataclass(frozen=True)
class LoggedRequest:
    """One answered request; of the query only the values that say nothing about a patient."""

    method: str
    path: str
    query: Mapping[str, str | None]
    status: int


class RequestLog:
    """The last requests in order, and how many there were by method, route and status. Thread-safe."""

    def __init__(self, remembered: int) -> None:
        self._lock = threading.Lock()
        self._requests: deque[LoggedRequest] = deque(maxlen=remembered)
        self._counts: Counter[tuple[str, int]] = Counter()

    def add(self, method: str, path: str, query: Mapping[str, str], status: int) -> None:
        """Notes one answer; other parameters than paging are kept by name only."""
        shown = {name: value if name.lower() in _SHOWN_VALUES else None for name, value in query.items()}
        with self._lock:
            self._requests.append(LoggedRequest(method, path, shown, status))
            self._counts[f"{method} {_route(path)}", status] += 1

    def all(self) -> list[LoggedRequest]:
        """The remembered requests, oldest first."""
        with self._lock:
            return list(self._requests)

    def count(self, route: str | None = None, status: int | None = None) -> int:
        """How many requests there were, of a route such as `GET /v2/changefeed`, with a status, or in all."""
        with self._lock:
            return sum(
                number
                for (counted_route, counted_status), number in self._counts.items()
                if route in (None, counted_route) and status in (None, counted_status)
            )

    def counts(self) -> dict[str, dict[str, int]]:
        """Route -> status -> number."""
        with self._lock:
            table: dict[str, dict[str, int]] = {}
            for (route, status), number in self._counts.items():
                table.setdefault(route, {})[str(status)] = number
            return table

    def clear(self) -> None:
        """Forgets all of them."""
        with self._lock:
            self._requests.clear()
            self._counts.clear()


def _route(path: str) -> str:
    """The path with every UID, operation id and partition name as `*`."""
    segments = path.split("/")
    names = {"studies", "series", "instances", "partitions", "operations", "frames", "extendedquerytags"}
    return "/".join(
        "*" if before in names and segment not in ("$bulkUpdate", "") else segment
        for before, segment in zip(["", *segments], segments, strict=False)
    )
