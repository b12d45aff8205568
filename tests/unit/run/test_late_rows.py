"""Which covered time a run reads again: late rows are found by the next run, or within the day, and no more is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest

from dicom_etl.core.timerange import Window, to_datetime
from dicom_etl.lake import coverage, ledger
from dicom_etl.lake.ledger import Run
from dicom_etl.run import late_rows
from dicom_etl.run.late_rows import DAY, oldest_compared, reading_runs, second_look
from support.broken import Mutant, assert_caught, checks
from support.site import HOUR, MINUTE

DELAY = 15 * MINUTE
LOOK_BACK = 3 * HOUR
# A midnight.
START = 20_000 * DAY


def run(run_id: int, start: float, end: float, at: float, *, covered: float | None = None, **given: str) -> Run:
    """A run that read [start, end) at an instant; all in hours after a midnight."""
    moment = to_datetime(_hour(at))
    return Run(
        run_id=run_id,
        verb=given.get("verb", "sync"),
        status=given.get("status", "succeeded"),  # type: ignore[arg-type]
        window_start=_hour(start),
        window_end=_hour(end),
        covered_until=_hour(end if covered is None else covered),
        started_at=moment,
        finished_at=moment,
    )


def _hour(hour: float) -> int:
    return START + round(hour * HOUR)


def looked(runs: list[Run], start: float, end: float, look_back: int = LOOK_BACK) -> list[tuple[float, float]]:
    """In hours, what a run of [start, end), all of it closed, reads again."""
    found = second_look(runs, Window(_hour(start), _hour(end)), _hour(end), look_back)
    return [((w.start - START) / HOUR, (w.end - START) / HOUR) for w in found]


HOURLY = [run(hour + 1, hour, hour + 1, hour + 1.25) for hour in range(40)]


@pytest.mark.parametrize(
    ("runs", "window", "expected"),
    [
        ([], (12, 13), []),
        (HOURLY[:12], (12, 13), [(9, 12)]),
        # The day of the midnight before, when the run passes the next one; not when it ends just before.
        (HOURLY[:23], (23, 23.9), [(20, 23)]),
        (HOURLY[:23], (23, 24), [(0, 23)]),
        (HOURLY[:24], (24, 25), [(21, 24)]),
        # An outage of a weekend: a day before the midnight before what was covered, in the first run after it.
        (HOURLY[:36], (36, 84), [(0, 36)]),
        # Only what is covered: a hole is read by a run of its own.
        ([*HOURLY[:10], *HOURLY[11:12]], (12, 13), [(9, 10), (11, 12)]),
        ([*HOURLY[:10], *HOURLY[11:12]], (10, 11), [(9, 10)]),
        # What this run reads, and what lies beyond its end, where it would not land it.
        (HOURLY[:12], (10, 11), [(9, 10)]),
        (HOURLY[:12], (5, 6), []),
        # An open range counts as far as it was closed.
        ([*HOURLY[:12], run(13, 12, 20, 13, covered=12.75)], (12.75, 14), [(9.75, 12.75)]),
        # A run that catches up: of windows of long ago only what was young when it was read.
        ([run(1, -1000, -100, 12.25)], (-100, -50), []),
        ([run(1, -1000, 0, 12.25)], (0, 12), [(-3, 0)]),
        ([run(1, -1000, 0, 12.25)], (0, 24), [(-11.75, 0)]),
        # A repair covers nothing, a rebuild everything.
        ([*HOURLY[:12], run(13, 0, 12.4, 12.5, covered=0, verb="repair")], (12, 13), [(9, 12)]),
        ([run(1, -1000, 12.4, 12.5, covered=12.25, verb="repair")], (12.25, 13), [(9.25, 12.25)]),
    ],
)
def test_what_a_run_reads_again(
    runs: list[Run], window: tuple[float, float], expected: list[tuple[float, float]]
) -> None:
    """The last three hours of what is covered, and more when a midnight is passed."""
    assert looked(runs, *window) == expected


def test_a_longer_look_back_reaches_farther_and_none_is_none() -> None:
    """Thirty hours in each run; 0s turns it off, the daily look too."""
    assert looked(HOURLY, 40, 41, 30 * HOUR) == [(10, 40)]
    assert looked(HOURLY, 40, 48, 30 * HOUR) == [(0, 40)]
    assert looked(HOURLY, 40, 48, 50 * HOUR) == [(0, 40)]
    assert looked(HOURLY[20:], 40, 48, 50 * HOUR) == [(20, 40)]
    assert looked(HOURLY, 40, 48, 0) == []


def test_what_failed_or_read_nothing_is_not_known() -> None:
    """A run that found a late row and died has not brought it."""
    runs = [run(1, 0, 1, 2), run(2, 1, 2, 3, status="failed"), run(3, 1, 2, 3, verb="maintain"), run(4, 0, 1, 3)]
    assert [one.run_id for one in reading_runs(runs)] == [1, 4]


def test_the_oldest_run_that_is_still_compared() -> None:
    """Those of the day before the last midnight; where nothing is read again, none is needed."""
    assert oldest_compared([], LOOK_BACK) is None
    assert oldest_compared(HOURLY[:20], LOOK_BACK) == 1
    assert oldest_compared(HOURLY[10:], LOOK_BACK) == 11
    assert oldest_compared([*HOURLY, run(41, 40, 60, 60.25)], LOOK_BACK) == 25
    assert oldest_compared([*HOURLY, run(41, 40, 72, 72.25)], LOOK_BACK) == 41
    assert oldest_compared(HOURLY, 0) is None


class History:
    """A lake that is synced by the hour, with outages; and a row of ``time`` that becomes visible at ``visible``."""

    def __init__(self, time: int, visible: int) -> None:
        self.time, self.visible = time, visible
        self.runs: list[Run] = []
        self.read_again = 0
        # What the runs did from when it was visible until one found it: found it, passed a midnight, or neither.
        self.did: list[str] = []

    @property
    def late(self) -> bool:
        """Whether its time was covered before it was visible."""
        return any(w.start <= self.time < w.end for w in ledger.covered(self.runs))

    def sync(self, now: int, longest: int) -> None:
        """Runs of at most ``longest``, until nothing is due."""
        covered = ledger.covered(self.runs)
        for stretch in coverage.due(now, start=START, window=HOUR, delay=DELAY, covered=covered):
            rest = stretch
            while not rest.empty:
                window = coverage.cut(rest, rest.start + longest, HOUR)
                self._run(window, now)
                rest = Window(window.end, rest.end)

    def _run(self, window: Window, now: int) -> None:
        again = late_rows.second_look(self.runs, window, window.end, LOOK_BACK)
        self.read_again += sum(one.end - one.start for one in again)
        covered = ledger.covered(self.runs)
        if now >= self.visible and "found" not in self.did:
            found = any(one.start <= self.time < one.end for one in [*again, window])
            midnight = bool(covered) and window.end // DAY > covered[-1].end // DAY
            self.did.append("found" if found else "midnight" if midnight else "neither")
        end, at = (window.end - START) / HOUR, (now - START) / HOUR
        self.runs.append(run(len(self.runs) + 1, (window.start - START) / HOUR, end, at))


def pause(random: Random) -> int:
    """An hour, sometimes more, and now and then an outage of days."""
    return HOUR + random.choice([0] * 12 + [random.randrange(HOUR)] * 3 + [random.randrange(60 * HOUR)])


def late_histories(most_late: int) -> Iterator[History]:
    """Some in which a row is late by at most so much, until a run has found it, or three days after."""
    for seed in range(80):
        random = Random(seed)
        time = START + random.randrange(3 * DAY // 2)
        visible = time + random.randrange(HOUR + DELAY, most_late)
        history = History(time, visible)
        now = START + random.randrange(HOUR)
        while now < visible:
            history.sync(now, random.choice([HOUR, 9 * HOUR, 100 * HOUR]))
            now += pause(random)
        if not history.late:
            continue
        while "found" not in history.did and now < visible + 3 * DAY:
            history.sync(now, random.choice([HOUR, 9 * HOUR, 100 * HOUR]))
            now += pause(random)
        yield history


def check_the_next_run() -> None:
    """A row that is three hours late, or less, is found by the first run after it is visible."""
    histories = list(late_histories(LOOK_BACK))
    assert len(histories) > 30
    assert {history.did[0] for history in histories} == {"found"}, "by the next run"


def check_the_day() -> None:
    """A row that is a day late, or less, is found before a second midnight is passed, whatever outage there was."""
    histories = list(late_histories(DAY))
    assert len(histories) > 30
    assert {history.did[-1] for history in histories} == {"found"}, "within the day"
    assert not [history for history in histories if "midnight" in history.did], "within the day"


def check_the_cost() -> None:
    """Catching up with 1 000 hours reads the last day again at most; then each run three hours, and 47 once a day."""
    history = History(START, START + 10_000 * HOUR)
    history.sync(_hour(1000.25), 9 * HOUR)
    assert len(history.runs) == 112
    assert history.read_again <= 24 * HOUR, "windows of long ago are not read twice"
    before = history.read_again
    for hour in range(1001, 1001 + 240):
        history.sync(_hour(hour + 0.25), HOUR)
    assert len(history.runs) == 112 + 240
    assert history.read_again - before <= 10 * (23 * 3 + 47) * HOUR, "a day costs five days' entries"


def _back_from(reach: int) -> Callable[..., int]:
    return lambda end, _look_back: end - reach


def _the_present_only(
    runs: list[Run], window: Window, covered_until: int, look_back: int, real: Any = second_look
) -> Any:
    """Nothing before the last hours of what the run itself reads."""
    return [w for w in real(runs, window, covered_until, look_back) if w.end > window.end - look_back]


def _whatever_its_age(run: Run, since: int, until: int, _look_back: int) -> Window:
    covered = run.coverage or Window(since, since)
    start = max(covered.start, since)
    return Window(start, max(start, min(covered.end, until)))


MUTANTS = [
    Mutant("no second look", check_the_next_run, late_rows, "second_look", lambda *_: [], "by the next run"),
    Mutant("from the run's own end", check_the_next_run, late_rows, "second_look", _the_present_only,
           "by the next run"),
    Mutant("no daily look", check_the_day, late_rows, "_since_midnight", _back_from(LOOK_BACK), "within the day"),
    Mutant("a day back from what is covered", check_the_day, late_rows, "_since_midnight", _back_from(DAY),
           "within the day"),
    Mutant("whatever its age", check_the_cost, late_rows, "_young", _whatever_its_age,
           "windows of long ago are not read twice"),
    Mutant("two days in each run", check_the_cost, late_rows, "second_look",
           lambda runs, window, _end, look_back: second_look(runs, window, window.end + DAY, look_back),
           "windows of long ago are not read twice"),
]  # fmt: skip


@pytest.mark.parametrize("check", checks(MUTANTS), ids=lambda check: check.__name__)
def test_the_real_code_passes(check: Callable[[], None]) -> None:
    """The checks below are those that the product meets."""
    check()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.rule)
def test_the_broken_twin_is_caught(mutant: Mutant) -> None:
    """With the rule broken the very same check fails, by its own assertion."""
    assert_caught(mutant)
