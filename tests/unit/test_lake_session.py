"""Around the start of Spark: signals wait, output goes to a file, and a session without Delta is refused."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dicom_etl.errors import ConfigurationError
from dicom_etl.lake import session


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_until_the_jvm_is_ours(number: signal.Signals) -> None:
    """A signal that comes while Spark starts is delivered when the start is over, once, to the former handler."""
    heard: list[tuple[int, str]] = []
    where = "inside"
    before = signal.signal(number, lambda got, _frame: heard.append((got, where)))
    try:
        with session._signals_wait():
            os.kill(os.getpid(), number)
            assert heard == []
            where = "after"
        assert heard == [(number, "after")]
        os.kill(os.getpid(), number)
        assert len(heard) == 2
    finally:
        signal.signal(number, before)


def test_a_process_started_meanwhile_writes_into_the_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its standard output and error stand in the file, readable for this user only; ours come back."""
    log = tmp_path / "jvm.log"
    with session._output_into(log):
        subprocess.run(["sh", "-c", "echo chatter; echo warning >&2"], check=True)
    subprocess.run(["sh", "-c", "echo ours"], check=True)
    assert sorted(log.read_text().split()) == ["chatter", "warning"]
    assert log.stat().st_mode & 0o777 == 0o600
    assert capfd.readouterr().out == "ours\n"


def _session(extensions: str) -> Any:
    return SimpleNamespace(conf=SimpleNamespace(get=lambda _key, _default: extensions), _jvm=None)


def test_a_session_without_delta_is_refused() -> None:
    """A cluster's session that knows no Delta ends with one line, before anything is read."""
    with pytest.raises(ConfigurationError, match="has no Delta Lake"):
        session._check_and_quiet(_session(""))
