"""A feed with rows that become visible late, and syncs of it hour by hour."""

from __future__ import annotations

from typing import Any

from dicom_etl.lake.ledger import Run
from support.site import Site, at, ticks_at

FEED = "/v2/changefeed"


class LateFeed:
    """A site's rows by the hour of the day at which their transactions began."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.service = site.service

    def create(self, hour: float, name: str, sequence: int | None = None, ticks: int = 0) -> int:
        """The number of a new row; ``name`` is study.series.instance below 1.2, ``ticks`` are added to the hour."""
        study, series, sop = (f"1.2.{'.'.join(name.split('.')[:depth])}" for depth in (1, 2, 3))
        row = self.site.create(
            study, series, sop, at_ticks=ticks_at(hour) + ticks, sequence=sequence, modality="CT", name=name
        )
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
        (run,) = self.syncs(hour, spark=spark)
        return run

    def syncs(self, hour: float, *, spark: Any = None) -> list[Run]:
        """All runs of a sync at that hour."""
        self.service.clock.freeze(at(hour))
        self.service.requests.clear()
        return self.site.sync(now=at(hour), spark=spark)

    def asked(self) -> tuple[int, int]:
        """How many pages of the feed the last sync asked for: with metadata, and without."""
        pages = [one.query["includeMetadata"] for one in self.service.requests.all() if one.path == FEED]
        assert len(pages) == self.service.requests.count(), "nothing else is asked"
        return pages.count("true"), pages.count("false")

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


def late_by_three_hours(feed: LateFeed) -> tuple[int, int]:
    """Visible right after 12:15, when the window before was read."""
    return feed.create(9.26, "2.1.1"), 0


def late_in_a_tie(feed: LateFeed) -> tuple[int, int]:
    """At the very instant of a row that was read, with a number before its own."""
    late = feed.create(11.5, "2.1.1", sequence=9)
    assert feed.site.feed(11.5, 11.5001)[0].sequence == 2
    return late, 0


def late_beside(feed: LateFeed) -> tuple[int, int]:
    """100 ns after a row that was read."""
    return feed.create(11.5, "2.1.1", ticks=1), 0


def late_before_others(feed: LateFeed) -> tuple[int, int]:
    """A thousand rows of a window to come have numbers after it; they are not read yet."""
    late = feed.create(11.9, "2.1.1")
    for number in range(1000):
        feed.create(13.1, f"3.1.{number}")
    return late, 0


LATE = [late_between, late_alone, late_by_three_hours, late_in_a_tie, late_beside, late_before_others]
