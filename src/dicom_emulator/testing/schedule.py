"""When the events of one history happen: their timestamps, and when their rows are numbered and visible."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from dicom_emulator.state.timestamps import TICKS_PER_SECOND

_MINUTE = 60 * TICKS_PER_SECOND


@dataclass(frozen=True)
class Frame:
    """The time that histories fill, in ticks: [start, start + span), in windows of `window` from 1970 on.

    A row is visible less than `delay` after its timestamp.
    """

    start: int
    span: int
    window: int
    delay: int


@dataclass(frozen=True, slots=True)
class Moment:
    """`ticks` is the timestamp, `numbered` when the sequence is taken, `commit` when the rows become visible."""

    ticks: int
    numbered: int
    commit: int


def first_moment(random: Random, frame: Frame) -> Moment | None:
    """The moment of a history's first event; None when it fell behind the end."""
    ticks = _shaped(random, frame, frame.start + random.randrange(frame.span), frame.start)
    return _moment(random, frame, ticks, ticks)


def next_moment(random: Random, frame: Frame, before: Moment) -> Moment | None:
    """A moment that is not earlier, and numbered and visible not before that one; None behind the end.

    So within a history time, sequence and visibility agree; between histories they cross.
    """
    dice = random.random()
    if dice < 0.1:
        gap = 0
    elif dice < 0.4:
        gap = random.randrange(TICKS_PER_SECOND)
    elif dice < 0.8:
        gap = random.randrange(frame.window)
    else:
        gap = random.randrange(max(frame.window, frame.span // 4))
    ticks = before.ticks if gap == 0 else _shaped(random, frame, before.ticks + gap, before.ticks)
    return _moment(random, frame, ticks, before.commit)


def _shaped(random: Random, frame: Frame, ticks: int, least: int) -> int:
    """About that time: now and then an edge of a window, the instant before it, or one that many share."""
    dice = random.random()
    if dice < 0.04:
        return _ceil(ticks, frame.window)
    if dice < 0.08:
        return max(least, _ceil(ticks + 1, frame.window) - 1)
    if dice < 0.18:
        return _ceil(ticks, 5 * _MINUTE) + random.randrange(3)
    # 0 to 7 fraction digits; and a last digit that is not 0, or there would be fewer.
    unit: int = 10 ** (7 - random.randrange(8))
    return _ceil(ticks, unit)


def _moment(random: Random, frame: Frame, ticks: int, since: int) -> Moment | None:
    if ticks >= frame.start + frame.span:
        return None
    late = 0
    if frame.delay and random.random() < 0.15:
        late = random.randrange(min(frame.delay, TICKS_PER_SECOND) if random.random() < 0.5 else frame.delay)
    earliest = max(ticks, since)
    commit = max(ticks + late, earliest)
    numbered = commit if random.random() < 0.5 else random.randint(earliest, commit)
    return Moment(ticks, numbered, commit)


def _ceil(ticks: int, unit: int) -> int:
    return -(-ticks // unit) * unit
