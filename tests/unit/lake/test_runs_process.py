"""Telling a dead process from a live one, and from a later one with its pid."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_etl.lake.claims import process as module
from dicom_etl.lake.claims.process import Process, is_gone, this_process


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits for the end of its input."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as p:
        yield p
        p.kill()


def like_me(pid: int) -> Process:
    return dataclasses.replace(this_process(), pid=pid, started=None)


def test_this_process_is_there() -> None:
    """It has a host, a pid, and on Linux a start time, a boot and a namespace of pids."""
    me = this_process()

    assert me.pid == os.getpid()
    assert me.started is not None
    assert me.started > 0
    assert me.boot_id
    assert me.namespace
    assert not is_gone(me, me)


def test_a_process_is_gone_once_it_is_killed_even_before_anybody_waits_for_it(
    child: subprocess.Popen[bytes],
) -> None:
    """A zombie still has its pid, and writes nothing any more."""
    other = like_me(child.pid)
    assert not is_gone(other, this_process())

    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{child.pid}").exists()

    assert is_gone(other, this_process())
    child.wait()
    assert is_gone(other, this_process())


def test_a_later_process_with_the_same_pid_is_another_one(child: subprocess.Popen[bytes]) -> None:
    """The start time tells them apart; an unknown start time proves nothing."""
    me = this_process()
    started = module._started(child.pid)
    assert started is not None

    assert not is_gone(dataclasses.replace(like_me(child.pid), started=started), me)
    assert is_gone(dataclasses.replace(like_me(child.pid), started=started - 1), me)
    assert not is_gone(like_me(child.pid), me)


@pytest.mark.parametrize("field", ["host", "boot_id", "namespace"])
def test_a_process_of_another_machine_boot_or_container_is_never_known_to_be_gone(field: str) -> None:
    """Its pid counts in another world."""
    nowhere = dataclasses.replace(like_me(2**31 - 2))
    assert is_gone(nowhere, this_process())

    assert not is_gone(dataclasses.replace(nowhere, **{field: "another"}), this_process())


@pytest.mark.parametrize("name", ["python", "a b", "x) R 1 (y", ") Z 1 2"])
def test_the_start_time_is_read_behind_any_process_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """/proc/PID/stat writes the name in brackets, and the name may hold blanks and brackets (proc(5))."""
    fields = " ".join(str(number) for number in range(4, 53))
    (tmp_path / str(os.getpid())).mkdir()
    (tmp_path / str(os.getpid()) / "stat").write_text(f"{os.getpid()} ({name}) S {fields}\n")
    monkeypatch.setattr(module, "_PROC", tmp_path)

    assert this_process().started == 22
    assert not is_gone(this_process(), this_process())


def test_without_proc_a_signal_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, child: subprocess.Popen[bytes]
) -> None:
    """macOS: no start time, no boot, no namespace, but os.kill(pid, 0) knows who is there."""
    monkeypatch.setattr(module, "_PROC", tmp_path / "no proc")
    me = this_process()

    assert (me.started, me.boot_id, me.namespace) == (None, None, None)
    assert not is_gone(like_me(child.pid), me)
    assert is_gone(like_me(2**31 - 2), me)


def test_a_process_of_another_user_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that is forbidden has somebody to go to."""

    def forbidden(pid: int, signal: int) -> None:
        raise PermissionError(pid, signal)

    monkeypatch.setattr(module.os, "kill", forbidden)

    assert not is_gone(like_me(2**31 - 2), this_process())
