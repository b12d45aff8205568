"""What a long verb tells about its progress, and to whom nobody listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told by a verb as it goes on; shown by the command line on a terminal."""

    def step(self, name: str) -> None:
        """A new step began: read, merge instance, roll up, ..."""

    def read(self, pages: int, entries: int) -> None:
        """So many pages and entries of the feed have been read in this run."""

    def windows_left(self, count: int) -> None:
        """So many windows are still due after those of this run."""


class NullProgress:
    """Progress that nobody watches: logs are enough."""

    def step(self, name: str) -> None: ...

    def read(self, pages: int, entries: int) -> None: ...

    def windows_left(self, count: int) -> None: ...
