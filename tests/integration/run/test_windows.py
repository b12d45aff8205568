"""Open ranges, wrong clocks, other windows, ranges by hand: nothing counts as covered before it was closed.

design/architecture.md: Coverage and the ledger.

Rows carry the time at which their transaction began and become visible up to `feed.delay` later. The second look, which
would find what a window has missed, is turned off: the windows alone must not lose one. With it, rows may be later.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from dicom_etl.core.timerange import Window
from dicom_etl.lake import ledger
from dicom_etl.lake.ledger import Run
from dicom_etl.run import late_rows, record
from support.landing_only import landed, landing_only
from support.site import HOUR, MINUTE, Site, at, text_at, ticks_at
from support.story import NoSpark

DELAY = 15 * MINUTE
P = "Microsoft.Default"


class Feed:
    """A service whose clock tells the true time, and whose rows become visible minutes after theirs."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.service = site.service

    def event(self, hour: float, minutes_late: float, what: Callable[..., Any], *key: str, **given: Any) -> None:
        """Something happens at that hour; its row is there so many minutes later."""
        ticks = ticks_at(hour)
        if minutes_late:
            self.service.hold(self.service.next_sequence, until=ticks + round(minutes_late * MINUTE))
        what(*key, at_ticks=ticks, **given)

    def create(self, hour: float, late: float, sop: str, **given: Any) -> None:
        self.event(hour, late, self.site.create, *_uids(sop), name=f"created {hour}", modality="CT", **given)

    def update(self, hour: float, late: float, sop: str) -> None:
        self.event(hour, late, self.site.update, *_uids(sop), name=f"updated {hour}", modality="MR")

    def delete(self, hour: float, late: float, sop: str) -> None:
        self.event(hour, late, self.service.delete, P, *_uids(sop))

    def visible(self, start: float, end: float) -> int:
        """How many rows of that time can be read now."""
        now = self.service.clock.now_ticks()
        return len(self.service.history.window(ticks_at(start), ticks_at(end), 0, 10**6, now=now))

    def covered(self) -> list[tuple[float, float]]:
        """The coverage that the ledger holds, in hours of the day."""
        return [((w.start - ticks_at(0)) / HOUR, (w.end - ticks_at(0)) / HOUR) for w in self.coverage()]

    def coverage(self) -> list[Window]:
        if not self.site.has("run"):
            return []
        return ledger.covered(Run.from_row(row) for row in self.site.ledger())

    def lost(self) -> set[int]:
        """Rows, those to come included, that lie in what is covered, and that nobody has landed."""
        rows = [row for w in self.coverage() for row in self.service.history.window(w.start, w.end, 0, 10**6)]
        return {row.sequence for row in rows} - (landed(self.site) if rows else set())


def _uids(sop: str) -> tuple[str, str, str]:
    """Study, series and SOP instance UID of ``study.series.instance``."""
    study, series, _ = sop.split(".")
    return f"1.2.{study}", f"1.2.{study}.{series}", f"1.2.{sop}"


@pytest.mark.soak
def test_an_open_range_is_read_and_not_covered(make_site: Callable[..., Site]) -> None:
    """--end and --until in the future, our clock ahead, then behind, half-hour windows, an earlier feed.start.

    At each step what is covered ended the delay before the slower clock; at the end the tables equal the service.
    """
    site = make_site("feed.look_back=0s", f"feed.start={text_at(8)}")
    feed = Feed(site)
    feed.create(6.5, 0, "1.1.1")
    feed.create(8.2, 14, "1.1.2")
    feed.create(9.5, 0, "2.1.1")
    feed.create(9.7, 14, "2.1.2")  # there at 9:56
    feed.update(9.8, 10, "1.1.2")  # there at 9:58
    feed.create(9.95, 14, "3.1.1")  # there at 10:11
    site.service.clock.freeze(at(10))

    # By hand, with an end two hours in the future; our clock is three hours ahead.
    assert feed.visible(8, 12) == 4
    (run,) = site.sync(text_at(8), text_at(12), now=at(13))
    assert (run.entries_read, run.window_end, run.covered_until) == (4, ticks_at(12), ticks_at(9.75))
    assert feed.covered() == [(8, 9.75)]
    assert feed.lost() == set()

    # It has gone on: rows behind the end of what was covered, one of them in what was read already.
    feed.delete(10.1, 12, "2.1.1")
    feed.create(10.3, 14, "2.2.1")  # there at 10:32
    feed.update(10.4, 0, "3.1.1")
    site.service.clock.freeze(at(10.5))

    # Until the future, and our clock is behind the service's by half an hour.
    (run,) = site.sync(until=text_at(20), now=at(10))
    assert (run.window_start, run.window_end, run.covered_until) == (ticks_at(9.75), ticks_at(20), ticks_at(9.75))
    assert run.entries_read == feed.visible(9.75, 12) == 4
    assert feed.covered() == [(8, 9.75)]
    assert feed.lost() == set()

    # Half-hour windows from now on, and a start that lies earlier: what lies before and after the coverage is due.
    feed.create(11.4, 13, "4.1.1")
    site.service.clock.freeze(at(11.8))
    other = site.having("feed.window=30m", f"feed.start={text_at(6)}")
    runs = other.sync(now=at(11.8))
    assert [(r.window_start, r.window_end, r.entries_read) for r in runs] == [
        (ticks_at(6), ticks_at(8), 1),
        (ticks_at(9.75), ticks_at(11.5), 6),
    ]
    assert feed.covered() == [(6, 11.5)]
    assert feed.lost() == set()
    assert {table: len(rows) for table, rows in site.expected().items()} == {"instance": 6, "series": 5, "study": 4}
    assert site.tables() == site.expected()

    # Ranges by hand that overlap what is covered and what is open; then the hours as before: an empty one.
    site.service.clock.freeze(at(12.5))
    (run,) = site.sync(text_at(11.45), text_at(12.4), now=at(12.5), spark=NoSpark())
    assert (run.entries_read, run.covered_until) == (0, ticks_at(12.25))
    assert feed.covered() == [(6, 12.25)]
    site.service.clock.freeze(at(13.3))
    (run,) = site.sync(now=at(13.3), spark=NoSpark())
    assert (run.window_start, run.window_end) == (ticks_at(12.25), ticks_at(13))


STEPS = 10
SEEDS = [0, 1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in range(2, 20))]


def _sync(feed: Feed, random: Random, hour: float, start: float, *, late: bool) -> None:
    """One sync of any kind, with our clock somewhere around the true one."""
    ours = hour + random.choice([0.0, 0.0, -0.7, -0.1, 0.1, 3.0])
    window = random.choice(["1h", "1h", "30m", "7m", "4h"])
    site = feed.site.having(f"feed.window={window}", f"feed.start={text_at(start)}")
    how: dict[str, Any] = {}
    kind = random.choice(["due", "due", "range", "range", "until"])
    if kind == "range":
        begin = random.uniform(max(0, hour - 4), hour + 1)
        how = {"start": text_at(begin), "end": text_at(begin + random.uniform(0.01, 4))}
    elif kind == "until":
        how["until"] = text_at(random.uniform(start, hour + 6))
    before = feed.coverage()
    runs = site.sync(now=at(ours), **how)
    assert late or feed.lost() == set(), "what is covered has been read"
    closed = ticks_at(min(hour, ours)) - DELAY
    assert all(run.coverage is None or run.coverage.end <= closed for run in runs), "what is covered was closed"
    assert all(any(w.start <= old.start and old.end <= w.end for w in feed.coverage()) for old in before)


def walk(folder: Path, seed: int, *, late: bool = False) -> None:
    """Random syncs of a feed in which a row comes every few minutes, up to the delay late; then one that reads all.

    ``late``: up to three hours, and then each run looks back as far. Real runs without their MERGEs.
    """
    random = Random(seed)
    with landing_only(folder, f"feed.look_back={'3h' if late else '0s'}") as site:
        feed = Feed(site)
        hour = start = 6.0
        count = 0
        for _ in range(STEPS):
            then = hour + random.uniform(0.05, 1.5)
            for moment in sorted(random.uniform(hour, then) for _ in range(random.randrange(2, 9))):
                count += 1
                latest = 180 if late else 15
                feed.create(moment, random.choice([0, 3, random.uniform(0, latest)]), f"1.1.{count}")
            hour = then
            start = max(0.0, start - random.choice([0, 0, 1.5]))
            site.service.clock.freeze(at(hour))
            _sync(feed, random, hour, start, late=late)
        hour += 3.5 if late else 0.5
        site.service.clock.freeze(at(hour))
        site.having("feed.window=1m", f"feed.start={text_at(start)}").sync(now=at(hour))
        rows = {row.sequence for row in site.feed(0, hour)}
        assert len(rows) == count > 2 * STEPS
        assert landed(site) == rows, "everything is landed"
        assert len(site.ledger()) > STEPS // 2
        assert feed.covered()[-1][1] > hour - 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_any_ranges_and_clocks_find_what_is_late(tmp_path: Path, seed: int) -> None:
    """The same with rows up to three hours late: whatever was read meanwhile, the last sync has brought them all."""
    walk(tmp_path, seed, late=True)


def test_late_rows_are_lost_without_a_second_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken variant of it."""
    monkeypatch.setattr(late_rows, "second_look", lambda *_: [])
    with pytest.raises(AssertionError, match=r"^everything is landed"):
        walk(tmp_path, 0, late=True)


@pytest.mark.parametrize("seed", SEEDS)
def test_any_ranges_and_clocks_lose_nothing(tmp_path: Path, seed: int) -> None:
    """Never lies a row in what is covered that nobody has read, nor that is yet to come; in the end all are read."""
    walk(tmp_path, seed)


def test_coverage_up_to_the_end_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken variant: an open range counts as covered to its end."""
    monkeypatch.setattr(record, "coverage_end", lambda read, _now, _delay: read.end)
    with pytest.raises(AssertionError, match=r"^what is covered "):
        walk(tmp_path, 0)
