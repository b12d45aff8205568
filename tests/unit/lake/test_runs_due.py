"""What is due: whole windows that ended by now - delay, minus what is covered; none lost, none early."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_etl.core.timerange import TICKS_PER_SECOND, Window, parse_instant
from dicom_etl.lake.coverage import coverage_end, covered_until, cut, due, until, windows_in

HOUR = 3600 * TICKS_PER_SECOND
QUARTER = HOUR // 4


def at(text: str) -> int:
    """Ticks of a time of 2026-03-29, of any RFC 3339 time when it has a date."""
    return parse_instant(text if "T" in text else f"2026-03-29T{text}Z")


def span(start: str, end: str) -> Window:
    return Window(at(start), at(end))


@pytest.mark.parametrize(
    ("now", "covered", "expected"),
    [
        ("12:14:59.9999999", [], [("08:00", "11:00")]),
        ("12:15", [], [("08:00", "12:00")]),
        ("12:15", [("08:00", "12:00")], []),
        ("12:15", [("00:00", "23:00")], []),
        ("12:15", [("08:00", "09:00"), ("10:00", "11:00")], [("09:00", "10:00"), ("11:00", "12:00")]),
        ("12:15", [("08:20", "08:40")], [("08:00", "08:20"), ("08:40", "12:00")]),
        ("12:15", [("11:30", "14:00")], [("08:00", "11:30")]),
        ("12:15", [("09:00", "11:00"), ("08:00", "10:30")], [("11:00", "12:00")]),
        ("09:14", [], []),
        ("08:00", [], []),
        ("07:00", [], []),
    ],
)
def test_due_are_the_whole_uncovered_windows_that_ended_before_the_delay(
    now: str, covered: list[tuple[str, str]], expected: list[tuple[str, str]]
) -> None:
    """Hourly windows from 08:00, fifteen minutes of delay."""
    stretches = due(
        at(f"{now}:00" if now.count(":") == 1 else now),
        start=at("08:00:00"),
        window=HOUR,
        delay=QUARTER,
        covered=[span(f"{a}:00", f"{b}:00") for a, b in covered],
    )

    assert stretches == [span(f"{a}:00", f"{b}:00") for a, b in expected]


def test_the_first_window_begins_at_the_start_and_not_at_the_grid() -> None:
    """Nothing before `feed.start` is ever read."""
    stretches = due(at("10:15:00"), start=at("08:20:00.1234560"), window=HOUR, delay=QUARTER, covered=[])

    assert stretches == [span("08:20:00.123456", "10:00:00")]


def test_a_seventh_digit_of_the_start_is_not_due_for_ever() -> None:
    """The ledger holds microseconds: what it says is covered from the next one on began one earlier."""
    start = at("08:20:00.1234567")
    first = due(at("10:15:00"), start=start, window=HOUR, delay=QUARTER, covered=[])
    assert first == [span("08:20:00.123456", "10:00:00")]

    assert due(at("10:15:00"), start=start, window=HOUR, delay=QUARTER, covered=first) == []
    assert covered_until(start, first) == at("10:00:00")


def test_sixty_years_are_one_stretch() -> None:
    """Windows are not enumerated: the first run of a lake costs no loop."""
    stretches = due(
        at("2030-01-01T00:15:00Z"),
        start=at("1970-01-01T00:00:00Z"),
        window=TICKS_PER_SECOND,
        delay=QUARTER,
        covered=[],
    )

    assert stretches == [span("1970-01-01T00:00:00Z", "2030-01-01T00:00:00Z")]
    assert windows_in(stretches, TICKS_PER_SECOND) == 1_893_456_000


def test_until_gives_every_uncovered_stretch_once_and_the_last_one_partial() -> None:
    """`sync --until T` reads up to T, which need not lie on the grid."""
    covered = [span("09:00:00", "10:00:00")]

    assert until(at("10:20:30.1234567"), start=at("08:00:00"), covered=covered) == [
        span("08:00:00", "09:00:00"),
        span("10:00:00", "10:20:30.1234567"),
    ]
    assert until(at("08:00:00"), start=at("08:00:00"), covered=[]) == []
    assert until(at("07:00:00"), start=at("08:00:00"), covered=[]) == []


@pytest.mark.parametrize(
    ("now", "expected"),
    [("10:00:00", "09:30:00"), ("09:40:00", "09:25:00"), ("09:15:00", "09:00:00"), ("08:00:00", "09:00:00")],
)
def test_coverage_ends_at_now_minus_delay_and_never_before_its_start(now: str, expected: str) -> None:
    """[09:00, 09:30) read at different times, with fifteen minutes of delay."""
    assert coverage_end(span("09:00:00", "09:30:00"), at(now), QUARTER) == at(expected)


@pytest.mark.parametrize(
    ("read_until", "expected"),
    [
        ("08:30:00", "09:00:00"),
        ("09:00:00", "09:00:00"),
        ("09:59:59.9999999", "09:00:00"),
        ("10:00:00", "10:00:00"),
        ("10:20:00", "10:00:00"),
        ("12:00:00", "10:30:00"),
        ("07:00:00", "09:00:00"),
    ],
)
def test_a_cut_is_at_an_edge_and_leaves_at_least_one_window(read_until: str, expected: str) -> None:
    """Of [08:10, 10:30) in hourly windows."""
    assert cut(span("08:10:00", "10:30:00"), at(read_until), HOUR) == span("08:10:00", expected)


def test_a_cut_of_less_than_a_window_is_all_of_it() -> None:
    """A stretch within one window cannot be cut."""
    assert cut(span("08:10:00", "08:20:00"), at("08:15:00"), HOUR) == span("08:10:00", "08:20:00")


@pytest.mark.parametrize(
    ("covered", "expected"),
    [
        ([], "08:00:00"),
        ([("09:00:00", "10:00:00")], "08:00:00"),
        ([("08:00:00", "09:00:00"), ("10:00:00", "11:00:00")], "09:00:00"),
        ([("09:00:00", "10:00:00"), ("07:00:00", "09:00:00")], "10:00:00"),
        ([("07:00:00", "08:00:00")], "08:00:00"),
    ],
)
def test_the_lag_counts_from_the_contiguous_coverage(covered: list[tuple[str, str]], expected: str) -> None:
    """A hole holds it back, whatever came after; from 08:00."""
    assert covered_until(at("08:00:00"), [span(a, b) for a, b in covered]) == at(expected)


@pytest.mark.parametrize(
    ("stretches", "expected"),
    [
        ([], 0),
        ([("08:00:00", "08:00:00")], 0),
        ([("08:00:00", "09:00:00")], 1),
        ([("08:59:59.9999999", "09:00:00.0000001")], 2),
        ([("08:10:00", "08:20:00"), ("08:30:00", "08:40:00")], 1),
        ([("08:10:00", "08:20:00"), ("10:30:00", "12:40:00")], 4),
    ],
)
def test_windows_are_counted_by_arithmetic(stretches: list[tuple[str, str]], expected: int) -> None:
    """Each window of the grid that is touched counts once."""
    assert windows_in([span(a, b) for a, b in stretches], HOUR) == expected


# A small world for the properties: one tick of the model is one microsecond, time runs from 0 to 120.
MICRO = 10
END = 120


@dataclass
class Oracle:
    """Sets of instants: what may be lost, what was read when it was closed, what the ledger says."""

    start: int
    delay: int
    recorded: list[Window] = field(default_factory=list)
    read_closed: set[int] = field(default_factory=set)
    read: set[int] = field(default_factory=set)

    def run(self, window: Window, now: int) -> None:
        """A run that reads ``window`` at ``now`` and records its coverage."""
        first, last = window.start // MICRO, window.end // MICRO
        self.read |= set(range(first, last))
        self.read_closed |= {i for i in range(first, last) if i + 1 <= now - self.delay}
        end = coverage_end(window, now * MICRO, self.delay * MICRO)
        if end > window.start:
            self.recorded.append(Window(window.start, end))

    @property
    def recorded_instants(self) -> set[int]:
        return {i for w in self.recorded for i in range(w.start // MICRO, w.end // MICRO)}


STEP = st.tuples(
    st.integers(0, 9),  # how much time passes
    st.sampled_from(["due", "first due", "until", "manual", "cut"]),
    st.integers(1, 13),  # length of the window
    st.integers(0, END),
    st.integers(0, END),
)


@settings(max_examples=400, deadline=None)
@given(
    start=st.integers(0, 40),
    delay=st.integers(0, 12),
    now=st.integers(0, 60),
    steps=st.lists(STEP, max_size=12),
)
def test_nothing_is_lost_and_nothing_is_covered_before_it_closed(
    start: int, delay: int, now: int, steps: list[tuple[int, str, int, int, int]]
) -> None:
    """Any runs, with any lengths of windows, manual ranges, open ends and cuts; brute force over instants."""
    world = Oracle(start, delay)
    for passed, kind, length, one, two in steps:
        now = min(now + passed, END)
        stretches = due(
            now * MICRO,
            start=start * MICRO,
            window=length * MICRO,
            delay=delay * MICRO,
            covered=world.recorded,
        )
        # Due is exactly: from the start, before the last closed edge, not recorded.
        edge = (now - delay) // length * length
        assert {i for s in stretches for i in range(s.start // MICRO, s.end // MICRO)} == {
            i for i in range(start, max(edge, start)) if i not in world.recorded_instants
        }
        assert all(a.end < b.start for a, b in itertools.pairwise(stretches))
        if kind == "due":
            for stretch in stretches:
                world.run(stretch, now)
        elif kind == "first due" and stretches:
            world.run(stretches[0], now)
        elif kind == "cut" and stretches:
            part = cut(stretches[0], one * MICRO, length * MICRO)
            assert not part.empty
            assert part.start == stretches[0].start
            assert part.end == stretches[0].end or part.end % (length * MICRO) == 0
            world.run(part, now)
        elif kind == "until":
            for stretch in until(one * MICRO, start=start * MICRO, covered=world.recorded):
                world.run(stretch, now)
        elif kind == "manual" and one != two:
            world.run(Window(min(one, two) * MICRO, max(one, two) * MICRO), now)
        assert world.recorded_instants <= world.read_closed
        assert world.recorded_instants <= set(range(max(now - delay, 0)))

    # However it went: what is due now, once read, leaves no whole closed window unread, and nothing due.
    length = random.Random(now).randint(1, 13)
    arguments = {"start": start * MICRO, "window": length * MICRO, "delay": delay * MICRO}
    for stretch in due(now * MICRO, covered=world.recorded, **arguments):
        world.run(stretch, now)
    assert due(now * MICRO, covered=world.recorded, **arguments) == []
    edge = (now - delay) // length * length
    assert set(range(start, max(edge, start))) <= world.read_closed
    assert covered_until(start * MICRO, world.recorded) // MICRO >= max(edge, start)


@settings(max_examples=300, deadline=None)
@given(
    stretches=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=5),
    length=st.integers(1, 13),
)
def test_counting_windows_equals_enumerating_them(stretches: list[tuple[int, int]], length: int) -> None:
    """The arithmetic against a list of all windows."""
    spans = [Window(min(pair), max(pair)) for pair in stretches]
    touched = {i // length for s in spans for i in range(s.start, s.end)}

    assert windows_in(spans, length) == len(touched)
