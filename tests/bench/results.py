"""What was measured, by name, each with what it took, or why it could not be measured."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

Details = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row of the report; ``entries`` are the changes that it brought, None where that has no meaning.

    ``details`` are numbers beside the time, by name; ``failed`` says why there is no time.
    """

    key: str
    what: str
    seconds: float | None
    entries: int | None = None
    details: Details = field(default_factory=dict)
    failed: str | None = None

    @property
    def per_second(self) -> float | None:
        return self.entries / self.seconds if self.entries and self.seconds else None


class Results:
    """The measurements in the order in which they were made.

    ``only`` names the steps that are made ("verify", "warm-updates"); None makes all.
    """

    def __init__(self, only: Collection[str] | None = None) -> None:
        self.rows: list[Measurement] = []
        self._only = only
        self._began = time.monotonic()

    def add(self, key: str, what: str, seconds: float, entries: int | None = None, **details: Any) -> Measurement:
        row = Measurement(key, what, seconds, entries, details)
        self.rows.append(row)
        self.say(f"{what}: {seconds:.1f} s")
        return row

    def get(self, key: str) -> Measurement | None:
        """The newest measurement of that name that did not fail."""
        return next((row for row in reversed(self.rows) if row.key == key and row.failed is None), None)

    def attempt(self, key: str, what: str, step: Callable[[], None]) -> bool:
        """Makes a step that is wanted; when it fails that is a row of its own, and the others go on."""
        if self._only is not None and key.partition("/")[0] not in self._only:
            return False
        self.say(f"{what} ...")
        try:
            step()
        except Exception as error:  # noqa: BLE001 - whatever a step ends with, the rest is worth its figures
            reason = f"{type(error).__name__}: {error}"
            self.rows.append(Measurement(key, what, None, failed=reason))
            self.say(f"{what}: FAILED: {reason}")
            return False
        return True

    def say(self, text: str) -> None:
        """A line of progress."""
        sys.stderr.write(f"[{time.monotonic() - self._began:6.0f} s] {text}\n")
        sys.stderr.flush()


def count(number: float) -> str:
    """With thin spaces between thousands."""
    return f"{number:,.0f}".replace(",", "\u202f")
