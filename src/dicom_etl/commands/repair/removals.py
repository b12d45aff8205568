"""How many rows a repair will remove, and the bound beyond which somebody has to ask for it.

design/architecture.md: Comparison and repair.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pyspark.sql import DataFrame

from dicom_etl.core.attributes import INSTANCE_KEY, SERIES_KEY, STUDY_KEY
from dicom_etl.core.errors import DataError
from dicom_etl.tables import differences

log = logging.getLogger(__name__)

# A repair that removes no more than this needs no permission: a study or two that were deleted.
MOST_ROWS = 1_000
_SHARE = 100


@dataclass(frozen=True, slots=True)
class Removal:
    """How many of the ``rows`` of a table will be removed; ``emptied``: no row will be there after it."""

    table: str
    removed: int
    rows: int
    emptied: bool = False

    @property
    def large(self) -> bool:
        """Whether it is more than ``MOST_ROWS`` and more than 1 % of the table, or all of it."""
        return self.removed > 0 and (self.emptied or (self.removed > MOST_ROWS and self.removed * _SHARE > self.rows))


def planned_removals(
    before: Mapping[str, DataFrame], lost: DataFrame, after: DataFrame, *, single: bool = False
) -> list[Removal]:
    """For each table that is there ``before`` the rows that it will lose.

    ``lost`` are the instances that will go, ``after`` the keys of all that will be there; ``single``: a key that
    stands in several rows will have one.
    """
    emptied = after.isEmpty()
    removals = []
    for table, rows in before.items():
        count = rows.count()
        if table == "instance":
            kept = differences.without(rows, lost)
            removed = count - (kept.select(*INSTANCE_KEY).distinct() if single else kept).count()
        else:
            removed = _vanishing(rows, after, SERIES_KEY if table == "series" else STUDY_KEY).count()
        removals.append(Removal(table, removed, count, emptied))
    return removals


def _vanishing(rows: DataFrame, after: DataFrame, key: tuple[str, ...]) -> DataFrame:
    return rows.select(*key).distinct().join(after.select(*key), on=list(key), how="left_anti")


def check_removals(removals: Iterable[Removal], allowed: int | None, *, run_id: int) -> None:
    """Log what each table will lose. Raises DataError when one loses many rows, and more than are ``allowed``."""
    for one in removals:
        log.info(
            "rows to remove", extra={"run_id": run_id, "table": one.table, "removed": one.removed, "rows": one.rows}
        )
    large = [one for one in removals if one.large and (allowed is None or one.removed > allowed)]
    if large:
        most = max(one.removed for one in large)
        lines = ", ".join(f"{one.removed} of {one.rows} rows of {one.table}" for one in large)
        raise DataError(
            f"repair would remove {lines}; nothing was written. See that dicom.base_url is the right service and that "
            f"it is whole; if these rows are to go, run it with --allow-removals {most}"
        )
