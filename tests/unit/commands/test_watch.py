"""The embedded scheduler: when it wakes, what it goes on after, and how it stops."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dicom_etl.cli.process import Terminated, stop_when_asked
from dicom_etl.commands import watch as module
from dicom_etl.commands.watch import next_due, watch
from dicom_etl.core.errors import (
    AccessDenied,
    AnotherWriter,
    ConfigurationError,
    DataError,
    DicomEtlError,
    ProtocolError,
    ServiceUnavailable,
    StorageError,
)
from dicom_etl.core.settings.load import load_settings
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import format_instant, parse_instant

NOON = datetime(2024, 5, 1, 12, 20, tzinfo=UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(None, ["dicom.base_url=http://127.0.0.1:1", f"lake.root={tmp_path}"], {}, tmp_path)


class Day:
    """A clock that its pauses move, and syncs that end as they are told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, syncs: list[Any]) -> None:
        self.now = NOON
        self.pauses: list[float] = []
        self.began: list[str] = []
        self.engines: list[Any] = []
        self.left = list(syncs)
        self.asked = False
        monkeypatch.setattr(module, "sync_in", self._sync)

    def _sync(self, resources: Any, *_: Any) -> Iterator[Any]:
        self.began.append(f"{self.now:%H:%M:%S}")
        self.engines.append(resources.engine)
        what = self.left.pop(0)
        self.asked = not self.left
        if isinstance(what, Exception):
            raise what
        yield from what

    def is_set(self) -> bool:
        return self.asked

    def wait(self, timeout: float) -> None:
        self.pauses.append(timeout)
        self.now += timedelta(seconds=timeout)

    def watch(self, settings: Settings) -> list[Any]:
        return list(watch(settings, stop=self, clock=lambda: self.now))


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("12:00:00", "12:15:00"),  # 11:00-12:00 was over at 12:00, and the delay is not
        ("12:14:59.9999999", "12:15:00"),
        ("12:15:00", "13:15:00"),
        ("13:00:00", "13:15:00"),
    ],
)
def test_the_next_window_is_due_when_it_has_been_over_for_the_delay(
    settings: Settings, now: str, expected: str
) -> None:
    """Always later than now, on the grid of windows, and 15 minutes after its end."""
    due = next_due(settings.feed, parse_instant(f"2024-05-01T{now}Z"))
    assert format_instant(due) == f"2024-05-01T{expected}Z"


def test_it_syncs_at_once_and_then_as_each_window_becomes_due(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every run is given; it sleeps a minute at the longest, and all syncs have one engine."""
    day = Day(monkeypatch, [["caught up", "again"], [], ["an hour"]])
    assert day.watch(settings) == ["caught up", "again", "an hour"]
    assert day.began == ["12:20:00", "13:15:02", "14:15:02"]
    assert max(day.pauses) == 60
    assert len({id(engine) for engine in day.engines}) == 1


@pytest.mark.parametrize("error", [ServiceUnavailable("x"), AnotherWriter("x"), StorageError("full")])
def test_it_goes_on_after_what_waiting_may_solve(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, error: DicomEtlError
) -> None:
    """Later and later while it fails, ten minutes at the longest, and with a new engine; then as before."""
    day = Day(monkeypatch, [error] * 8 + [["healed"], error, []])
    assert day.watch(settings) == ["healed"]
    assert day.pauses[:8] == [15, 30, 60, 120, 240, 480, 600, 600]
    assert day.pauses[-1] == 15
    assert len({id(engine) for engine in day.engines[:9]}) == 9


@pytest.mark.parametrize(
    "error", [DataError("65"), ProtocolError("70"), AccessDenied("77"), ConfigurationError("78"), ValueError("a bug")]
)
def test_it_ends_on_what_a_person_must_solve(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """65, 70, 77, 78: the error is the command's."""
    day = Day(monkeypatch, [["one"], error, ["never"]])
    with pytest.raises(type(error)):
        day.watch(settings)
    assert day.left == [["never"]]


def test_it_stops_between_two_runs(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked during a run ends it after that run; nothing is slept through."""
    day = Day(monkeypatch, [["one", "two"]])
    runs = watch(settings, stop=day, clock=lambda: day.now)
    assert next(runs) == "one"
    assert list(runs) == []
    assert day.pauses == []


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGTERM, Terminated), (signal.SIGINT, KeyboardInterrupt)])
def test_a_signal_is_a_question_first(number: int, kind: type[BaseException]) -> None:
    """The block goes on and learns of it; at its end it is what the signal is elsewhere, and handlers are back."""
    before = signal.getsignal(number)
    went_on = False
    with pytest.raises(kind), stop_when_asked() as asked:  # noqa: PT012
        assert not asked.is_set()
        signal.raise_signal(number)
        assert asked.is_set()
        went_on = True
    assert went_on
    assert signal.getsignal(number) is before


def test_a_second_signal_ends_at_once() -> None:
    """Whoever cannot wait for the end of the run presses again."""
    went_on = False
    with pytest.raises(KeyboardInterrupt), stop_when_asked() as asked:  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        assert asked.is_set()
        signal.raise_signal(signal.SIGINT)
        went_on = True
    assert not went_on
