"""Random histories of any size, from real headers: the same seed, the same histories.

A history is that of one study with one to four instances; histories do not touch each other's keys, so that
thousands of them fit into one feed. Within a history time, sequence and visibility agree, as the service
promises (design/service-protocol.md: Paging the feed); between histories they cross.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Literal

from dicom_emulator.state.service import DicomService
from dicom_emulator.state.timestamps import TICKS_PER_SECOND, ticks_of, timestamp_text
from dicom_emulator.state.uids import DEFAULT_PARTITION, InstanceKey
from dicom_emulator.testing.headers import CHANGEABLE, OWN, Header, Values, real_headers
from dicom_emulator.testing.schedule import Frame, Moment, first_moment, next_moment

HOUR = 3600 * TICKS_PER_SECOND
_PARTITIONS = (DEFAULT_PARTITION, DEFAULT_PARTITION, DEFAULT_PARTITION, "clinic-1", "Ward_2.b")
_ROOTS = ("1.2.840.113619.2.55", "1.3.6.1.4.1.14519.5.2.1", "2.25.3", "1.2.276.0.7230010.3.1")
_LONGEST = 9

Level = Literal["instance", "series", "study"]


@dataclass(frozen=True, slots=True)
class Event:
    """One transaction of one history: its rows have one timestamp and become visible at `moment.commit`.

    A Create has one key, an Update all live ones of its study, a Delete those of its `level`. `sequences` go
    with the keys. `headers` (places in `real_headers`) and `values` are what an instance's metadata is
    made of; `kind` is what Script.kinds counts.
    """

    moment: Moment
    action: str
    kind: str
    keys: tuple[InstanceKey, ...]
    level: Level = "instance"
    headers: tuple[int, ...] = ()
    values: Values = OWN
    padded: bool = False
    history: int = 0
    sequences: tuple[int, ...] = ()


@dataclass(frozen=True)
class Script:
    """The events of all histories in the order of their commits; all of them are visible by `end` (ticks)."""

    events: tuple[Event, ...]
    histories: int
    frame: Frame

    @property
    def entries(self) -> int:
        """How many rows the feed gets."""
        return sum(len(event.keys) for event in self.events)

    @property
    def end(self) -> int:
        """From then on everything is visible and older than the delay."""
        return self.frame.start + self.frame.span + self.frame.delay

    def play(self, service: DicomService, after: int | None = None, until: int | None = None) -> int:
        """Makes the events with after <= commit < until happen (ticks; None: no bound); returns the rows written.

        The service's clock is left alone. Play stretches in their order, and each once.
        """
        commits = [event.moment.commit for event in self.events]
        first = 0 if after is None else bisect_left(commits, after)
        last = len(commits) if until is None else bisect_left(commits, until)
        headers = real_headers()
        for event in self.events[first:last]:
            _play(service, event, headers)
        return sum(len(event.keys) for event in self.events[first:last])

    def kinds(self) -> Counter[str]:
        """How often each kind of thing occurs, in rows."""
        counts: Counter[str] = Counter(histories=self.histories, entries=self.entries)
        rows = [
            (event, key, number)
            for event in self.events
            for key, number in zip(event.keys, event.sequences, strict=True)
        ]
        for event, key, _ in rows:
            counts[event.kind] += 1
            counts["other partition"] += key.partition != DEFAULT_PARTITION
            counts["padded"] += event.padded
            counts["late"] += event.moment.commit > event.moment.ticks
            counts["numbered early"] += event.moment.commit > event.moment.numbered
            counts["edge of a window"] += event.moment.ticks % self.frame.window == 0
            counts["before an edge"] += (event.moment.ticks + 1) % self.frame.window == 0
            counts[f"{_digits(event.moment.ticks)} digits"] += 1
        return counts + _crossings(rows)


def compose(
    seed: int,
    size: int,
    *,
    start: int | str = "2024-05-01T00:00:00Z",
    window: int = HOUR,
    delay: int = HOUR // 4,
    span: int | None = None,
    first_sequence: int = 1,
) -> Script:
    """A script of at least `size` rows, and hardly more; times in ticks, `span` by default 24 windows.

    Two seeds never share a key. Nothing has happened yet: see Script.play. Raises ValueError for a seed that
    does not fit into a UID.
    """
    if not 0 <= seed < 10**12:
        raise ValueError("a seed is a number below 10^12")
    random = Random(seed)  # noqa: S311 - the same histories for the same seed
    frame = Frame(ticks_of(start), 24 * window if span is None else span, window, delay)
    events: list[Event] = []
    entries = histories = 0
    studies = _studies(random, seed)
    while entries < size:
        history = list(_history(random, frame, next(studies), histories))
        events += history
        entries += sum(len(event.keys) for event in history)
        histories += bool(history)
    return Script(tuple(_numbered(random, events, first_sequence)), histories, frame)


def play(service: DicomService, seed: int, size: int, **options: object) -> Script:
    """The script of `compose`, after all of it has happened; sequences go on where the service stands."""
    script = compose(seed, size, **{"first_sequence": service.next_sequence, **options})  # type: ignore[arg-type]
    script.play(service)
    return script


@dataclass
class _Study:
    """What may live in one study, and what does, in the service's own order (series, then instances)."""

    keys: list[InstanceKey]
    live: dict[str, dict[InstanceKey, int]] = field(default_factory=dict)
    deleted: set[InstanceKey] = field(default_factory=set)
    updated: set[InstanceKey] = field(default_factory=set)
    values: Values = OWN

    @property
    def living(self) -> tuple[InstanceKey, ...]:
        return tuple(key for series in self.live.values() for key in series)

    def headers(self) -> tuple[int, ...]:
        return tuple(header for series in self.live.values() for header in series.values())

    def add(self, key: InstanceKey, header: int) -> None:
        self.live.setdefault(key.series, {})[key] = header

    def remove(self, keys: Sequence[InstanceKey]) -> None:
        for key in keys:
            del self.live[key.series][key]
            if not self.live[key.series]:
                del self.live[key.series]
        self.deleted.update(keys)


def _studies(random: Random, seed: int) -> Iterator[_Study]:
    """Studies without end; some twice, in two partitions."""
    number = 0
    while True:
        number += 1
        partition = random.choice(_PARTITIONS)
        study = f"{random.choice(_ROOTS)}.{seed}.{number}"
        series = [f"{study}.{place}" for place in range(1, random.randint(1, 2) + 1)]
        sops = [f"{study}.9.{place}" for place in range(1, random.randint(1, 2) + 1)]
        # All combinations: the same SOP instance UID stands in two series.
        uids = [(study, one, sop) for one in series for sop in sops]
        kept = random.sample(uids, random.randint(1, len(uids)))
        yield _Study([InstanceKey(partition, *one) for one in kept])
        if random.random() < 0.05:
            other = random.choice([name for name in _PARTITIONS if name != partition])
            yield _Study([InstanceKey(other, *one) for one in kept])


def _history(random: Random, frame: Frame, study: _Study, number: int) -> Iterator[Event]:
    """One to nine events; fewer when the time is over."""
    moment = first_moment(random, frame)
    for _ in range(random.randint(1, _LONGEST)):
        if moment is None:
            return
        yield replace(_event(random, study, moment), history=number)
        moment = next_moment(random, frame, moment)


def _event(random: Random, study: _Study, moment: Moment) -> Event:
    """Something that can happen to the study now."""
    living = study.living
    missing = [key for key in study.keys if key not in living]
    dice = random.random()
    if not living or (missing and dice < 0.5):
        return _create(random, study, moment, random.choice(missing))
    if dice < 0.75:
        study.values = _new_values(random, study.values)
        study.updated.update(living)
        return Event(moment, "Update", "update", living, headers=study.headers(), values=study.values)
    level: Level = random.choice(("instance", "instance", "series", "study"))
    one = random.choice(living)
    gone = tuple(
        key for key in living if level == "study" or (key.series == one.series and (level == "series" or key == one))
    )
    study.remove(gone)
    return Event(moment, "Delete", f"delete {level}", gone, level)


def _create(random: Random, study: _Study, moment: Moment, key: InstanceKey) -> Event:
    header = random.randrange(len(real_headers()))
    values = OWN if random.random() < 0.5 else _new_values(random, OWN)
    kind = "create"
    if key in study.deleted:
        kind = "re-create after update" if key in study.updated else "re-create"
    study.add(key, header)
    return Event(moment, "Create", kind, (key,), headers=(header,), values=values, padded=random.random() < 0.03)


def _new_values(random: Random, before: Values) -> Values:
    """New values for some of the changeable attributes; now and then one that is empty."""
    texts = ("", f"{random.randrange(10**6)}", f"Müller^{random.randrange(10**6)}", "O'Neill & <Söhne>+")
    changed = [random.choice(texts) if random.random() < 0.5 else value for value in before]
    changed[random.randrange(len(CHANGEABLE))] = f"Doe^{random.randrange(10**9)}"
    return tuple(changed)


def _numbered(random: Random, events: list[Event], first: int) -> list[Event]:
    """The events by commit, with sequences in the order in which they were taken, and gaps between some."""
    # sorted() is stable, and a history's events were made in their order.
    sequences: dict[int, tuple[int, ...]] = {}
    following = first
    for place in sorted(range(len(events)), key=lambda place: events[place].moment.numbered):
        if random.random() < 0.03:
            following += random.randint(1, 20)
        taken = len(events[place].keys)
        sequences[place] = tuple(range(following, following + taken))
        following += taken
    numbered = [replace(event, sequences=sequences[place]) for place, event in enumerate(events)]
    return sorted(numbered, key=lambda event: event.moment.commit)


def _play(service: DicomService, event: Event, headers: Sequence[Header]) -> None:
    ticks, (key, *_) = event.moment.ticks, event.keys
    if event.action == "Delete":
        series = None if event.level == "study" else key.series
        sop = key.sop if event.level == "instance" else None
        service.delete(key.partition, key.study, series, sop, at_ticks=ticks, sequences=event.sequences)
        return
    documents = [headers[at].metadata(key, event.values) for at, key in zip(event.headers, event.keys, strict=True)]
    if event.action == "Update":
        changed = [(key, document, None) for key, document in zip(event.keys, documents, strict=True)]
        service.update_together(changed, at_ticks=ticks, sequences=event.sequences)
        return
    padded = (f"{key.study} ", f"{key.series} ", f"{key.sop} ") if event.padded else None
    service.create(key, documents[0], at_ticks=ticks, sequence=event.sequences[0], uids=padded)


def _crossings(rows: Sequence[tuple[Event, InstanceKey, int]]) -> Counter[str]:
    """Ties between histories, neighbours in time whose sequences are crossed, numbers that are missing."""
    in_time = sorted((event.moment.ticks, number, event.history) for event, _, number in rows)
    pairs = list(itertools.pairwise(in_time))
    numbers = sorted(number for _, _, number in rows)
    sops = Counter((key.partition, key.study, key.sop, key.series) for _, key, _ in rows)
    return Counter(
        {
            "tie": sum(one[0] == two[0] and one[2] != two[2] for one, two in pairs),
            "crossed": sum(one[0] < two[0] and one[1] > two[1] for one, two in pairs),
            "gap": sum(two - one > 1 for one, two in itertools.pairwise(numbers)),
            "same SOP in two series": len(sops) - len({key[:3] for key in sops}),
            "same UIDs in two partitions": len(sops) - len({key[1:] for key in sops}),
        }
    )


def _digits(ticks: int) -> int:
    fraction = timestamp_text(ticks)[19:-6]
    return max(0, len(fraction) - 1)
