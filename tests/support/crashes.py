"""Ends a run at a random point, as a kill would: what is raised passes every handler of errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from types import ModuleType
from typing import Any

import pytest

from dicom_etl.lake import ledger
from dicom_etl.landing.landing import Landing
from dicom_etl.run import land, merge, rejects, roll_up

# Where a run can die, in the order of the run: what is wrapped, and whether it has happened by then.
Points = Mapping[str, tuple[ModuleType | type, str, str]]
POINTS: Points = {
    "a page": (Landing, "add", "after"),
    "files written": (land, "commit_change", "before"),
    "change committed": (land, "commit_change", "after"),
    "before the merge of instance": (merge, "merge_instance", "before"),
    "after the merge of instance": (merge, "merge_instance", "after"),
    "before a roll-up": (roll_up, "merge_rollup", "before"),
    "after a roll-up": (roll_up, "merge_rollup", "after"),
    "rejects recorded": (rejects, "append_rejects", "after"),
    "before the ledger": (ledger, "record", "before"),
    "after the ledger": (ledger, "record", "after"),
}


_REPEATED = (
    "a page", "before a roll-up", "after a roll-up", "after a replacement", "after a whole roll-up",
    "before a merge of changed rows", "after a merge of changed rows",
)  # fmt: skip


class Crash(BaseException):
    """The process is gone."""


@dataclass
class Crashes:
    """How often a run has died at each of the points."""

    points: Points = field(default_factory=lambda: POINTS)
    met: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.met = dict.fromkeys(self.points, 0)

    @property
    def deaths(self) -> int:
        """How often a run has died at any of them."""
        return sum(self.met.values())

    @contextmanager
    def at(self, point: str, random: Random, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Let the run of this block die at ``point``, at one of the first times that it comes there; or nowhere."""
        module, name, when = self.points[point]
        times_left = random.choice((1, 1, 1, 2, 5)) if point in _REPEATED else 1
        real: Callable[..., Any] = getattr(module, name)

        def dying(*args: Any, **named: Any) -> Any:
            nonlocal times_left
            times_left -= 1
            if times_left == 0 and when == "before":
                self._die(point)
            done = real(*args, **named)
            if times_left == 0 and when == "after":
                self._die(point)
            return done

        with monkeypatch.context() as patched:
            patched.setattr(module, name, dying)
            yield

    def _die(self, point: str) -> None:
        self.met[point] += 1
        raise Crash(point)
