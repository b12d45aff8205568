"""The service's own clock, which tests and the demo can freeze, step, shift and make coarser."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime

from dicom_emulator.state.timestamps import ticks_of


class Clock:
    """Tells the time in 100 ns ticks since 1970 UTC; thread-safe.

    It runs with an offset (default: the machine's time), or stands still at an instant. Frozen, every
    event moves it on by `step` ticks; step 0 gives ties.
    """

    def __init__(self, read_nanoseconds: Callable[[], int] = time.time_ns) -> None:
        self._read_nanoseconds = read_nanoseconds
        self._lock = threading.Lock()
        self._frozen: int | None = None
        self._offset = 0
        self._step = 0
        self._digits = 7

    def now_ticks(self) -> int:
        """The present instant; asking does not move the clock."""
        with self._lock:
            return self._now()

    def event_ticks(self) -> int:
        """The timestamp of one event: now, cut to `digits` fraction digits; a frozen clock then steps."""
        with self._lock:
            unit: int = 10 ** (7 - self._digits)
            ticks = self._now() // unit * unit
            if self._frozen is not None:
                self._frozen += self._step
            return ticks

    def freeze(self, at: datetime | str | int, step: int = 0) -> None:
        """Stands still at an instant; every later event moves the clock on by `step` ticks."""
        with self._lock:
            self._frozen = ticks_of(at)
            self._step = step

    def run(self, offset: int = 0) -> None:
        """Runs again with the machine's time, shifted by `offset` ticks."""
        with self._lock:
            self._frozen = None
            self._offset = offset

    def advance(self, ticks: int) -> None:
        """Moves the clock by a number of ticks, back when negative, in either mode."""
        with self._lock:
            if self._frozen is None:
                self._offset += ticks
            else:
                self._frozen += ticks

    def set_digits(self, digits: int) -> None:
        """Cuts the timestamps of later events to 0 to 7 fraction digits. Raises ValueError otherwise."""
        if not 0 <= digits <= 7:
            raise ValueError("a timestamp has 0 to 7 fraction digits")
        with self._lock:
            self._digits = digits

    def settings(self) -> dict[str, object]:
        """What is set now: mode, nowTicks, offset, step, digits."""
        with self._lock:
            return {
                "mode": "running" if self._frozen is None else "frozen",
                "nowTicks": self._now(),
                "offset": self._offset,
                "step": self._step,
                "digits": self._digits,
            }

    def _now(self) -> int:
        if self._frozen is not None:
            return self._frozen
        return self._read_nanoseconds() // 100 + self._offset
