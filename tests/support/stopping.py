"""Runs that a real signal stops at a named point: ``python -m support.stopping POINT SIGNAL VERB …``, and its parent.

The child is the real program (``dicom-etl VERB …``) that kills (SIGKILL) or stops (SIGSTOP) itself just before or after
one function of its own; with ``none`` it only passes. Its heart beats five times a second, so that tests need not wait.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from support import runtime

if TYPE_CHECKING:
    from support.site import Site

BEAT_SECONDS = 0.2


@dataclass(frozen=True)
class Point:
    """Before or after the ``call``-th call of a function; ``table``: only of calls for that table.

    Roll-ups run side by side: the call for the other table then waits until the point has been passed.
    """

    module: str
    function: str
    when: Literal["before", "after"]
    call: int = 1
    table: str | None = None


POINTS = {
    "page read": Point("dicom_etl.landing.landing", "Landing.add", "after", call=2),
    "files written": Point("dicom_etl.landing.landing", "Landing.finish", "after"),
    "landing opened": Point("dicom_etl.run.land", "commit_change", "before"),
    "landed": Point("dicom_etl.run.land", "commit_change", "after"),
    "instance next": Point("dicom_etl.run.merge", "merge_instance", "before"),
    "instance merged": Point("dicom_etl.run.merge", "merge_instance", "after"),
    "instance built": Point("dicom_etl.commands.repair.rebuild", "replace_with", "after"),
    "series merged": Point("dicom_etl.run.roll_up", "merge_rollup", "after", table="series"),
    "study merged": Point("dicom_etl.run.roll_up", "merge_rollup", "after", table="study"),
    "series next": Point("dicom_etl.run.roll_up", "merge_rollup", "before", table="series"),
    "study next": Point("dicom_etl.run.roll_up", "merge_rollup", "before", table="study"),
    "all merged": Point("dicom_etl.run.pipeline", "record_rejects", "before"),
    "rejects recorded": Point("dicom_etl.run.pipeline", "record_rejects", "after"),
    "row next": Point("dicom_etl.run.pipeline", "record", "before"),
    "ledger opened": Point("dicom_etl.lake.ledger", "record", "before"),
    "row written": Point("dicom_etl.lake.ledger", "record", "after"),
    "change maintained": Point("dicom_etl.commands.maintain", "_maintained", "after", call=2),
}


# -- the child -----------------------------------------------------------------------------------------------


def main() -> None:
    from dicom_etl.cli.main import run
    from dicom_etl.cli.process import exit_process, run_command

    if runtime.named():
        runtime.hand_in()
    point, name, *words = sys.argv[1:]
    _beat_often()
    # To this very thread, which then does not go one step further; 0 is no signal.
    number = 0 if name == "none" else signal.Signals[name]
    at_point(point, lambda: signal.pthread_kill(threading.get_ident(), number))
    sys.argv = ["dicom-etl", *words]
    exit_process(run_command(run))


def _beat_often() -> None:
    module: Any = importlib.import_module("dicom_etl.run.write_session")
    module.claim = functools.partial(module.claim, interval_seconds=BEAT_SECONDS)


def at_point(point: str, act: Callable[[], Any], put: Callable[[Any, str, Any], None] = setattr) -> None:
    """Let this process ``act``, once, when it comes to the point; a test's ``put`` sets the function back."""
    where = POINTS[point]
    *path, name = where.function.split(".")
    owner: Any = functools.reduce(getattr, path, importlib.import_module(where.module))
    real = getattr(owner, name)
    calls: list[None] = []
    passed = threading.Event()

    def arrive() -> None:
        calls.append(None)
        if len(calls) == where.call:
            act()
        passed.set()

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if where.table is not None and args[1].name != where.table:
            passed.wait()
            return real(*args, **kwargs)
        if where.when == "before":
            arrive()
        result = real(*args, **kwargs)
        if where.when == "after":
            arrive()
        return result

    put(owner, name, wrapped)


# -- the parent ----------------------------------------------------------------------------------------------


@contextmanager
def child(site: Site, point: str, signal_name: str, verb: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """The program for a site, on its way to the point; whatever becomes of it, no process of its own is left."""
    settings = [word for text in (*site.texts, "spark.driver_memory=1g") for word in ("--set", text)]
    scratch = site.folder / "tmp"
    scratch.mkdir(exist_ok=True)
    # Of this very tree, wherever the environment's own installation points.
    sources = os.pathsep.join((str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "src")))
    environment = {**os.environ, "PYTHONPATH": sources, "TMPDIR": str(scratch)}
    with subprocess.Popen(
        [sys.executable, "-m", "support.stopping", point, signal_name, verb, *words, *settings],
        cwd=site.folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        jvms: list[int] = []
        try:
            yield running
        finally:
            if running.returncode is None:
                jvms = children(running.pid)
            running.kill()
            for jvm in jvms:
                with suppress(ProcessLookupError):
                    os.kill(jvm, signal.SIGKILL)


def killed(site: Site, point: str, verb: str = "sync", *words: str) -> None:
    """A run that has killed itself at the point; its JVM, if it had one, has ended too."""
    with child(site, point, "SIGKILL", verb, *words) as running:
        _happens(running, os.WEXITED)
        said = running.communicate()[1]
    assert running.returncode == -signal.SIGKILL, said
    assert "dicom-etl: " not in said


def wait_until_stopped(running: subprocess.Popen[str]) -> None:
    """Wait until the child has stopped itself; its end instead is a failure."""
    happened = _happens(running, os.WEXITED | os.WSTOPPED)
    assert happened == os.CLD_STOPPED, running.communicate()[1]


def _happens(running: subprocess.Popen[str], events: int) -> int:
    """What happens to the child next; it can still be waited for."""
    result = os.waitid(os.P_PID, running.pid, events | os.WNOWAIT)
    assert result is not None
    return result.si_code


def let_go_on(running: subprocess.Popen[str]) -> tuple[int, list[str]]:
    """The exit code of a stopped child that goes on to its end, and the lines in which it says why."""
    running.send_signal(signal.SIGCONT)
    said = running.communicate()[1]
    assert "Traceback" not in said
    return running.returncode, [line for line in said.splitlines() if line.startswith("dicom-etl: ")]


def stop_jvm_in_merge(site: Site, python: int) -> int:
    """The JVM of a child, stopped as soon as its first MERGE has a new file in the folder of ``instance``."""
    folder = site.root / "instance"
    known = set(folder.glob("*.parquet"))
    wait_for(lambda: bool(set(folder.glob("*.parquet")) - known), seconds=120, every=0.001)
    (jvm,) = children(python)
    os.kill(jvm, signal.SIGSTOP)
    return jvm


def children(pid: int) -> list[int]:
    """The processes that ``pid`` has started: of ours, its JVM."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if _stat(int(path.name))[1:2] == [str(pid)]]


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    return _stat(pid)[:1] in ([], ["Z"], ["X"])


def busy_ticks(pid: int) -> int:
    """The processor time that a process has had, in hundredths of a second."""
    user, system = _stat(pid)[11:13]
    return int(user) + int(system)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third, its state, on; none when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def wait_for(happened: Callable[[], bool], seconds: float = 60, every: float = 0.02) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(every)


if __name__ == "__main__":
    main()
