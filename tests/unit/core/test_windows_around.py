"""Few windows that hold given instants."""

from __future__ import annotations

import pytest

from dicom_etl.core.timerange import Window, windows_around


@pytest.mark.parametrize(
    ("instants", "most", "windows"),
    [
        ([], 3, []),
        ([5], 3, [(5, 6)]),
        ([5, 5, 9], 1, [(5, 10)]),
        ([1, 2, 10, 11, 50], 2, [(1, 12), (50, 51)]),
        ([50, 11, 10, 2, 1], 3, [(1, 3), (10, 12), (50, 51)]),
        ([1, 3, 5], 9, [(1, 2), (3, 4), (5, 6)]),
    ],
)
def test_few_windows_hold_every_instant(instants: list[int], most: int, windows: list[tuple[int, int]]) -> None:
    """The widest gaps are left out."""
    assert windows_around(instants, most) == [Window(start, end) for start, end in windows]
