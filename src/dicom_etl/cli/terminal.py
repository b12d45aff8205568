"""Progress on a terminal; where there is none, log lines are enough."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from dicom_etl.core.progress import NullProgress, Progress


@contextmanager
def terminal_progress() -> Iterator[Progress]:
    """Progress on standard error when it is a terminal, else silence."""
    if not sys.stderr.isatty():
        yield NullProgress()
        return
    console = Console(stderr=True)
    with Bar(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as bar:
        yield _Shown(bar)


class _Shown:
    """One line: the step, pages, entries and entries a second, windows left."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._task = bar.add_task("start")
        self._step = "start"
        self._read = ""
        self._left = ""
        self._began = time.monotonic()

    def step(self, name: str) -> None:
        self._step = name
        self._read = ""
        self._began = time.monotonic()
        self._show()

    def read(self, pages: int, entries: int) -> None:
        seconds = max(time.monotonic() - self._began, 0.001)
        self._read = f"  {pages} pages  {entries} entries  {entries / seconds:.0f} entries/s"
        self._show()

    def windows_left(self, count: int) -> None:
        self._left = f"  {count} windows left"
        self._show()

    def _show(self) -> None:
        self._bar.update(self._task, description=self._step + self._read + self._left)
