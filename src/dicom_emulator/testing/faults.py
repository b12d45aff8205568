"""Faults that a test switches on: which requests or entries fail, how, how often, and how often they did."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from dicom_emulator.state.timestamps import TICKS_PER_SECOND, http_date


@dataclass(frozen=True)
class Fault:
    """A request that fails: it matches method, path and query, or (with `sequences`) the entries of a page.

    By default it is answered with `status`, `headers` and `body`. With any of `rewrite`, `truncate`, `cut_body`,
    `trickle_seconds`, `reset` the answer that it would have got is damaged instead, in that order:
    `rewrite` gets the whole body and gives another; `truncate` leaves so many bytes of what is sent (of the
    gzip stream, when it is compressed) and says nothing of it; `cut_body` closes the connection after so many
    bytes; `trickle_seconds` waits before each `trickle_bytes`; `reset` resets the connection instead of
    answering, or after `cut_body` bytes.

    With `sequences` a feed answer fails that would carry one of these entries *with metadata* (a poison
    entry, design/service-protocol.md: Pages that fail), or, with `without_metadata`, in any form. Otherwise
    `path` is a regular expression that the whole path must match, and every name in `query` must have that value.
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
    rewrite: Callable[[bytes], bytes] | None = None
    truncate: int | None = None
    cut_body: int | None = None
    trickle_seconds: float = 0.0
    trickle_bytes: int = 1
    reset: bool = False

    @property
    def damages(self) -> bool:
        """Whether the real answer is damaged, instead of another one given."""
        lengths = (self.truncate, self.cut_body)
        return bool(self.rewrite or self.trickle_seconds or self.reset or any(one is not None for one in lengths))

    def as_json(self) -> dict[str, Any]:
        """Its fields, for people to look at; a function by its name."""
        return asdict(self) | {"rewrite": getattr(self.rewrite, "__name__", None) if self.rewrite else None}

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

    def for_entries(self, sequences: Iterable[int], with_metadata: bool) -> Fault | None:
        """The fault that strikes a page of these entries, counted; None when it may pass."""
        with self._lock:
            sequences = set(sequences)
            for switched in self._on.values():
                if switched.fault.matches_entries(sequences, with_metadata) and switched.strikes():
                    return switched.fault
            return None
