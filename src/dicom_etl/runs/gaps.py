"""Which sequence numbers may be rows that became visible late: pure arithmetic on numbers (architecture §5.10)."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from dicom_etl.window import TICKS_PER_SECOND, Window

DAY = 24 * 3600 * TICKS_PER_SECOND
# The v1 feed serves ranges of at most this many numbers.
SPAN = 100
LARGEST = 2**63 - 1
# Requests a run: rollbacks and identity jumps leave gaps that nothing will ever fill.
MOST_NEAR = 100
MOST_INNER = 20
# What a turn holds of the pieces beyond the bound, on average: less than the half, so that it seldom overflows.
_PER_TURN = 40
_NUMBERS_ABOVE = 3 * SPAN


@dataclass(frozen=True, slots=True, order=True)
class Numbers:
    """The sequence numbers ``first`` to ``last``, both included."""

    first: int
    last: int


def young_since(covered: Sequence[Window], now: int) -> int:
    """Gaps below an entry that is later than this instant (ticks) are probed; older ones are void.

    A day before the end of what is ``covered`` (in order), not simply a day before ``now``: after a weekend without
    runs, the gaps of the last day that was read get their probe all the same.
    """
    return min([now, *(window.end for window in covered[-1:])]) - DAY


def missing(known: pa.Table, since: int) -> list[Numbers]:
    """The gaps between known numbers whose upper neighbour is later than ``since``, in order.

    ``known``: one or more rows a number, ``sequence`` and ``timestampTicks``, in any order. Below the lowest of
    all a few numbers are taken as missing when it is young: the first row of a feed may be late, too.
    """
    if not known.num_rows:
        return []
    rows = known.sort_by("sequence").combine_chunks()
    upper, ticks = (rows[name].combine_chunks() for name in ("sequence", "timestampTicks"))
    lowest = pa.array([max(0, upper[0].as_py() - SPAN - 1)], pa.int64())
    lower = pa.concat_arrays([lowest, upper.slice(0, len(upper) - 1)])
    wanted = pc.and_(pc.greater(pc.subtract(upper, lower), 1), pc.greater(ticks, since))
    lower, upper = lower.filter(wanted).to_pylist(), upper.filter(wanted).to_pylist()
    return [Numbers(below + 1, above - 1) for below, above in zip(lower, upper, strict=True)]


def above(highest: int | None, latest: int) -> list[Numbers]:
    """Of the numbers above the highest known one, up to the largest of all: the next few hundred, and the last.

    Most of them belong to windows to come; read by these, they become the neighbours of what is missing between.
    ``highest`` is None when no number is known.
    """
    last = Numbers(max(latest - SPAN, highest or 0) + 1, latest)
    if highest is None:
        return [last]
    if latest <= highest:
        return []
    return [Numbers(highest + 1, min(highest + _NUMBERS_ABOVE, latest)), last]


def above_all(highest: int | None) -> Numbers:
    """Every number above the highest known one."""
    return Numbers((highest or 0) + 1, LARGEST)


def contains(gaps: Sequence[Numbers], number: int) -> bool:
    """Whether the number is in one of the gaps, which stand in the order of their first numbers.

    Where two of them overlap, the later one reaches as far or farther.
    """
    place = bisect_right(gaps, number, key=lambda gap: gap.first)
    return place > 0 and number <= gaps[place - 1].last


def probes(gaps: Iterable[Numbers], turn: int) -> list[Numbers]:
    """The ranges to ask for, each at most SPAN numbers, highest first; near gaps share one.

    At most MOST_NEAR that hold small gaps and the ends of wide ones, and MOST_INNER from the inside of wide ones,
    so that a jump of the identity neither starves the others nor costs more. Where there are more, the highest,
    which are the youngest, come always, and each of the others when it is its ``turn``, a number that grows from
    run to run.
    """
    near: dict[int, Numbers] = {}
    inside: list[range] = []
    for gap in gaps:
        first, last = _piece(gap.first), _piece(gap.last)
        for piece in {first, min(first + 1, last), max(first, last - 1), last}:
            part = _within(piece, gap)
            other = near.get(piece, part)
            near[piece] = Numbers(min(part.first, other.first), max(part.last, other.last))
        inside.append(range(first + 2, last - 1))
    chosen = [near[piece] for piece in _in_turn(sorted(near, reverse=True), turn)]
    chosen += [Numbers(piece * SPAN + 1, (piece + 1) * SPAN) for piece in _some_inside(inside, turn)]
    return sorted(chosen, reverse=True)


def _piece(number: int) -> int:
    """Which piece of the grid a number lies in: so that near gaps share one, whatever comes and goes beside them."""
    return (number - 1) // SPAN


def _within(piece: int, gap: Numbers) -> Numbers:
    return Numbers(max(gap.first, piece * SPAN + 1), min(gap.last, (piece + 1) * SPAN))


def _in_turn(pieces: list[int], turn: int) -> list[int]:
    """The first half of what is allowed always, and of the rest those whose turn it is."""
    if len(pieces) <= MOST_NEAR:
        return pieces
    half = MOST_NEAR // 2
    always, rest = pieces[:half], pieces[half:]
    turns = -(-len(rest) // _PER_TURN)
    # By a hash of the piece, not by its place in the list: as old gaps fall out and new ones come in, places move.
    due = [piece for piece in rest if zlib.crc32(b"%d" % piece) % turns == turn % turns]
    return always + due[: MOST_NEAR - half]


def _some_inside(inside: list[range], turn: int) -> list[int]:
    """Some pieces of the wide gaps, one after the other from turn to turn; a gap may hold millions."""
    total = sum(len(pieces) for pieces in inside)
    places = {(turn * MOST_INNER + step) % total for step in range(min(MOST_INNER, total))}
    found: list[int] = []
    before = 0
    for pieces in inside:
        found += [pieces[place - before] for place in places if before <= place < before + len(pieces)]
        before += len(pieces)
    return found
