"""The columns that a table of tags has: what each is read from, its name, type and level; and their digest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import msgspec

from dicom_etl.core.attributes import Level
from dicom_etl.core.errors import DataError, UsageError
from dicom_etl.outputs.columns.levels import LEVELS, default_level
from dicom_etl.outputs.columns.naming import check_name, column_name
from dicom_etl.outputs.columns.profile import marks_of, why_identifying
from dicom_etl.outputs.columns.sets import IMAGING
from dicom_etl.outputs.columns.tagpath import TagPath, tag_path
from dicom_etl.outputs.columns.vr import CONVERSION, ColumnType

_OPTION: Final = re.compile(r"\s+(name|level)=(\S*)$")


@dataclass(frozen=True, slots=True)
class Column:
    """One column; ``level`` is the highest table that has it, as in ``core.attributes``."""

    name: str
    path: TagPath
    level: Level

    @property
    def type(self) -> ColumnType:
        return self.path.type

    @property
    def vr(self) -> str:
        return self.path.vr

    @property
    def identifying(self) -> bool:
        """Whether PS3.15 Table E.1-1 has one of its attributes."""
        return bool(marks_of(self.path))


@dataclass(frozen=True)
class ColumnDesign:
    """Columns in their order, with distinct names, whatever the case. Raises UsageError for two of one name."""

    columns: tuple[Column, ...]

    def __post_init__(self) -> None:
        names: dict[str, Column] = {}
        for column in self.columns:
            other = names.setdefault(check_name(column.name).lower(), column)
            if other is not column:
                raise UsageError(_clash(other, column))

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits that change with a name, path, type or level, their order, and the conversion."""
        lines = [f"{c.name}\t{c.path.text}\t{c.type}\t{c.level}" for c in self.columns]
        return hashlib.sha256("\n".join([f"conversion {CONVERSION}", *lines]).encode()).hexdigest()[:16]

    def at(self, level: Level) -> tuple[Column, ...]:
        """The columns of ``instance_tags``, ``series_tags`` or ``study_tags``."""
        return tuple(column for column in self.columns if LEVELS.index(column.level) >= LEVELS.index(level))

    def to_json(self) -> str:
        """For a table property; ``design_from_json`` reads it."""
        rows = [{"name": c.name, "tag": c.path.text, "type": c.type, "level": c.level} for c in self.columns]
        return msgspec.json.encode(rows).decode()


def column_of(text: str) -> Column:
    """The column of a text of the settings, ``TAG [name=NAME] [level=instance|series|study]``. Raises UsageError."""
    options: dict[str, str] = {}
    tag = text.strip()
    while found := _OPTION.search(tag):
        if found[1] in options:
            raise UsageError(f"{text}: {found[1]}= stands there twice")
        options[found[1]], tag = found[2], tag[: found.start()]
    path = tag_path(tag)
    level = options.get("level", default_level(path))
    if level not in LEVELS:
        raise UsageError(f"{text}: level={level}: choose from {', '.join(LEVELS)}")
    return Column(check_name(options.get("name") or column_name(path)), path, level)


def design_of(wanted: Iterable[str | Column], *, identifying: bool = False, imaging: bool = True) -> ColumnDesign:
    """The design of the wanted tags, behind the set ``imaging`` unless told otherwise.

    What the set has already is not repeated, but takes the name and level that it is given here. Raises UsageError for
    a tag that is wanted twice, for two columns of one name, and, unless ``identifying``, for tags of PS3.15 Table
    E.1-1; the set itself is exempt, since it goes where the seven attributes of `instance` are.
    """
    columns = {column.path: column for column in imaging_columns()} if imaging else {}
    built = dict(columns)
    asked: set[TagPath] = set()
    for one in wanted:
        column = one if isinstance(one, Column) else column_of(one)
        if column.path in asked:
            raise UsageError(f"{column.path.text} is wanted twice")
        if not identifying and column.path not in built and column.identifying:
            why = why_identifying(column.path)
            raise UsageError(f"{column.path.text}: {why}: add it with --identifying, or leave it out")
        asked.add(column.path)
        columns[column.path] = column
    return ColumnDesign(tuple(columns.values()))


def imaging_columns() -> tuple[Column, ...]:
    """The columns of the set ``imaging``, in its order."""
    return tuple(column_of(built.tag) for built in IMAGING)


def keep_names(written: ColumnDesign, wanted: ColumnDesign) -> ColumnDesign:
    """The wanted design with the names that the table has written, which stay as they are.

    Raises UsageError when a written name would be of another tag or type, or a written tag is given another name.
    """
    by_path = {column.path: column for column in written.columns}
    by_name = {column.name.lower(): column for column in written.columns}
    columns: list[Column] = []
    for column in wanted.columns:
        old = by_path.get(column.path)
        if old is not None and column.name not in (old.name, column_name(column.path)):
            raise UsageError(f"{column.path.text} is written as {old.name} already: `columns remove {old.name}` first")
        kept = replace(column, name=old.name) if old else column
        other = by_name.get(kept.name.lower())
        if other is not None and other.path != kept.path:
            raise UsageError(_clash(other, kept))
        columns.append(kept)
    return ColumnDesign(tuple(columns))


def design_from_json(text: str) -> ColumnDesign:
    """The design that ``to_json`` wrote. Raises DataError when it is none, or was made by other rules than ours."""
    try:
        rows = msgspec.json.decode(text, type=list[dict[str, str]])
        columns = [_written(row) for row in rows]
        return ColumnDesign(tuple(columns))
    except (msgspec.DecodeError, KeyError, UsageError) as error:
        raise DataError("the table's list of columns cannot be read: it was written by another version") from error


def _written(row: dict[str, Any]) -> Column:
    path = tag_path(row["tag"])
    if path.type != row["type"] or row["level"] not in LEVELS:
        raise UsageError(f"{row['tag']}: another type than ours")
    return Column(row["name"], path, row["level"])


def _clash(one: Column, other: Column) -> str:
    texts: Sequence[str] = (one.path.text, other.path.text)
    return f"{' and '.join(texts)} would both be column {one.name}: give one of them another by name="
