"""The service's clock and its timestamps: 100 ns ticks, 0 to 7 digits, frozen, stepped and shifted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_emulator.state.clock import Clock
from dicom_emulator.state.service import DicomService
from dicom_emulator.state.timestamps import MAX_TICKS, MIN_TICKS, http_date, parse_time, ticks_of, timestamp_text
from dicom_emulator.state.uids import instance_key

TEN = "2024-05-01T10:00:00Z"
TEN_TICKS = 17145576000000000


@pytest.mark.parametrize(
    ("ticks", "text"),
    [
        (0, "1970-01-01T00:00:00+00:00"),
        (1, "1970-01-01T00:00:00.0000001+00:00"),
        (-1, "1969-12-31T23:59:59.9999999+00:00"),
        (TEN_TICKS, "2024-05-01T10:00:00+00:00"),
        (TEN_TICKS + 5_000_000, "2024-05-01T10:00:00.5+00:00"),
        (TEN_TICKS + 120_000, "2024-05-01T10:00:00.012+00:00"),
        (TEN_TICKS + 243470, "2024-05-01T10:00:00.024347+00:00"),
        (TEN_TICKS + 3524895, "2024-05-01T10:00:00.3524895+00:00"),
        (MIN_TICKS, "0001-01-01T00:00:00+00:00"),
        (MAX_TICKS, "9999-12-31T23:59:59.9999999+00:00"),
    ],
)
def test_ticks_are_written_with_the_digits_they_need(ticks, text):
    """0 to 7 fraction digits, trailing zeros trimmed, no dot on whole seconds, always +00:00."""
    assert timestamp_text(ticks) == text
    assert parse_time(text) == ticks


@given(st.integers(MIN_TICKS, MAX_TICKS))
def test_every_instant_survives_its_text(ticks):
    """Writing and reading an instant loses nothing, whatever its seventh digit."""
    assert parse_time(timestamp_text(ticks)) == ticks


def test_zones_are_turned_into_utc():
    """An offset is subtracted, hours alone too."""
    assert parse_time("2024-05-01T12:00:00+02:00") == TEN_TICKS
    assert parse_time("2024-05-01T05:30:00-4:30") == TEN_TICKS
    assert parse_time("2024-05-01T03:00:00-07") == TEN_TICKS
    assert parse_time("Wed, 01 May 2024 10:00:00 GMT") == TEN_TICKS


def test_an_aware_datetime_is_taken_and_a_naive_one_is_not():
    """Ticks of a datetime need its zone."""
    assert ticks_of(datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=2)))) == TEN_TICKS
    with pytest.raises(ValueError, match="zone"):
        ticks_of(datetime(2024, 5, 1, 12))  # noqa: DTZ001


def test_a_frozen_clock_steps_once_an_event():
    """Each event moves a frozen clock by its step; asking for the time does not."""
    clock = Clock()
    clock.freeze(TEN, step=3)
    assert clock.now_ticks() == clock.now_ticks() == TEN_TICKS
    assert [clock.event_ticks() for _ in range(3)] == [TEN_TICKS, TEN_TICKS + 3, TEN_TICKS + 6]
    assert clock.now_ticks() == TEN_TICKS + 9


def test_a_running_clock_is_shifted():
    """The machine's time plus an offset; advance shifts further, back too."""
    clock = Clock(lambda: 1_000)
    assert clock.now_ticks() == 10
    clock.run(offset=5)
    assert clock.event_ticks() == 15
    clock.advance(-7)
    assert clock.now_ticks() == 8


@pytest.mark.parametrize(
    ("digits", "fraction"),
    [(7, ".1234567"), (6, ".123456"), (3, ".123"), (1, ".1"), (0, "")],
)
def test_the_digits_of_timestamps_can_be_set(digits, fraction):
    """Timestamps are cut, not rounded, to the wanted number of digits."""
    clock = Clock()
    clock.freeze("2024-05-01T10:00:00.1234567Z")
    clock.set_digits(digits)
    assert timestamp_text(clock.event_ticks()) == f"2024-05-01T10:00:00{fraction}+00:00"


def test_an_impossible_number_of_digits_is_refused():
    """A timestamp has at most seven fraction digits."""
    with pytest.raises(ValueError, match="0 to 7"):
        Clock().set_digits(8)


def test_events_take_the_clocks_time():
    """Two events at a stopped clock tie; sequence tells them apart."""
    service = DicomService()
    service.clock.freeze(TEN)
    rows = [service.create(instance_key("1", "2", f"3.{number}"), b"{}") for number in range(2)]
    assert [(row.ticks, row.sequence) for row in rows] == [(TEN_TICKS, 1), (TEN_TICKS, 2)]


def test_the_date_header_follows_the_services_clock(make_emulator):
    """Every answer, a refusal too, is dated by the service's own clock."""
    emulator, api = make_emulator()
    emulator.service.clock.freeze("2031-02-03T04:05:06.9Z")
    answers = [api.feed(), api.feed(limit=0), api.get("/studies/1.2")]
    assert [answer.status_code for answer in answers] == [200, 400, 404]
    dates = {parsedate_to_datetime(answer.headers["date"]) for answer in answers}
    assert dates == {datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)}
    assert http_date(TEN_TICKS) == "Wed, 01 May 2024 10:00:00 GMT"


def test_the_clock_is_set_over_http(make_emulator, dicom):
    """PUT /_emulator/clock freezes, steps and cuts digits for the events that follow."""
    _, api = make_emulator()
    wanted = {"freeze": "2024-05-01T10:00:00.1234567Z", "step": 10_000_000, "digits": 2}
    answer = api.http.put(f"{api.root}/_emulator/clock", json=wanted)
    assert answer.status_code == 200
    assert answer.json()["mode"] == "frozen"
    study = dicom().study
    for _ in range(2):
        assert api.store(dicom(study=study)).status_code == 200
    assert [row["timestamp"] for row in api.rows(study)] == [
        "2024-05-01T10:00:00.12+00:00", "2024-05-01T10:00:01.12+00:00",
    ]  # fmt: skip
    assert api.http.put(f"{api.root}/_emulator/clock", json={"freeze": "noon"}).status_code == 400
