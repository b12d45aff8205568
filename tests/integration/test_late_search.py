"""Which rows are found late, and what that costs: real syncs without the MERGEs, so that `change` tells (§5.10)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from dicom_etl import one_run
from dicom_etl.emulator import EmulatorOptions, serve_in_thread
from dicom_etl.emulator.faults import Fault
from dicom_etl.errors import StorageError
from dicom_etl.lake.session import Engine
from dicom_etl.lake.tables import Merged
from dicom_etl.merging import Outcome
from dicom_etl.request import request
from dicom_etl.sync import planned
from support.late import LATE, LateFeed
from support.site import HOUR, MINUTE, Site, at, text_at, ticks_at

NOT_V1 = {
    "404": Fault(status=404, path="/v1/.*"),
    "400": Fault(status=400, path="/v1/.*", body='{"error":{"code":"UnsupportedApiVersion"}}'),
}
Case = Callable[[LateFeed], tuple[int, int]]


@pytest.fixture
def feed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LateFeed]:
    """An empty lake whose runs land and do not merge."""
    merged = Outcome(Merged(0, 0, 0, None), 0, 0, frozenset(), 0.0, 0.0)
    monkeypatch.setattr(Engine, "session", lambda *_: None)
    monkeypatch.setattr(Engine, "begin", lambda *_: None)
    monkeypatch.setattr(one_run, "make_shared_tables", lambda *_: None)
    monkeypatch.setattr(one_run, "merge_landed", lambda *_: merged)
    with ExitStack() as stack:
        emulator = stack.enter_context(serve_in_thread(EmulatorOptions()))
        yield LateFeed(Site(emulator, tmp_path, (), None))


@pytest.fixture
def read(feed: LateFeed) -> LateFeed:
    """Three rows were read at 12:15: numbers 1, 2, 3, and nothing is due before 13:15."""
    feed.create_three()
    assert feed.sync(12.25).entries_read == 3
    assert feed.asked() == (1, 0)
    return feed


def landed(feed: LateFeed) -> list[int]:
    return sorted(row["sequence"] for row in feed.site.rows("change"))


def served(feed: LateFeed, end: float) -> list[int]:
    return sorted(row.sequence for row in feed.site.feed(0, end))


@pytest.mark.parametrize("case", LATE)
def test_a_late_row_is_found_by_the_next_run(read: LateFeed, case: Case) -> None:
    """Wherever its number lies: between others, above all, after lost ones, below a thousand of windows to come."""
    late, others = case(read)

    run = read.sync(13.25)

    assert (run.window_start, run.window_end) == (ticks_at(12), ticks_at(13))
    assert run.entries_read == 1 + others
    assert read.runs_of(late) == [run.run_id]
    assert landed(read) == served(read, 13)
    read.sync(14.25)
    assert landed(read) == served(read, 14)


@pytest.mark.parametrize("case", LATE)
def test_without_probing_each_of_them_is_lost(read: LateFeed, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken variant: what is never read is the late row."""
    monkeypatch.setattr(one_run, "find_late_rows", lambda *_, **__: 0)
    late, _ = case(read)

    for hour in (13.25, 14.25, 15.25):
        read.sync(hour)

    assert set(served(read, 15)) - set(landed(read)) == {late}


@pytest.mark.parametrize(("refusal", "case"), [*(("404", case) for case in LATE), ("400", LATE[0])])
def test_without_the_v1_feed_the_last_day_is_compared(read: LateFeed, refusal: str, case: Case) -> None:
    """No error: the same rows are found by reading the last day again, without metadata."""
    read.service.faults.add(NOT_V1[refusal])
    late, others = case(read)

    run = read.sync(13.25)

    assert run.entries_read == 1 + others
    assert read.asked() == (1, 0)
    assert read.runs_of(late) == [run.run_id]
    bare = [one for one in read.service.requests.all() if one.query.get("includeMetadata") == "false"]
    assert 3 <= sum(one.path == "/v2/changefeed" for one in bare) <= 5
    read.sync(14.25)
    assert landed(read) == served(read, 14)


@pytest.mark.parametrize("rows", [[2], []], ids=["before the lowest known", "before any is known"])
def test_the_first_row_of_a_feed_may_be_late(feed: LateFeed, rows: list[int]) -> None:
    """There is no neighbour below it."""
    for sequence in rows:
        feed.create(11.5, "1.1.2", sequence=sequence)
    assert feed.sync(12.25).entries_read == len(rows)
    feed.create(11.4, "1.1.1", sequence=1)

    assert feed.sync(13.25).entries_read == 1
    assert landed(feed) == [1, *rows]


def test_rows_before_the_start_of_the_lake_are_none_of_its_business(feed: LateFeed) -> None:
    """A lake that begins in the middle of a feed probes below its first number and lands nothing of it."""
    for n in range(50):
        feed.create(5 + n / 1000, f"9.1.{n}")
    site = feed.site.having(f"feed.start={text_at(8)}")
    late_site = LateFeed(site)
    late_site.create(11.5, "1.1.1")

    assert late_site.sync(12.25).entries_read == 1
    assert late_site.asked() == (1, 1)
    assert landed(late_site) == [51]


def test_rows_of_windows_to_come_are_not_read_early(read: LateFeed) -> None:
    """They are seen among the numbers above and left alone, and their own window brings them."""
    read.create(12.5, "1.1.4")
    late = read.create(11.9, "2.1.1")
    coming = [read.create(13.05, f"1.1.{n}") for n in (5, 6)]
    assert (late, coming) == (5, [6, 7])

    assert read.sync(13.25).entries_read == 2
    assert landed(read) == [1, 2, 3, 4, 5]
    by_number = [one for one in read.service.requests.all() if one.path == "/v1/changefeed"]
    assert Counter(one.query["includeMetadata"] for one in by_number) == {"false": 1, "true": 1}
    assert read.sync(14.25).entries_read == 2
    assert landed(read) == [1, 2, 3, 4, 5, 6, 7]


def test_lost_numbers_cost_little_and_are_void_after_a_day(feed: LateFeed) -> None:
    """Fifty rolled-back transactions in two thousand numbers: twenty requests a run, for a day, and none after."""
    for block in range(50):
        for n in range(3):
            feed.create(11 + block / 60, f"1.{block}.{n}")
        feed.service.skip_sequences(37)
    feed.create(11.9, "2.1.1")
    assert feed.sync(12.25).entries_read == 151

    for hour in (13.25, 14.25, 36.25):
        assert feed.asked() == (1, 20)
        feed.sync(hour)
    assert feed.asked() == (1, 20)
    feed.sync(37.25)
    assert feed.asked() == (1, 0)

    feed.create(11.95, "3.1.1", sequence=20)
    assert feed.sync(38.25).entries_read == 0


def test_lost_numbers_beyond_the_bound_take_turns(feed: LateFeed) -> None:
    """Two hundred hundreds with gaps: a hundred requests a run, and each of them within a few runs."""
    for number in range(1, 20_000, 50):
        feed.create(11.5, f"1.1.{number}", sequence=number)
    assert feed.sync(12.25).entries_read == 400
    asked: set[str | None] = set()
    for hour in (13.25, 14.25, 15.25, 16.25):
        feed.sync(hour)
        assert 60 <= feed.asked()[1] <= 100
        asked |= {one.query["offset"] for one in feed.service.requests.all() if one.path == "/v1/changefeed"}

    assert len({int(offset or 0) // 100 for offset in asked}) == 200


def test_a_row_in_a_jump_of_lost_numbers(read: LateFeed) -> None:
    """A thousand at once, as after a restart of the database: twelve requests a run, and a late row is found in it."""
    read.service.skip_sequences(1000)
    read.create(12.5, "1.1.4")
    assert read.sync(13.25).entries_read == 1
    assert read.asked() == (1, 11)
    read.create(11.9, "2.1.1", sequence=500)

    assert read.sync(14.25).entries_read == 1
    assert read.runs_of(500) == [3]


def test_a_gap_outlives_a_weekend_without_runs(read: LateFeed) -> None:
    """The row came after the last run on Friday; on Monday it is found, though three days old."""
    read.create(11.9, "2.1.1")
    read.create(12.6, "1.1.4")

    assert read.sync(84.25).entries_read == 2
    assert landed(read) == [1, 2, 3, 4, 5]


def test_a_run_that_found_a_late_row_and_died_leaves_it_missing(
    read: LateFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands in `change`, no table has it, its window is covered: only what succeeded runs read is known."""
    late = read.create(11.9, "2.1.1")

    def fail(*_args: object) -> None:
        raise StorageError("instance: the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(one_run, "merge_landed", fail)
        with pytest.raises(StorageError, match="disk is full"):
            read.sync(13.25)
    assert read.runs_of(late) == [2]

    assert read.sync(14.25).entries_read == 1
    assert read.runs_of(late) == [2, 3]
    assert read.sync(15.25).entries_read == 0


def test_manual_ranges_find_what_lies_before_their_end(read: LateFeed) -> None:
    """The rest is left to the next due run."""
    read.create(11.4, "2.1.1")
    read.create(11.9, "2.1.2")
    read.service.clock.freeze(at(12.5))

    (manual,) = read.site.sync(text_at(11), text_at(11.5), now=at(12.5))

    assert manual.entries_read == 2
    assert read.sync(13.25).entries_read == 1
    assert Counter(row["runId"] for row in read.site.rows("change")) == {1: 3, 2: 2, 3: 1}


def test_catching_up_and_dry_runs_ask_nothing(read: LateFeed) -> None:
    """Windows of more than a day ago were over long before they are read; --dry-run only says what is due."""
    read.create(11.9, "2.1.1")
    read.service.requests.clear()
    read.service.clock.freeze(at(60.25))
    assert planned(read.site.settings, request(None, None, None, None), clock=lambda: at(60.25))
    assert read.asked() == (0, 0)
    read.sync(60.25)
    assert landed(read) == [1, 2, 3, 4]

    read.service.requests.clear()
    (again,) = read.site.sync(text_at(11), text_at(12), now=at(60.5))
    assert again.entries_read == 4
    assert read.asked() == (0, 0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("v1", [True, False], ids=["by number", "by time"])
def test_every_row_is_read_in_the_end(feed: LateFeed, seed: int, v1: bool) -> None:
    """Random rows, up to five hours late, between lost numbers, jumps and silence, some runs left out: none is missed.

    And each is read once, by a window or by its number.
    """
    random = Random(seed)
    if not v1:
        feed.service.faults.add(NOT_V1["404"])
    visible: list[tuple[int, int]] = []
    for _ in range(random.randrange(1, 40)):
        ticks = ticks_at(8) + random.randrange(8 * HOUR)
        late = random.choice([0, 0, 0, random.randrange(15 * MINUTE), random.randrange(5 * HOUR)])
        visible.append((ticks + late, ticks))
    hours = [8.25 + n for n in range(1, 20) if random.random() < 0.7] + [29.25, 30.25]
    waiting = sorted(visible)
    for hour in hours:
        while waiting and waiting[0][0] <= ticks_at(hour):
            if random.random() < 0.3:
                feed.service.skip_sequences(random.choice([1, 1, 2, 40, 1000]))
            feed.create_at(waiting.pop(0)[1])
        feed.sync(hour)

    assert waiting == []
    assert len(served(feed, 30)) == len(visible)
    assert landed(feed) == served(feed, 30)
