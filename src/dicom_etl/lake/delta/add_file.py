"""A Parquet file that is to become part of a table, and what Delta's log says of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

Bound = int | str | None
"""A minimum or maximum as the log writes it; null when the column has no value."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What Delta's log says of a file: its rows, and bounds and nulls of the columns that may have them."""

    rows: int
    minimums: Mapping[str, Bound]
    maximums: Mapping[str, Bound]
    null_counts: Mapping[str, int]

    @classmethod
    def of(cls, rows: pa.Table | pa.RecordBatch, columns: Sequence[str]) -> Statistics:
        bounds = {name: pc.min_max(rows[name]).as_py() for name in columns}
        return cls(
            rows.num_rows,
            {name: _json_value(bound["min"], up=False) for name, bound in bounds.items()},
            {name: _json_value(bound["max"], up=True) for name, bound in bounds.items()},
            {name: rows[name].null_count for name in columns},
        )

    def __or__(self, other: Statistics) -> Statistics:
        """Of both files' rows together."""
        return Statistics(
            self.rows + other.rows,
            {name: _extreme(min, self.minimums[name], other.minimums[name]) for name in self.minimums},
            {name: _extreme(max, self.maximums[name], other.maximums[name]) for name in self.maximums},
            {name: count + other.null_counts[name] for name, count in self.null_counts.items()},
        )

    def json(self) -> str:
        return json.dumps(
            {
                "numRecords": self.rows,
                "minValues": {name: value for name, value in self.minimums.items() if value is not None},
                "maxValues": {name: value for name, value in self.maximums.items() if value is not None},
                "nullCount": dict(self.null_counts),
            }
        )


@dataclass(frozen=True, slots=True)
class AddFile:
    """A Parquet file that stands in the table's folder and is not part of the table yet.

    ``path`` is relative to the table, ``modified_ms`` counts milliseconds since 1970.
    """

    path: str
    size_bytes: int
    modified_ms: int
    statistics: Statistics

    @property
    def rows(self) -> int:
        return self.statistics.rows


def _extreme(choose: Callable[..., Any], one: Bound, other: Bound) -> Bound:
    known = [value for value in (one, other) if value is not None]
    return cast(Bound, choose(known)) if known else None


def _json_value(value: Any, *, up: bool) -> Bound:
    """As Delta's log writes it; timestamps hold milliseconds there, so that bounds are widened to them."""
    if isinstance(value, datetime):
        rest = value.microsecond % 1000
        shown = value - timedelta(microseconds=rest) + timedelta(milliseconds=1 if up and rest else 0)
        return shown.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    return cast(Bound, value)
