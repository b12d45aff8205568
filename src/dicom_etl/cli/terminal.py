"""Progress on a terminal, in one line below the results; where there is none, log lines are enough."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from dicom_etl.cli import wording
from dicom_etl.core.progress import NullProgress, Progress

# The spinner, the elapsed time and the spaces between.
_BESIDE = 12


@contextmanager
def terminal_progress() -> Iterator[Progress]:
    """Progress on standard error when it is a terminal, else silence; its line is gone when the block ends."""
    if not sys.stderr.isatty():
        yield NullProgress()
        return
    bar = Bar(
        SpinnerColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
        console=Console(stderr=True),
        transient=True,
        # It would send what is printed on standard output to standard error.
        redirect_stdout=False,
    )
    with bar:
        yield ProgressLine(bar)


@contextmanager
def line_hidden(progress: Progress) -> Iterator[None]:
    """Take the progress line away while a result is printed, so that the result has a line of its own."""
    if not isinstance(progress, ProgressLine):
        yield
        return
    progress.bar.stop()
    try:
        yield
        sys.stdout.flush()
    finally:
        progress.bar.start()


class ProgressLine:
    """One line: the step, entries a second, windows left and how long they may take."""

    def __init__(self, bar: Bar, clock: Callable[[], float] = time.monotonic) -> None:
        self.bar = bar
        self._clock = clock
        self._task = bar.add_task("start")
        self._step = "start"
        self._read = ""
        self._left = ""
        self._began = clock()
        self._first: tuple[int, float] | None = None

    def step(self, name: str) -> None:
        self._step = name
        self._read = ""
        self._began = self._clock()
        self._show()

    def read(self, pages: int, entries: int) -> None:
        del pages
        pace = entries / max(self._clock() - self._began, 0.001)
        self._read = f"{wording.counted(entries, 'entry', 'entries')}, {wording.number(round(pace))}/s"
        self._show()

    def windows_left(self, count: int) -> None:
        now = self._clock()
        first, since = self._first = self._first or (count, now)
        self._left = f"{wording.counted(count, 'window')} left"
        if 0 < count < first:
            self._left += f", about {wording.duration(count * (now - since) / (first - count))}"
        self._show()

    @property
    def text(self) -> str:
        return " · ".join(part for part in (self._step, self._read, self._left) if part)

    def _show(self) -> None:
        line = Text(self.text)
        line.truncate(max(1, self.bar.console.width - _BESIDE), overflow="ellipsis")
        self.bar.update(self._task, description=line.plain)
