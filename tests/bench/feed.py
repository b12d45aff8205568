"""What the benchmark's feed holds, by arithmetic: the creates of a hospital, hour by hour, and windows after them."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import gcd
from typing import NamedTuple

from dicom_emulator.state.timestamps import TICKS_PER_SECOND, parse_time, timestamp_text

HOUR = 3600 * TICKS_PER_SECOND
START = parse_time("2024-05-01T00:00:00Z")
# A hospital of 600 beds takes in 4 900 instances an hour.
PER_HOUR = 5_000
STEP = HOUR // PER_HOUR
WINDOW_ENTRIES = 1_000
HEADER_BYTES = 10_000
# So many scanners send at once; a study has three series of sixty images.
LANES = 4
SERIES = 3
IMAGES = 60
PER_STUDY = SERIES * IMAGES
# Not on the hour, and with all seven digits.
FRACTION = 1_234_567
# A run begins 20 minutes after its window is over: the entries of that time are there, and not its business.
_AFTER = HOUR // 3

KINDS = ("create", "updates", "deletes", "scattered", "empty")


class Event(NamedTuple):
    """One row of the feed: what happened to which instance (a number), when (ticks)."""

    action: str
    instance: int
    ticks: int


class Uids(NamedTuple):
    """The UIDs of a study, and of a series in it; an instance has its series' UID and its image number."""

    study: str
    series: str


def series_and_image(instance: int) -> tuple[int, int]:
    """Where an instance belongs: its series, counted over the whole feed, and its image number, from 1."""
    place, lane = divmod(instance, LANES)
    study, rest = divmod(place, PER_STUDY)
    series, image = divmod(rest, IMAGES)
    return (study * LANES + lane) * SERIES + series, image + 1


def uids(series: int) -> Uids:
    """The UIDs of a series, by its number."""
    study, place = divmod(series, SERIES)
    return Uids(study_uid(study), f"{study_uid(study)}.{place + 1}")


@lru_cache(maxsize=4096)
def study_uid(number: int) -> str:
    """Of a scanner's root and a growing counter, as scanners make them; one of four is a UUID, at random."""
    study, lane = divmod(number, LANES)
    if lane < LANES - 1:
        return f"1.2.840.113619.2.55.3.60468811{lane}.2024.{study:08d}"
    return f"2.25.{10**38 + int(hashlib.sha256(str(number).encode()).hexdigest(), 16) % (2 * 10**38)}"


def instances_of_study(number: int) -> range:
    """The instances of a study, by its number."""
    study, lane = divmod(number, LANES)
    first = study * PER_STUDY * LANES + lane
    return range(first, first + PER_STUDY * LANES, LANES)


def study_day(number: int) -> str:
    """The StudyDate by which the search finds a study: the day of its first instance."""
    return timestamp_text(START + FRACTION + instances_of_study(number)[0] * STEP)[:10].replace("-", "")


class Feed:
    """The rows by (time, sequence): ``entries`` creates, evenly spread, then one hour for each window.

    A window has ``per_window`` rows (five studies of updates or deletes are more than few), and a row metadata of
    ``header_bytes`` on average.

    The sequence of a row is its place, counted from 1. A window's kind: ``create`` (mostly new studies), ``updates``
    (whole studies), ``deletes`` (studies, a series, single instances), ``scattered`` (updates of instances all over
    the archive, each in a transaction of its own), ``empty``. Times are in 100 ns since 1970, and never
    step back.
    """

    def __init__(
        self,
        entries: int,
        windows: Sequence[str] = (),
        per_window: int = WINDOW_ENTRIES,
        header_bytes: int = HEADER_BYTES,
    ) -> None:
        if unknown := set(windows) - set(KINDS):
            raise ValueError(f"a window is one of {', '.join(KINDS)}, not {sorted(unknown)}")
        self.entries = entries
        self.per_window = per_window
        self.header_bytes = header_bytes
        self.windows = tuple(windows)
        self.base_end = START + -(-entries // PER_HOUR) * HOUR
        self.end = self.base_end + len(windows) * HOUR
        self.now = self.end + _AFTER
        self._later = list(self._events_of_windows())
        self._later_ticks = [event.ticks for event in self._later]
        self._touched = {event.instance: place + entries for place, event in enumerate(self._later)}

    def __len__(self) -> int:
        return self.entries + len(self._later)

    def event(self, place: int) -> Event:
        """The row at that place, from 0."""
        if place < self.entries:
            return Event("Create", place, START + FRACTION + place * STEP)
        return self._later[place - self.entries]

    def place(self, ticks: int) -> int:
        """The place of the first row that is not before the instant."""
        if ticks > self._last_of_base():
            return self.entries + bisect_left(self._later_ticks, ticks)
        return max(0, -(-(ticks - START - FRACTION) // STEP))

    def last_place_of(self, place: int) -> int:
        """The place of the newest row of the same instance: what it is now, its older rows show.

        design/service-protocol.md: Rows that change.
        """
        instance = place if place < self.entries else self._later[place - self.entries].instance
        return self._touched.get(instance, place)

    def window(self, number: int) -> range:
        """The places of a window's rows, windows counted from 0."""
        start = self.base_end + number * HOUR
        return range(self.place(start), self.place(start + HOUR))

    def studies(self, places: range) -> frozenset[str]:
        """The study UIDs of some rows."""
        return frozenset(study_uid(series_and_image(self.event(place).instance)[0] // SERIES) for place in places)

    def _last_of_base(self) -> int:
        return self.event(self.entries - 1).ticks if self.entries else START

    def _events_of_windows(self) -> Iterator[Event]:
        new = self.entries
        for number, kind in enumerate(self.windows):
            start = self.base_end + number * HOUR
            changes = list(self._changes(kind, number))
            creates = 0 if kind == "empty" else _left(changes, self.per_window)
            transactions = [*changes, *([("Create", (new + n,)) for n in range(creates)])]
            new += creates
            yield from _spread(_mixed(transactions), start, HOUR)
        tail = [("Create", (new + n,)) for n in range(self.per_window // 3)]
        yield from _spread(tail, self.end, _AFTER)

    def _changes(self, kind: str, number: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The transactions of a window that are no creates; studies that are complete, and far apart."""
        whole = self.entries // (PER_STUDY * LANES) * LANES
        chosen = _far_apart(whole, 5, number)
        if kind == "updates":
            for study in chosen:
                yield "Update", tuple(instances_of_study(study))
        elif kind == "deletes" and chosen:
            *studies, last = chosen
            for study in studies:
                yield "Delete", tuple(instances_of_study(study))
            one = tuple(instances_of_study(last))
            yield "Delete", one[:IMAGES]
            yield from (("Delete", (instance,)) for instance in one[IMAGES : IMAGES + 20])
        elif kind == "scattered":
            most = min(self.per_window, self.entries)
            # A step of whole rounds would always meet the same scanner.
            places = (place * self.entries // most + place % LANES for place in range(most))
            yield from (("Update", (instance,)) for instance in sorted({min(p, self.entries - 1) for p in places}))


def _left(transactions: Sequence[tuple[str, tuple[int, ...]]], rows: int) -> int:
    return max(0, rows - sum(len(instances) for _, instances in transactions))


def _far_apart(count: int, wanted: int, salt: int) -> list[int]:
    """So many different numbers below ``count``, fewer when there are not as many, others with another salt."""
    wanted = min(wanted, count)
    return sorted({(number * count // wanted + salt) % count for number in range(wanted)})


def _mixed(transactions: Sequence[tuple[str, tuple[int, ...]]]) -> list[tuple[str, tuple[int, ...]]]:
    """The same in another order, always the same, so that creates and changes alternate."""
    count = len(transactions)
    stride = next((step for step in (7, 11, 13, 17, 1) if gcd(step, count) == 1), 1)
    if all(action == "Create" for action, _ in transactions) or stride == 1:
        return list(transactions)
    return [transactions[place * stride % count] for place in range(count)]


def _spread(transactions: Sequence[tuple[str, tuple[int, ...]]], start: int, span: int) -> Iterator[Event]:
    """Evenly over the time; the rows of one transaction share its instant.

    design/service-protocol.md: Paging the feed.
    """
    place = 0
    rows = sum(len(instances) for _, instances in transactions)
    for action, instances in transactions:
        ticks = start + FRACTION + place * span // rows
        yield from (Event(action, instance, ticks) for instance in instances)
        place += len(instances)


def instant(ticks: int) -> str:
    """RFC 3339 in UTC with Z: a plus sign in a query becomes a space (design/service-protocol.md: Feed parameters)."""
    return timestamp_text(ticks).replace("+00:00", "Z")
