"""The values of one row by column, whichever library the row comes from; no library is imported for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from dicom_etl.core.errors import UsageError


def row_values(row: Any, columns: Sequence[str]) -> dict[str, Any]:
    """The values of the named columns: a dict from column to value.

    Takes a Spark Row, a dict, a row of pandas (a Series, or a namedtuple of ``itertuples``), an Arrow scalar, a frame
    of pandas, Polars or Arrow that has one row, and all else that gives a value by a column's name. Raises UsageError
    that names the columns that are missing, or says why this is not one row.
    """
    by_name = _one_of(row)
    values: dict[str, Any] = {}
    for column in columns:
        try:
            values[column] = by_name[column]
        except (LookupError, ValueError, TypeError, AttributeError):  # Arrow: KeyError; a Row without names: others
            continue
    if lacking := [column for column in columns if column not in values]:
        noun, them = ("column", "it") if len(lacking) == 1 else ("columns", "them")
        raise UsageError(f"open_instance: the row lacks the {noun} {', '.join(lacking)}: select {them}, too")
    return {column: value.as_py() if hasattr(value, "as_py") else value for column, value in values.items()}


def _one_of(row: Any) -> Any:
    """What gives the row's values by name: the row itself, or the only row of a frame."""
    _refuse_no_row(row)
    if isinstance(row, Mapping):
        return row
    if hasattr(row, "to_dicts"):  # a frame of Polars
        return _only(row).to_dicts()[0]
    if hasattr(row, "to_pylist"):  # a table or a record batch of Arrow
        return _only(row).to_pylist()[0]
    if getattr(row, "ndim", 0) == 2 and hasattr(row, "iloc"):  # a frame of pandas
        return _only(row).iloc[0]
    if hasattr(row, "_asdict"):
        return row._asdict()
    return row


def _refuse_no_row(row: Any) -> None:
    """Raise UsageError for what is easily given in place of a row."""
    if isinstance(row, str | bytes | PathLike):
        raise UsageError("open_instance: give the row of the table instance, not the path of its file")
    if callable(getattr(type(row), "collect", None)):  # a LazyFrame of Polars, a DataFrame of Spark
        raise UsageError("open_instance: this frame is not computed yet: collect() it first, and give one row")
    if type(row) not in (tuple, list):
        return
    if len(row) == 2 and hasattr(row[1], "iloc"):
        raise UsageError("open_instance: iterrows() gives pairs of index and row: take [1] of the pair")
    raise UsageError(
        "open_instance: a plain tuple has no names of columns: give a dict (in Polars: row(0, named=True))"
    )


def _only(frame: Any) -> Any:
    if len(frame) != 1:
        raise UsageError(f"open_instance: it opens one row, and this frame has {len(frame)}: give one of them")
    return frame
