"""Literal ranges of study UIDs, by which a MERGE skips the files it cannot touch.

design/architecture.md: File skipping.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce

from pyspark.sql import Column
from pyspark.sql import functions as F

# Delta prunes by OR of ranges, and by IN only with the list's minimum and maximum
# (design/spark.md: Merge and file skipping).
MOST_RANGES = 64


def study_ranges(studies: Iterable[str], most: int = MOST_RANGES) -> list[tuple[str, str]]:
    """At most ``most`` closed ranges (one at least), in order, that hold every given study UID.

    Ordered as Delta orders strings: by UTF-8 bytes, which is the order of code points.
    """
    ordered = sorted(set(studies))
    size = -(-len(ordered) // max(most, 1)) or 1
    return [(chunk[0], chunk[-1]) for chunk in (ordered[i : i + size] for i in range(0, len(ordered), size))]


def within(column: Column, ranges: list[tuple[str, str]]) -> Column:
    """Whether ``column`` lies in one of the ranges; false for no ranges at all."""
    return reduce(
        lambda either, bounds: either | column.between(F.lit(bounds[0]), F.lit(bounds[1])),
        ranges,
        F.lit(False),
    )
