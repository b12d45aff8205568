"""How many rows a repair will remove, and the bound beyond which somebody has to ask for it.

design/architecture.md: Comparison and repair.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pyspark.sql import DataFrame

from dicom_etl.core.attributes import SERIES_KEY, STUDY_KEY
from dicom_etl.core.errors import DataError

log = logging.getLogger(__name__)

# A repair that removes no more than this needs no permission: a study or two that were deleted.
MOST_ROWS = 1_000
_SHARE = 100


@dataclass(frozen=True, slots=True)
class Removal:
    """How many of the ``rows`` of a table will be removed."""

    table: str
    removed: int
    rows: int

    @property
    def large(self) -> bool:
        """Whether it is more than ``MOST_ROWS`` and more than 1 % of the table."""
        return self.removed > MOST_ROWS and self.removed * _SHARE > self.rows


def planned_removals(before: Mapping[str, DataFrame], lost: DataFrame, after: DataFrame) -> list[Removal]:
    """For each table that is there ``before`` the rows that it will lose.

    ``lost`` are the instances that will go, ``after`` the keys of all that will be there.
    """
    removals = []
    for table, rows in before.items():
        gone = lost if table == "instance" else _vanishing(rows, after, SERIES_KEY if table == "series" else STUDY_KEY)
        removals.append(Removal(table, gone.count(), rows.count()))
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
