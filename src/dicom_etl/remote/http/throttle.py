"""How many requests may be under way at once: fewer after the service throttled, then more again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition


class Throttle:
    """A gate with a width that follows the service (additive increase, multiplicative decrease).

    The width halves with a throttled answer, at most once per width of answers, and grows by one with as
    many good answers as it is wide.
    """

    def __init__(self, widest: int) -> None:
        self._widest = widest
        self._width = float(widest)
        self._under_way = 0
        self._since_cut = widest
        self._closed_until = 0.0
        self._changed = Condition()

    @property
    def width(self) -> int:
        with self._changed:
            return max(1, int(self._width))

    @property
    def closed_until(self) -> float:
        """The moment, on the client's monotonic clock, before which the service wants no request at all."""
        with self._changed:
            return self._closed_until

    @contextmanager
    def slot(self, cancelled: Callable[[], bool]) -> Iterator[None]:
        """Waits for a free slot and holds it; a cancelled caller goes through at once."""
        with self._changed:
            while self._under_way >= max(1, int(self._width)) and not cancelled():
                self._changed.wait(0.5)
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def answered(self) -> None:
        """A good answer came."""
        with self._changed:
            self._since_cut += 1
            self._width = min(self._widest, self._width + 1 / self._width)
            self._changed.notify_all()

    def throttled(self, closed_until: float) -> None:
        """The service asked for fewer requests, and for none before ``closed_until``."""
        with self._changed:
            self._closed_until = max(self._closed_until, closed_until)
            if self._since_cut >= self._width:
                self._width = max(1.0, self._width / 2)
                self._since_cut = 0
            else:
                self._since_cut += 1
