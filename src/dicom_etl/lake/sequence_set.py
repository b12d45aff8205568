"""A set of sequence numbers that takes a bit for each of those that lie close together."""

from __future__ import annotations

from collections.abc import Iterable

_BITS = 9


class SequenceSet:
    """Numbers that were added, each once.

    The service counts its entries up, so that a run meets dense ranges: 10^7 of them take 3 MB here, and 900 MB in a
    set. Numbers that lie far apart take as much as in a set, twice over.
    """

    def __init__(self) -> None:
        self._masks: dict[int, int] = {}
        self._count = 0

    def add(self, number: int) -> bool:
        """Add the number; whether it is new."""
        index, bit = number >> _BITS, 1 << (number & ((1 << _BITS) - 1))
        mask = self._masks.get(index, 0)
        if mask & bit:
            return False
        self._masks[index] = mask | bit
        self._count += 1
        return True

    def __contains__(self, number: int) -> bool:
        return bool(self._masks.get(number >> _BITS, 0) >> (number & ((1 << _BITS) - 1)) & 1)

    def __len__(self) -> int:
        return self._count

    def intersection(self, numbers: Iterable[int]) -> set[int]:
        """Those of ``numbers`` that are in the set."""
        return {number for number in numbers if number in self}
