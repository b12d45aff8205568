"""Which rows are found late, and what that costs: real syncs without the MERGEs, so that `change` tells.

design/architecture.md: Late rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from dicom_emulator.testing.faults import Fault
from dicom_etl.commands.sync import planned
from dicom_etl.commands.sync_request import request
from dicom_etl.core.errors import StorageError
from dicom_etl.run import late_rows, pipeline
from support.landing_only import landed, landing_only, served
from support.late import FEED, LATE, LateFeed
from support.site import HOUR, MINUTE, SECOND, at, text_at, ticks_at

Case = Callable[[LateFeed], tuple[int, int]]


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[LateFeed]:
    """An empty lake whose runs land and do not merge."""
    with landing_only(tmp_path) as site:
        yield LateFeed(site)


@pytest.fixture
def read(feed: LateFeed) -> LateFeed:
    """Three rows were read at 12:15: numbers 1, 2, 3, and nothing is due before 13:15."""
    feed.create_three()
    assert feed.sync(12.25).entries_read == 3
    # The clock, and the window.
    assert feed.asked() == (1, 1)
    return feed


@pytest.mark.parametrize("case", LATE)
def test_a_late_row_is_found_by_the_next_run(read: LateFeed, case: Case) -> None:
    """Wherever its number lies and however near its time is to that of a row that was read; and once."""
    late, others = case(read)

    run = read.sync(13.25)

    assert (run.window_start, run.window_end) == (ticks_at(12), ticks_at(13))
    assert run.entries_read == 1 + others
    assert read.runs_of(late) == [run.run_id]
    assert landed(read.site) == served(read.site, 13)
    read.sync(14.25)
    assert landed(read.site) == served(read.site, 14)
    assert read.runs_of(late) == [run.run_id]


@pytest.mark.parametrize("case", LATE)
def test_without_a_second_look_each_of_them_is_lost(read: LateFeed, case: Case) -> None:
    """The broken variant, which `feed.look_back = "0s"` asks for: what is never read is the late row."""
    read = LateFeed(read.site.having("feed.look_back=0s"))
    late, _ = case(read)

    for hour in (13.25, 14.25, 24.25):
        read.sync(hour)

    assert served(read.site, 24) - landed(read.site) == {late}


@pytest.mark.parametrize("status", [500, 403, 404])
def test_a_feed_of_version_1_that_fails_plays_no_role(read: LateFeed, status: int) -> None:
    """It is never asked."""
    fault = read.service.faults.add(Fault(status=status, path="/v1/.*"))
    late = read.create(11.9, "2.1.1")

    assert read.sync(13.25).entries_read == 1
    assert read.runs_of(late) == [2]
    assert fault.hits == 0
    assert {one.path for one in read.service.requests.all()} == {FEED}


@pytest.mark.parametrize("rows", [[2], []], ids=["before the lowest known", "before any is known"])
def test_the_first_row_of_a_feed_may_be_late(feed: LateFeed, rows: list[int]) -> None:
    """There is no neighbour below it."""
    for sequence in rows:
        feed.create(11.5, "1.1.2", sequence=sequence)
    assert feed.sync(12.25).entries_read == len(rows)
    feed.create(11.4, "1.1.1", sequence=1)

    assert feed.sync(13.25).entries_read == 1
    assert landed(feed.site) == {1, *rows}


def test_rows_of_a_time_that_nothing_covers_are_left_alone(feed: LateFeed) -> None:
    """Before feed.start, and in windows to come: those that came late like the others."""
    feed = LateFeed(feed.site.having(f"feed.start={text_at(11)}"))
    feed.create_three()
    assert feed.sync(12.25).entries_read == 3
    feed.create(10.9, "9.1.1")
    late = feed.create(11.1, "2.1.1")
    coming = [feed.create(13.05, f"1.1.{n}") for n in (5, 6)]

    assert feed.sync(13.25).entries_read == 1
    assert landed(feed.site) == {1, 2, 3, late}
    assert feed.sync(14.25).entries_read == 2
    assert landed(feed.site) == {1, 2, 3, late, *coming}


@pytest.mark.parametrize(
    ("look_back", "hours_late", "found"),
    [
        ("3h", 3.9, 37.25),
        ("3h", 4.1, 48.25),
        ("3h", 23.9, 48.25),
        ("3h", 38.0, None),
        ("5h", 5.9, 37.25),
        ("2d", 38.0, 37.25),
    ],
)
def test_what_is_later_than_the_look_back_is_found_once_a_day(
    feed: LateFeed, look_back: str, hours_late: float, found: float | None
) -> None:
    """By the run that passes midnight, from a day before the last midnight on."""
    feed = LateFeed(feed.site.having(f"feed.start={text_at(-12)}", f"feed.look_back={look_back}"))
    # Read on time, by runs of four hours; a row that is so late appears before 13:00 of the second day.
    for hour in range(4, 37, 4):
        feed.sync(hour + 0.25)
    late = feed.create(37 - hours_late, "2.1.1")
    hours = {feed.sync(hour).run_id: hour for hour in (37.25, 38.25, 48.25, 49.25)}

    assert [hours[run_id] for run_id in feed.runs_of(late)] == ([] if found is None else [found])


def test_a_quiet_hour_costs_four_requests(read: LateFeed) -> None:
    """The clock, whether the feed has gone back, the window, and the three hours before."""
    for hour in range(13, 24):
        read.sync(hour + 0.25)
        assert read.asked() == (1, 3)


def test_the_daily_look_costs_a_request_for_two_hundred_entries(feed: LateFeed) -> None:
    """Of 1 600 entries in two days: eight pages without metadata, some for each connection, and nothing is new."""
    feed = LateFeed(feed.site.having("dicom.connections=2"))
    for number in range(1600):
        feed.create_at(ticks_at(0) + number * 108 * SECOND)
    for hour in range(8, 48, 8):
        feed.sync(hour + 0.25)
    assert landed(feed.site) == served(feed.site, 40)
    assert sum(feed.asked()) <= 12

    assert feed.sync(48.25).entries_read == len(feed.site.feed(40, 48)) == 266

    with_metadata, without = feed.asked()
    assert 2 <= with_metadata <= 6
    assert 2 + 1334 / 200 <= without <= 2 + 1334 / 200 * 1.1 + 2 * 2
    assert len(feed.site.rows("change")) == 1600


def test_memory_is_bounded_by_the_entries_of_a_run(read: LateFeed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second look goes in pieces of as many entries as a run may read, at the edges of windows."""
    pieces: list[tuple[float, int]] = []

    def listed(*given: Any, real: Any = late_rows._listed) -> Any:
        piece, found = real(*given)
        pieces.append(((piece.end - ticks_at(0)) / HOUR, len(found)))
        return piece, found

    monkeypatch.setattr(late_rows, "_listed", listed)
    site = read.site.having("feed.window=15m", "feed.max_entries_per_run=100", "feed.batch_size=10")
    for number in range(300):
        read.create_at(ticks_at(10) + number * 20 * SECOND)
    late = served(site, 12) - landed(site)
    assert len(late) == 300
    read.service.clock.freeze(at(13.25))

    runs = site.sync(now=at(13.25))

    assert runs[0].entries_read == 300
    assert [end for end, _ in pieces] == [10.5, 11.0, 11.5, 12.0]
    assert max(found for _, found in pieces) <= 100
    assert sum(found for _, found in pieces) == 303
    assert landed(site) == served(site, 13)


def test_a_late_bulk_of_many_instants_is_read_in_bounds(read: LateFeed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond so many instants the near ones are read as one, and what lies between is not landed again."""
    monkeypatch.setattr(late_rows, "MOST_INSTANTS", 5)
    late = [read.create_at(ticks_at(11) + n * MINUTE) for n in range(1, 50)]

    assert read.sync(13.25).entries_read == 49
    assert read.asked() == (1 + 5, 3)
    assert [read.runs_of(number) for number in late] == [[2]] * 49
    assert [read.runs_of(number) for number in (1, 2, 3)] == [[1]] * 3


def test_the_last_day_before_an_outage_is_looked_at_by_the_first_run_after_it(read: LateFeed) -> None:
    """The row came after the last run on Friday; on Monday it is found, though three days old, and looked for once."""
    read = LateFeed(read.site.having("feed.max_entries_per_run=1"))
    late = read.create(11.9, "2.1.1")
    for day in (1, 2, 3):
        read.create(24 * day + 6, f"1.1.{day + 3}")

    runs = read.syncs(84.25)

    assert [run.entries_read for run in runs] == [1 + 1, 1, 1]
    assert read.runs_of(late) == [runs[0].run_id]
    assert landed(read.site) == served(read.site, 84)


def test_a_run_that_was_read_ahead_does_not_land_a_late_row_again(read: LateFeed) -> None:
    """Its reading began before the run that found the row had ended; its second look comes after."""
    read = LateFeed(read.site.having("feed.max_entries_per_run=1"))
    late = [read.create(11.9, "2.1.1"), read.create(11.9, "2.1.2")]
    for hour in (12, 13, 14):
        read.create(hour + 0.5, f"1.1.{hour}")

    runs = read.syncs(15.25)

    assert [run.entries_read for run in runs] == [1 + 2, 1, 1]
    assert [read.runs_of(number) for number in late] == [[2], [2]]
    assert sum(run.repeated for run in runs) == 0


def _fail(*_: object) -> None:
    raise StorageError("instance: the disk is full")


def test_a_run_that_found_a_late_row_and_died_leaves_it_missing(
    read: LateFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands in `change`, no table has it, its window is covered: only what succeeded runs read is known."""
    late = read.create(11.9, "2.1.1")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "merge_landed", _fail)
        with pytest.raises(StorageError, match="disk is full"):
            read.sync(13.25)
    assert read.runs_of(late) == [2]

    assert read.sync(14.25).entries_read == 1
    assert read.runs_of(late) == [2, 3]
    assert read.sync(15.25).entries_read == 0


@pytest.mark.parametrize(
    ("rule", "broken", "landings"),
    [
        ("reading_runs", list, [2]),
        ("landed_sequences", lambda *_: set(), [2, 3, 4]),
    ],
    ids=["what a dead run landed is known", "nothing is known"],
)
def test_what_is_known_is_what_succeeded_runs_landed(
    read: LateFeed, monkeypatch: pytest.MonkeyPatch, rule: str, broken: Any, landings: list[int]
) -> None:
    """Broken, the row of the test before is lost, or landed in each run."""
    late = read.create(11.9, "2.1.1")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "merge_landed", _fail)
        with pytest.raises(StorageError, match="disk is full"):
            read.sync(13.25)
    monkeypatch.setattr(late_rows, rule, broken)
    for hour in (14.25, 15.25):
        read.sync(hour)
    assert read.runs_of(late) == landings


def test_a_late_row_without_metadata_keeps_its_neighbours(read: LateFeed) -> None:
    """Of two that came late in one tie one is bad: it is landed with a reason, the other whole."""
    bad, good = read.create(11.9, "2.1.1"), read.create(11.9, "2.1.2")
    read.service.faults.add(Fault(sequences=(bad,)))

    assert read.sync(13.25).entries_read == 2
    rows = {row["sequence"]: row for row in read.site.rows("change")}
    assert {number: rows[number]["modality"] for number in (bad, good)} == {bad: None, good: "CT"}


def test_manual_ranges_find_what_lies_before_their_end(read: LateFeed) -> None:
    """The rest is left to the next due run."""
    read.create(11.4, "2.1.1")
    read.create(10.4, "2.1.2")
    read.create(11.9, "2.1.3")
    read.service.clock.freeze(at(12.5))

    (manual,) = read.site.sync(text_at(11), text_at(11.5), now=at(12.5))

    assert manual.entries_read == 3
    assert read.sync(13.25).entries_read == 1
    assert Counter(row["runId"] for row in read.site.rows("change")) == {1: 3, 2: 3, 3: 1}


def test_catching_up_and_dry_runs_ask_nothing(read: LateFeed) -> None:
    """Windows of long ago were over long before they are read; --dry-run only says what is due."""
    read.create(11.9, "2.1.1")
    read.service.requests.clear()
    read.service.clock.freeze(at(60.25))
    assert planned(read.site.settings, request(None, None, None, None), clock=lambda: at(60.25))
    assert read.asked() == (0, 1)

    read = LateFeed(read.site.having(f"feed.start={text_at(-1000)}", "feed.max_entries_per_run=1"))
    for day in range(1, 5):
        read.create(-24 * day, f"3.1.{day}")
    runs = read.syncs(12.5)
    assert [run.entries_read for run in runs] == [1, 1, 1, 1]
    assert read.asked()[1] == 2
    assert landed(read.site) == {1, 2, 3, 5, 6, 7, 8}


@pytest.mark.parametrize("seed", range(3))
def test_every_row_is_read_in_the_end(feed: LateFeed, seed: int) -> None:
    """Random rows, up to a day late, some runs left out: none is missed, and each is landed once.

    Those that are three hours late, or less, by the first run after they are visible.
    """
    random = Random(seed)
    visible: list[tuple[int, int]] = []
    for _ in range(random.randrange(20, 40)):
        ticks = ticks_at(8) + random.randrange(8 * HOUR)
        late = random.choice(
            [0, 0, random.randrange(15 * MINUTE), random.randrange(3 * HOUR), random.randrange(24 * HOUR)]
        )
        visible.append((ticks + late, ticks))
    hours = [8.25 + n for n in range(1, 32) if random.random() < 0.7] + [48.25]
    waiting = sorted(visible)
    for hour in hours:
        soon: set[int] = set()
        while waiting and waiting[0][0] <= ticks_at(hour):
            when, ticks = waiting.pop(0)
            number = feed.create_at(ticks)
            if when - ticks <= 3 * HOUR and ticks < ticks_at(hour - 0.25):
                soon.add(number)
        feed.sync(hour)
        assert soon <= landed(feed.site)

    assert waiting == []
    assert len(served(feed.site, 48)) == len(visible)
    assert landed(feed.site) == served(feed.site, 48)
    assert len(feed.site.rows("change")) == len(visible)
