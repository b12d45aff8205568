"""Faults that a test switches on: which requests or entries fail, how, how often, and how often they did."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dicom_etl.emulator.timestamps import TICKS_PER_SECOND, http_date


@dataclass(frozen=True)
class Fault:
    """A request that fails: it matches method, path and query, or (with `sequences`) the entries of a page.

    With `sequences` a feed answer fails that would carry one of these entries *with metadata* (a poison
    entry, service-protocol §2.6), or, with `without_metadata`, in any form. Otherwise `path` is a regular
    expression that the whole path must match, and every name in `query` must have that value.
    `skip` matching requests pass first; then `times` requests fail, or all when None.
    `retry_after` is in seconds, sent as such or, with `retry_after_as_date`, as an HTTP date.
    """

    status: int = 503
    path: str = ".*"
    method: str | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    sequences: tuple[int, ...] = ()
    without_metadata: bool = False
    skip: int = 0
    times: int | None = None
    retry_after: int | None = None
    retry_after_as_date: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    content_type: str = "text/plain; charset=utf-8"
    delay_seconds: float = 0.0

    def matches_request(self, method: str, path: str, query: Mapping[str, str]) -> bool:
        """Whether a request is meant; names of query parameters are compared in lower case."""
        return (
            not self.sequences
            and self.method in (None, method)
            and re.fullmatch(self.path, path) is not None
            and all(query.get(name.lower()) == value for name, value in self.query.items())
        )

    def matches_entries(self, sequences: Iterable[int], with_metadata: bool) -> bool:
        """Whether a page of these entries is meant."""
        return (with_metadata or self.without_metadata) and not set(self.sequences).isdisjoint(sequences)

    def answer_headers(self, now_ticks: int) -> dict[str, str]:
        """The headers of the failing answer, Retry-After included."""
        headers = {"content-type": self.content_type, **self.headers}
        if self.retry_after is not None:
            until = http_date(now_ticks + self.retry_after * TICKS_PER_SECOND)
            headers["retry-after"] = until if self.retry_after_as_date else str(self.retry_after)
        return headers


class FaultRaised(Exception):
    """A switched-on fault that a page ran into; the app answers with it."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.status)
        self.fault = fault


@dataclass
class SwitchedOn:
    """A fault with its id and counts: `met` requests matched it, `hits` of them failed."""

    id: int
    fault: Fault
    met: int = 0
    hits: int = 0

    def strikes(self) -> bool:
        """Counts one matching request; True when it must fail."""
        self.met += 1
        if self.met <= self.fault.skip:
            return False
        if self.fault.times is not None and self.hits >= self.fault.times:
            return False
        self.hits += 1
        return True


class Faults:
    """The faults that are on, in that order; the first that strikes wins. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._on: dict[int, SwitchedOn] = {}

    def add(self, fault: Fault) -> SwitchedOn:
        """Switches a fault on; the result counts its hits."""
        with self._lock:
            switched = SwitchedOn(next(self._ids), fault)
            self._on[switched.id] = switched
            return switched

    def remove(self, fault_id: int) -> bool:
        """Switches one off; False when there is none with that id."""
        with self._lock:
            return self._on.pop(fault_id, None) is not None

    def clear(self) -> None:
        """Switches all off."""
        with self._lock:
            self._on.clear()

    def all(self) -> list[SwitchedOn]:
        """Those that are on, spent ones included, with their counts."""
        with self._lock:
            return list(self._on.values())

    def for_request(self, method: str, path: str, query: Mapping[str, str]) -> Fault | None:
        """The fault that strikes this request, counted; None when it may pass."""
        with self._lock:
            for switched in self._on.values():
                if switched.fault.matches_request(method, path, query) and switched.strikes():
                    return switched.fault
            return None

    def check_entries(self, sequences: Iterable[int], with_metadata: bool) -> None:
        """Raises FaultRaised when a fault strikes a page of these entries."""
        with self._lock:
            sequences = set(sequences)
            for switched in self._on.values():
                if switched.fault.matches_entries(sequences, with_metadata) and switched.strikes():
                    raise FaultRaised(switched.fault)
