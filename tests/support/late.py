"""A feed with rows that become visible late, and syncs of it hour by hour."""

from __future__ import annotations

from typing import Any

from dicom_etl.runs.ledger import Run
from support.site import Site, at, ticks_at


class LateFeed:
    """A site's rows by the hour of the day at which their transactions began."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.service = site.service

    def create(self, hour: float, name: str, sequence: int | None = None) -> int:
        """The number of a new row; ``name`` is study.series.instance below 1.2."""
        study, series, sop = (f"1.2.{'.'.join(name.split('.')[:depth])}" for depth in (1, 2, 3))
        row = self.site.create(study, series, sop, at_ticks=ticks_at(hour), sequence=sequence, modality="CT", name=name)
        return int(row.sequence)

    def create_at(self, ticks: int) -> int:
        """The number of a new row of an instance of its own."""
        number = self.service.next_sequence
        row = self.site.create("1.2.8", f"1.2.8.{number % 3}", f"1.2.8.9.{number}", at_ticks=ticks, modality="CT")
        return int(row.sequence)

    def create_three(self) -> None:
        """Numbers 1, 2, 3 between 11:00 and 12:00."""
        assert [self.create(11 + n / 4, f"1.1.{n}") for n in (1, 2, 3)] == [1, 2, 3]

    def sync(self, hour: float, *, spark: Any = None) -> Run:
        """The one run of a sync at that hour, the service's clock and ours agreeing."""
        self.service.clock.freeze(at(hour))
        self.service.requests.clear()
        (run,) = self.site.sync(now=at(hour), spark=spark)
        return run

    def asked(self) -> tuple[int, int]:
        """How often the last sync asked for the largest number, and for ranges of numbers."""
        count = self.service.requests.count
        return count("GET /v1/changefeed/latest"), count("GET /v1/changefeed")

    def equal(self) -> bool:
        """Whether the tables hold what the service holds."""
        return self.site.tables() == self.site.expected()

    def runs_of(self, sequence: int) -> list[int]:
        """The runs that landed the row."""
        return sorted(row["runId"] for row in self.site.rows("change") if row["sequence"] == sequence)


def late_between(feed: LateFeed) -> tuple[int, int]:
    """Half an hour late, and the next window holds a row after it. The late number, and how many others it holds."""
    late = feed.create(11.9, "2.1.1")
    feed.create(12.6, "1.1.4")
    return late, 1


def late_alone(feed: LateFeed) -> tuple[int, int]:
    """The highest number of all, and the next window is empty."""
    return feed.create(11.9, "2.1.1"), 0


def late_last(feed: LateFeed) -> tuple[int, int]:
    """The highest number of all, after a row of the next window."""
    feed.create(12.3, "1.1.4")
    return feed.create(11.9, "2.1.1"), 1


def late_after_a_jump(feed: LateFeed) -> tuple[int, int]:
    """The highest number of all, after ten thousand that are lost."""
    feed.service.skip_sequences(10_000)
    return feed.create(11.9, "2.1.1"), 0


def late_before_others(feed: LateFeed) -> tuple[int, int]:
    """Far below the largest number: a thousand rows of a window to come follow, which are not read yet."""
    late = feed.create(11.9, "2.1.1")
    for number in range(1000):
        feed.create(13.1, f"3.1.{number}")
    return late, 0


LATE = [late_between, late_alone, late_last, late_after_a_jump, late_before_others]
