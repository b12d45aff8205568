"""Sequence numbers in bits: the same as a set of them, in a fraction of the memory."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from dicom_etl.lake.sequence_set import SequenceSet

numbers = st.lists(st.one_of(st.integers(0, 2_000), st.integers(0, 2**63 - 1)))


@given(numbers, numbers)
def test_it_holds_what_a_set_holds(added: list[int], asked: list[int]) -> None:
    """Membership, count, intersection, and whether a number was new, for dense and for scattered numbers."""
    ours, theirs = SequenceSet(), set[int]()
    for number in added:
        assert ours.add(number) == (number not in theirs)
        theirs.add(number)
    assert len(ours) == len(theirs)
    assert all((number in ours) == (number in theirs) for number in asked)
    assert ours.intersection(asked) == theirs.intersection(asked)


def test_dense_numbers_take_less_than_a_byte_each() -> None:
    """A million of them; a set takes 33 bytes for each, and 28 for the number."""
    ours = SequenceSet()
    for number in range(5_000_000, 6_000_000):
        ours.add(number)
    masks = ours._masks
    size = sys.getsizeof(masks) + sum(sys.getsizeof(key) + sys.getsizeof(mask) for key, mask in masks.items())
    assert len(ours) == 1_000_000
    assert size < 1_000_000
