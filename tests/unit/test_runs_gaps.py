"""Which missing numbers are asked for: all young gaps, near ones together, within a bound, each in its turn."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_etl.runs import gaps
from dicom_etl.runs.gaps import MOST_INNER, MOST_NEAR, SPAN, Numbers, above, contains, missing, probes, young_since
from dicom_etl.window import Window, parse_instant

HOUR = 36_000_000_000
NOON = parse_instant("2026-03-29T12:00:00Z")


def known(*rows: tuple[int, int]) -> pa.Table:
    """Rows of (sequence, ticks)."""
    return pa.table(
        {
            "sequence": pa.array([sequence for sequence, _ in rows], pa.int64()),
            "timestampTicks": pa.array([ticks for _, ticks in rows], pa.int64()),
        }
    )


def numbers_in(ranges: list[Numbers]) -> set[int]:
    return {number for r in ranges for number in range(r.first, r.last + 1)}


@pytest.mark.parametrize(
    ("covered", "expected"),
    [
        ([], NOON - 24 * HOUR),
        ([Window(0, NOON - HOUR)], NOON - 25 * HOUR),
        ([Window(0, 5 * HOUR), Window(6 * HOUR, NOON - 60 * HOUR)], NOON - 84 * HOUR),
        ([Window(0, NOON + HOUR)], NOON - 24 * HOUR),
    ],
    ids=["a new lake", "an hour ago", "after a weekend without runs", "never after now"],
)
def test_gaps_are_young_for_a_day_before_the_end_of_what_is_covered(covered: list[Window], expected: int) -> None:
    """So that the gaps that were young when the last run ended get a probe of the next one, whenever it comes."""
    assert young_since(covered, NOON) == expected


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], []),
        ([(1, 50)], []),
        ([(1, 50), (2, 60), (3, 55)], []),
        ([(1, 50), (4, 60)], [(2, 3)]),
        ([(4, 60), (1, 50), (2, 51), (4, 60), (9, 70)], [(3, 3), (5, 8)]),
        ([(1, 5), (4, 10)], []),
        ([(1, 5), (4, 11)], [(2, 3)]),
        ([(1, 50), (4, 5), (6, 50)], [(5, 5)]),
        ([(3, 50), (4, 60)], [(1, 2)]),
        ([(3, 5), (4, 60)], []),
        ([(5000, 50)], [(4900, 4999)]),
    ],
    ids=[
        "nothing known",
        "the first number",
        "no gap, times crossed",
        "a gap",
        "in any order, twice",
        "as old as the bound",
        "just younger",
        "young by its upper neighbour",
        "below the lowest of all",
        "below an old one",
        "a feed that was not read from its beginning",
    ],
)
def test_what_is_missing(rows: list[tuple[int, int]], expected: list[tuple[int, int]]) -> None:
    """Gaps between known numbers, by the time of the upper neighbour; a bound of 10 ticks."""
    assert missing(known(*rows), 10) == [Numbers(*pair) for pair in expected]


@given(st.dictionaries(st.integers(1, 400), st.integers(0, 100), min_size=1), st.integers(0, 100))
def test_missing_are_exactly_the_numbers_below_a_young_neighbour(rows: dict[int, int], since: int) -> None:
    """Against a look at each number by itself."""
    lowest, highest = min(rows), max(rows)
    expected = set()
    for number in range(max(1, lowest - SPAN), highest):
        neighbour = min(n for n in rows if n > number)
        if number not in rows and rows[neighbour] > since:
            expected.add(number)

    found = missing(known(*rows.items()), since)

    assert numbers_in(found) == expected
    assert sum(gap.last - gap.first + 1 for gap in found) == len(expected)
    assert all(contains(found, n) == (n in expected) for n in range(highest + 2))


@pytest.mark.parametrize(
    ("highest", "latest", "expected"),
    [
        (10, 10, []),
        (10, 9, []),
        (10, 11, [(11, 11), (11, 11)]),
        (10, 250, [(11, 250), (151, 250)]),
        (10, 9000, [(11, 310), (8901, 9000)]),
        (None, 9000, [(8901, 9000)]),
        (None, 7, [(1, 7)]),
    ],
)
def test_above_the_highest(highest: int | None, latest: int, expected: list[tuple[int, int]]) -> None:
    """The next few hundred numbers and the last hundred, however many windows to come lie between."""
    found = above(highest, latest)

    assert found == [Numbers(*pair) for pair in expected]
    assert all(contains(found, number) for number in numbers_in(found))
    assert not contains(found, (highest or 0)) or highest is None


def test_near_gaps_share_a_request() -> None:
    """Numbers that lie in one hundred are one range, from the first missing to the last; highest first."""
    found = probes([Numbers(3, 3), Numbers(50, 60), Numbers(99, 102), Numbers(250, 250)], turn=0)

    assert found == [Numbers(250, 250), Numbers(101, 102), Numbers(3, 100)]


spread = st.lists(st.tuples(st.integers(1, 30_000), st.integers(0, 1500)), max_size=60)


@settings(max_examples=300)
@given(spread, st.integers(0, 10**6))
def test_probes_are_ranges_of_missing_numbers_within_the_bound(pairs: list[tuple[int, int]], turn: int) -> None:
    """At most 100 numbers each, none twice, none that is not between missing ones; all of them when they are few."""
    wanted: list[Numbers] = []
    for first, more in sorted(pairs):
        if not wanted or first > wanted[-1].last + 1:
            wanted.append(Numbers(first, first + more))

    found = probes(wanted, turn)

    asked = [number for r in found for number in range(r.first, r.last + 1)]
    assert len(asked) == len(set(asked))
    assert all(r.last - r.first < SPAN for r in found)
    assert len(found) <= MOST_NEAR + MOST_INNER
    assert {r.first for r in found} | {r.last for r in found} <= numbers_in(wanted)
    if sum(2 + (gap.last - gap.first) // SPAN for gap in wanted) <= MOST_INNER:
        assert numbers_in(wanted) <= set(asked)


def test_many_gaps_each_have_their_turn_and_the_youngest_always() -> None:
    """A thousand hundreds with a gap each: a hundred requests a run; within a day of runs each was asked for."""
    wanted = [Numbers(100 * n + 7, 100 * n + 7) for n in range(1000)]
    asked = [probes(wanted, turn) for turn in range(24)]

    assert all(50 < len(one) <= MOST_NEAR for one in asked)
    assert all(set(wanted[-50:]) <= set(one) for one in asked)
    assert {r for one in asked for r in one} == set(wanted)


def test_turns_come_round_while_the_gaps_move_on() -> None:
    """Each run finds forty more gaps and forty have grown old: a gap that stays a day is still asked for."""
    asked_at: dict[Numbers, list[int]] = {}
    for turn in range(72):
        wanted = [Numbers(100 * n + 7, 100 * n + 7) for n in range(40 * turn, 40 * turn + 960)]
        for r in probes(wanted, turn):
            asked_at.setdefault(r, []).append(turn)

    settled = [Numbers(100 * n + 7, 100 * n + 7) for n in range(40 * 24, 40 * 48)]
    assert len(settled) == 960
    assert all(r in asked_at for r in settled)


def test_a_jump_of_the_identity_starves_nothing() -> None:
    """Ten thousand numbers lost at once: its two ends in each run, its inside in turns, other gaps always."""
    jump = Numbers(5_001, 15_000)
    small = [Numbers(100 * n + 7, 100 * n + 7) for n in range(160, 190)]
    runs = [probes([jump, *small], turn) for turn in range(5)]

    assert all(set(small) <= set(one) for one in runs)
    assert all({5_001, 5_200, 14_801, 15_000} <= numbers_in(one) for one in runs)
    assert [len(one) for one in runs] == [len(small) + 4 + MOST_INNER] * 5
    assert set(range(5_001, 15_001)) <= {number for one in runs for number in numbers_in(one)}


def test_a_stretch_that_was_never_read_costs_no_more() -> None:
    """Fifty million numbers between two known ones: nothing is enumerated."""
    found = probes([Numbers(1_000_001, 50_000_000)], turn=3)

    assert len(found) == 4 + MOST_INNER


def test_the_numbers_above_are_asked_for_with_the_gaps() -> None:
    """A late row that is the highest number of all, and one a thousand lost numbers farther up."""
    assert probes(above(10, 11), turn=0) == [Numbers(11, 11)]
    assert {11, 310, 1911, 2010} <= numbers_in(probes(above(10, 2010), turn=0))
    assert len(probes(above(10, 2010), turn=0)) <= 6


def test_all_that_is_above() -> None:
    """Where there is no v1 feed, every number above the highest known is new."""
    assert contains([gaps.above_all(10)], 11)
    assert not contains([gaps.above_all(10)], 10)
    assert contains([gaps.above_all(None)], 1)
