"""The bound on what a repair removes without being asked to."""

from __future__ import annotations

import pytest

from dicom_etl.commands.repair.removals import Removal, check_removals
from dicom_etl.core.errors import DataError


@pytest.mark.parametrize(
    ("removed", "rows", "allowed", "passes"),
    [
        (1_000, 1_000, None, True),
        (1_001, 100_100, None, True),
        (1_001, 100_099, None, False),
        (1_001, 1_001, 1_000, False),
        (1_001, 1_001, 1_001, True),
        (0, 0, None, True),
    ],
)
def test_more_than_1000_rows_and_1_percent_must_be_allowed(
    removed: int, rows: int, allowed: int | None, passes: bool
) -> None:
    """Both bounds must be exceeded; the number that is allowed counts for each table."""
    removals = [Removal("study", 0, 1, emptied=True), Removal("instance", removed, rows)]
    if passes:
        check_removals(removals, allowed, run_id=1)
        return
    with pytest.raises(
        DataError, match=rf"{removed} of {rows} rows of instance; nothing .* --allow-removals {removed}"
    ):
        check_removals(removals, allowed, run_id=1)


def test_a_table_is_not_emptied_without_being_asked() -> None:
    """A small one neither: another service may stand at the address."""
    with pytest.raises(DataError, match="3 of 3 rows of instance; nothing was written"):
        check_removals([Removal("instance", 3, 3, emptied=True)], None, run_id=1)
    check_removals([Removal("instance", 3, 3, emptied=True)], 3, run_id=1)
