"""Which process holds a claim, and whether it is still there."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_START_TIME_FIELD = 22  # of /proc/PID/stat, counted from 1 (proc(5)); in clock ticks since boot
_ENDED_STATES = ("Z", "X")


@dataclass(frozen=True, slots=True)
class Process:
    """A process, told apart from every later one with the same pid.

    ``boot_id`` and ``namespace`` (of pids: containers of one machine may share its host name, and number
    their processes each for itself) are null where the system has none, ``started`` where it cannot be read.
    """

    host: str
    pid: int
    started: int | None
    boot_id: str | None
    namespace: str | None

    def shares_pids_with(self, other: Process) -> bool:
        """Whether a pid means the same process for both: same host, same boot, same namespace."""
        return (self.host, self.boot_id, self.namespace) == (other.host, other.boot_id, other.namespace)


def this_process() -> Process:
    """The calling process."""
    return Process(
        host=socket.gethostname(),
        pid=os.getpid(),
        started=_started(os.getpid()),
        boot_id=_boot_id(),
        namespace=_namespace(),
    )


def is_gone(process: Process, observer: Process) -> bool:
    """Whether ``process`` has certainly ended, as seen by ``observer``; False when that cannot be known."""
    if not process.shares_pids_with(observer):
        return False
    if not _exists(process.pid):
        return True
    started = _started(process.pid)
    return None not in (started, process.started) and started != process.started


def _exists(pid: int) -> bool:
    # Windows has no signal 0: os.kill would end the process that is asked about.
    if os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    # Killed, but not yet waited for: it will write no more. /proc may hide other users' processes (hidepid).
    stat = _stat(pid)
    return stat is None or stat[0] not in _ENDED_STATES


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the third (state) on; the second, a name, may hold blanks."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _started(pid: int) -> int | None:
    stat = _stat(pid)
    return int(stat[_START_TIME_FIELD - 3]) if stat else None


def _boot_id() -> str | None:
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return None


def _namespace() -> str | None:
    try:
        return os.readlink(_PROC / "self/ns/pid")
    except OSError:
        return None
