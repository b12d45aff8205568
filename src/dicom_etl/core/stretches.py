"""Few windows that hold given instants: what a repair reads again.

Pure; design/architecture.md: Comparison and repair.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from dicom_etl.core.timerange import Window

# A request costs more than some rows read in vain.
MOST_STRETCHES = 256


def stretches_around(instants: Iterable[int], most: int = MOST_STRETCHES) -> list[Window]:
    """At most ``most`` disjoint windows, in order, that hold every instant (ticks), with the widest gaps left out."""
    ticks = sorted(set(instants))
    if not ticks:
        return []
    gaps = sorted(range(1, len(ticks)), key=lambda i: ticks[i] - ticks[i - 1], reverse=True)[: most - 1]
    edges = [0, *sorted(gaps), len(ticks)]
    return [Window(ticks[first], ticks[end - 1] + 1) for first, end in pairwise(edges)]
