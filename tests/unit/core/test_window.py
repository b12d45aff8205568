"""Instants in 100 ns and half-open windows: literal vectors, and sets of instants as the oracle."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_etl.core.timerange import (
    Window,
    ceil_to_grid,
    floor_to_grid,
    format_instant,
    from_datetime,
    parse_instant,
    subtract,
    to_datetime,
    union,
)

# 2022-11-25T08:44:13Z is 1 669 365 853 seconds after 1970 (GNU date).
SECOND = 1_669_365_853


@pytest.mark.parametrize(
    ("fraction", "ticks"),
    [
        ("", 0),
        (".0", 0),
        (".1", 1_000_000),
        (".02", 200_000),
        (".024", 240_000),
        (".0243", 243_000),
        (".02434", 243_400),
        (".024347", 243_470),
        (".0243475", 243_475),
        (".0000001", 1),
        (".9999999", 9_999_999),
        (".0243475000", 243_475),
    ],
)
@pytest.mark.parametrize("zone", ["+00:00", "Z", "z", "-00:00", "+0000"])
def test_an_instant_keeps_all_seven_digits(fraction: str, ticks: int, zone: str) -> None:
    """The service writes 0 to 7 of them, and `+00:00`."""
    assert parse_instant(f"2022-11-25T08:44:13{fraction}{zone}") == SECOND * 10_000_000 + ticks


@pytest.mark.parametrize(
    ("text", "ticks"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T05:45:00+05:45", 0),
        ("1969-12-31T16:00:00-08:00", 0),
        ("1969-12-31 16:00:00-0800", 0),
        (" 1970-01-01t00:00:01z ", 10_000_000),
        ("1969-12-31T23:59:59.9999999Z", -1),
        ("0001-01-01T00:00:00Z", -621_355_968_000_000_000),
        ("9999-12-31T23:59:59.9999999Z", 2_534_023_007_999_999_999),
        ("2024-02-29T00:00:00Z", 17_091_648_000_000_000),
    ],
)
def test_any_offset_is_taken_into_account(text: str, ticks: int) -> None:
    """Literal ticks; the ends of the calendar are those of .NET's DateTime."""
    assert parse_instant(text) == ticks


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2022-11-25",
        "2022-11-25T08:44:13",
        "2022-11-25T08:44Z",
        "2022-11-25T08:44:13.Z",
        "2022-11-25T08:44:13.12345678Z",
        "2022-11-25T08:44:13+1",
        "2022-11-25T08:44:13+24:00",
        "2022-11-25T08:44:13+01:60",
        "2022-11-25T08:44:13+101:00",
        "2022-13-25T08:44:13Z",
        "2023-02-29T08:44:13Z",
        "2022-11-25T24:00:00Z",
        "2022-11-25T08:44:60Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "\uff12\uff10\uff12\uff12-11-25T08:44:13Z",
        "2022-11-25T08:44:13Zx",
        "Fri, 25 Nov 2022 08:44:13 GMT",
    ],
)
def test_what_is_no_instant_is_refused_and_not_guessed(text: str) -> None:
    """Above all a time without a zone."""
    with pytest.raises(ValueError, match=r"^expected RFC 3339 with a zone, such as 2026-01-31T08:00:00Z$"):
        parse_instant(text)


@pytest.mark.parametrize(
    ("ticks", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1, "1970-01-01T00:00:00.0000001Z"),
        (-1, "1969-12-31T23:59:59.9999999Z"),
        (5_000_000, "1970-01-01T00:00:00.5Z"),
        (SECOND * 10_000_000 + 243_470, "2022-11-25T08:44:13.024347Z"),
        (-621_355_968_000_000_000, "0001-01-01T00:00:00Z"),
        (2_534_023_007_999_999_999, "9999-12-31T23:59:59.9999999Z"),
    ],
)
def test_an_instant_is_written_with_z_and_as_many_digits_as_count(ticks: int, text: str) -> None:
    """A plus sign would become a blank in a query; years have four digits."""
    assert format_instant(ticks) == text


@given(st.integers(-621_355_968_000_000_000, 2_534_023_007_999_999_999))
def test_what_is_written_is_read_back(ticks: int) -> None:
    """Every tick between the years 1 and 9999."""
    assert parse_instant(format_instant(ticks)) == ticks


@given(
    st.datetimes(
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45)), timezone(-timedelta(hours=8))])
    )
)
def test_an_instant_agrees_with_datetime(moment: datetime) -> None:
    """Python's own parser as the oracle, at its six digits."""
    try:
        expected = moment.astimezone(UTC)
    except OverflowError:
        return
    ticks = parse_instant(moment.isoformat())

    assert ticks == from_datetime(moment)
    assert to_datetime(ticks) == expected


@pytest.mark.parametrize(
    ("ticks", "moment"),
    [
        (9, datetime(1970, 1, 1, tzinfo=UTC)),
        (10, datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)),
        (-1, datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)),
        (SECOND * 10_000_000 + 243_479, datetime(2022, 11, 25, 8, 44, 13, 24347, tzinfo=UTC)),
    ],
)
def test_100_ns_are_cut_to_microseconds_and_never_rounded(ticks: int, moment: datetime) -> None:
    """Downwards, before 1970 too."""
    assert to_datetime(ticks) == moment
    assert to_datetime(ticks).utcoffset() == timedelta(0)
    assert from_datetime(moment) == floor_to_grid(ticks, 10)


def test_a_naive_datetime_is_a_bug() -> None:
    """It has no instant."""
    with pytest.raises(ValueError, match="naive"):
        from_datetime(datetime(2026, 3, 29))  # noqa: DTZ001 - the bug itself


def test_a_window_is_half_open_and_may_be_empty() -> None:
    """It says so when it is written."""
    window = Window(0, 36_000_000_000)

    assert not window.empty
    assert Window(5, 5).empty
    assert str(window) == "[1970-01-01T00:00:00Z, 1970-01-01T01:00:00Z)"
    with pytest.raises(ValueError, match="ends before it starts"):
        Window(6, 5)


@pytest.mark.parametrize(
    ("windows", "joined"),
    [
        ([], []),
        ([(3, 3)], []),
        ([(5, 7), (0, 3)], [(0, 3), (5, 7)]),
        ([(0, 3), (3, 5)], [(0, 5)]),
        ([(0, 9), (2, 3), (4, 5)], [(0, 9)]),
        ([(2, 6), (0, 3), (6, 6), (8, 9)], [(0, 6), (8, 9)]),
    ],
)
def test_a_union_joins_what_overlaps_or_touches(windows: list[tuple[int, int]], joined: list[tuple[int, int]]) -> None:
    """Empty ones vanish."""
    assert union(Window(*w) for w in windows) == [Window(*w) for w in joined]


@pytest.mark.parametrize(
    ("covered", "left"),
    [
        ([], [(10, 20)]),
        ([(0, 10)], [(10, 20)]),
        ([(20, 30)], [(10, 20)]),
        ([(0, 30)], []),
        ([(10, 20)], []),
        ([(0, 12), (18, 40)], [(12, 18)]),
        ([(12, 14), (13, 16)], [(10, 12), (16, 20)]),
        ([(15, 15)], [(10, 20)]),
    ],
)
def test_a_difference_is_what_nothing_covers(covered: list[tuple[int, int]], left: list[tuple[int, int]]) -> None:
    """Of [10, 20)."""
    assert subtract(Window(10, 20), [Window(*w) for w in covered]) == [Window(*w) for w in left]


SPANS = st.lists(
    st.tuples(st.integers(-20, 40), st.integers(-20, 40)).map(lambda pair: Window(min(pair), max(pair))),
    max_size=6,
)


def instants(windows: list[Window]) -> set[int]:
    return {i for w in windows for i in range(w.start, w.end)}


def in_order(windows: list[Window]) -> bool:
    """Disjoint, not even touching, none empty."""
    edges = [edge for w in windows for edge in (w.start, w.end)]
    return edges == sorted(set(edges))


@settings(max_examples=500)
@given(SPANS)
def test_a_union_holds_the_same_instants(windows: list[Window]) -> None:
    """Against sets."""
    joined = union(windows)

    assert instants(joined) == instants(windows)
    assert in_order(joined)


@settings(max_examples=500)
@given(st.integers(-20, 40), st.integers(0, 40), SPANS)
def test_a_difference_holds_the_instants_that_are_left(start: int, length: int, covered: list[Window]) -> None:
    """Against sets."""
    whole = Window(start, start + length)

    left = subtract(whole, covered)

    assert instants(left) == instants([whole]) - instants(covered)
    assert in_order(left)


@pytest.mark.parametrize(
    ("ticks", "floor", "ceiling"), [(0, 0, 0), (1, 0, 7), (6, 0, 7), (7, 7, 7), (-1, -7, 0), (-7, -7, -7)]
)
def test_the_grid_goes_through_1970(ticks: int, floor: int, ceiling: int) -> None:
    """Also before it; steps of 7."""
    assert (floor_to_grid(ticks, 7), ceil_to_grid(ticks, 7)) == (floor, ceiling)
