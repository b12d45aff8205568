"""One process measured from outside: its time, the memory of all its Python processes and of its JVM, what it said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from bench.feed import HEADER_BYTES, WINDOW_ENTRIES

TESTS = Path(__file__).resolve().parents[1]
_SAMPLE_SECONDS = 0.25


class StepFailed(Exception):
    """A measured process did not end well; the text is for the report."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of standard output and when it came, in seconds since the process was started."""

    seconds: float
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that ended well: seconds from start to end, its output, peaks of memory (sums of PSS)."""

    seconds: float
    lines: tuple[Line, ...]
    python_bytes: int
    jvm_bytes: int

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The lines that are JSON objects."""
        return [json.loads(line.text) for line in self.lines if line.text.startswith("{")]


def run_process(
    arguments: Sequence[str], folder: Path, *, limit_seconds: float = 1800, python: str = sys.executable
) -> Ended:
    """Runs Python with the arguments in a folder without settings of anybody.

    Raises StepFailed with the end of what it said when its exit code is not 0 or the time is over.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "stderr.txt").open("wb") as errors:
        began = time.monotonic()
        process = subprocess.Popen(
            [python, *arguments], cwd=folder, env=_environment(), stdout=subprocess.PIPE, stderr=errors, text=True
        )
        lines: list[Line] = []
        reader = threading.Thread(target=_read, args=(process, lines, began), daemon=True)
        reader.start()
        peaks = {False: 0, True: 0}
        try:
            while process.poll() is None:
                if time.monotonic() - began > limit_seconds:
                    raise StepFailed(f"not done after {limit_seconds:.0f} s")
                for is_jvm, size in _memory(process.pid).items():
                    peaks[is_jvm] = max(peaks[is_jvm], size)
                _wait(process)
        finally:
            seconds = time.monotonic() - began
            _end(process)
    reader.join(5)
    if process.stdout is not None:
        process.stdout.close()
    if process.returncode != 0:
        raise StepFailed(f"exit {process.returncode}: {_end_of(folder / 'stderr.txt')}")
    return Ended(seconds, tuple(lines), peaks[False], peaks[True])


def _wait(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(_SAMPLE_SECONDS)
    except subprocess.TimeoutExpired:
        return


def _end(process: subprocess.Popen[str]) -> None:
    """Nothing that was started stays behind; the JVM ends when its parent does."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DICOM_ETL")}
    # The sources beside it: another tree may be the one that is installed.
    path = os.pathsep.join((str(TESTS), str(TESTS.parent / "src")))
    return {**kept, "PYTHONPATH": path, "RUNTIME__DLTHUB_TELEMETRY": "false"}


def _read(process: subprocess.Popen[str], lines: list[Line], began: float) -> None:
    assert process.stdout is not None
    for text in process.stdout:
        lines.append(Line(time.monotonic() - began, text.rstrip("\n")))


def _end_of(path: Path) -> str:
    """Its last line: those before it, of a stack, name this machine's folders, and this goes into a document."""
    return "".join(path.read_text(errors="replace").strip().splitlines()[-1:])[-600:]


def jvm_below() -> int:
    """The process id of the JVM that this process has started. Raises StepFailed when there is none."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
            except OSError:
                continue
            if name == "java" and _has_parent(int(rest.split()[1]), os.getpid()):
                return int(entry.name)
    raise StepFailed("this process has no JVM")


def _has_parent(pid: int, ours: int) -> bool:
    while pid > 1 and pid != ours:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid == ours


def _memory(root: int) -> dict[bool, int]:
    """The PSS of the process and all below it, JVMs (True) apart from the rest."""
    parents: dict[int, int] = {}
    names: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue
            name, _, rest = text.partition("(")[2].rpartition(")")
            names[int(entry.name)], parents[int(entry.name)] = name, int(rest.split()[1])
    sizes = {False: 0, True: 0}
    for pid in parents:
        if _is_below(pid, root, parents):
            sizes[names[pid] == "java"] += _pss(pid)
    return sizes


def _is_below(pid: int, root: int, parents: dict[int, int]) -> bool:
    while pid > 1 and pid != root:
        pid = parents.get(pid, 0)
    return pid == root


def _pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


@dataclass(frozen=True, slots=True)
class Server:
    """A feed server in a process of its own."""

    base_url: str

    def show(
        self,
        entries: int,
        windows: Sequence[str] = (),
        latency_ms: int = 0,
        per_window: int = WINDOW_ENTRIES,
        header_bytes: int = HEADER_BYTES,
    ) -> None:
        """From now on this feed is served, and requests are counted anew."""
        shown = f"entries={entries}&windows={','.join(windows)}&latencyMs={latency_ms}&perWindow={per_window}"
        self._control(f"feed?{shown}&headerBytes={header_bytes}")

    def counters(self) -> dict[str, Any]:
        """What was asked for since."""
        return dict(json.loads(self._control("counters")))

    def _control(self, what: str) -> bytes:
        with urlopen(f"{self.base_url}/bench/{what}", timeout=30) as answer:  # noqa: S310 - loopback
            return bytes(answer.read())


@contextmanager
def feed_server() -> Iterator[Server]:
    """A server that lives as long as the block; it serves an empty feed at first."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.feedserver", "--entries", "0"],
        env=_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        if not port:
            raise StepFailed("the feed server did not start")
        yield Server(f"http://127.0.0.1:{port}")
    finally:
        process.stdin.close()
        process.stdout.close()
        _end(process)
