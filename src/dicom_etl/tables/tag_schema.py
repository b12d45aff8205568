"""The columns of the tag tables, made from the tags that were chosen (design/outputs.md: Columns)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pyspark.sql.types import (
    DataType,
    DateType,
    DoubleType,
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from dicom_etl.core.attributes import INSTANCE_KEY, SERIES_KEY, STUDY_KEY, Level
from dicom_etl.lake.column_facts import comment_of
from dicom_etl.tables.schema import Table

Kind = Literal["string", "long", "double", "date", "timestamp"]

_TYPES: Mapping[str, DataType] = {
    "string": StringType(),
    "long": LongType(),
    "double": DoubleType(),
    "date": DateType(),
    "timestamp": TimestampType(),
}
# Beside the key and the tags.
INSTANCE_COLUMNS: Mapping[str, Kind] = {
    "lastModifiedTimestamp": "timestamp",
    "sequence": "long",
    "createdSequence": "long",
    "headerState": "string",
    "headerQuality": "string",
}
SERIES_COLUMNS: Mapping[str, Kind] = {"lastModifiedTimestamp": "timestamp", "instanceCount": "long"}
STUDY_COLUMNS: Mapping[str, Kind] = {
    **SERIES_COLUMNS,
    "settledAt": "timestamp",
    "reopened": "long",
    "expectedInstances": "long",
    "missingNumbers": "long",
}


@dataclass(frozen=True, slots=True)
class TagColumn:
    """One chosen tag as a column: its name, its type, the highest table that has it, and the tag's path.

    The path identifies it, whatever its name; the column's comment says it.
    """

    name: str
    kind: Kind
    level: Level
    path: str

    @property
    def count_name(self) -> str:
        """The column beside it in `series_tags` and `study_tags`: how many distinct values the instances have."""
        return f"{self.name}_values"

    @property
    def type(self) -> DataType:
        return _TYPES[self.kind]


@dataclass(frozen=True, slots=True)
class TagTables:
    """The three tables for some chosen tags; ``series_tags`` and ``study_tags`` have those of their level and above."""

    columns: tuple[TagColumn, ...]

    @property
    def series_level(self) -> tuple[TagColumn, ...]:
        return tuple(one for one in self.columns if one.level != "instance")

    @property
    def study_level(self) -> tuple[TagColumn, ...]:
        return tuple(one for one in self.columns if one.level == "study")

    def of(self, path: str) -> TagColumn:
        """The column of a tag that the tables have, whatever its name; all have those of the set `imaging`."""
        return {one.path: one for one in self.columns}[path]

    @property
    def instance(self) -> Table:
        """Key: that of `instance`; one row a living instance."""
        return _table("instance_tags", INSTANCE_KEY, INSTANCE_COLUMNS, map(_plain, self.columns))

    @property
    def series(self) -> Table:
        """Key: that of `series`; one row a series with living instances."""
        return _table("series_tags", SERIES_KEY, SERIES_COLUMNS, _counted(self.series_level))

    @property
    def study(self) -> Table:
        """Key: that of `study`; one row a study with living instances."""
        return _table("study_tags", STUDY_KEY, STUDY_COLUMNS, _counted(self.study_level))


def answer_columns(table: Table, asked: str) -> StructType:
    """The columns of an answer of the service: the key, what `instance_tags` has of a header, and ``asked`` (long)."""
    own = ("lastModifiedTimestamp", "sequence", "createdSequence")
    fields = [StructField(field.name, field.dataType) for field in table.columns.fields if field.name not in own]
    return StructType([*fields, StructField(asked, LongType())])


def _table(name: str, key: tuple[str, ...], own: Mapping[str, Kind], tags: Iterable[StructField]) -> Table:
    fixed = {**dict.fromkeys(key, "string"), **own}
    described = [StructField(one, _TYPES[kind], True, dict(comment_of(name, one))) for one, kind in fixed.items()]
    return Table(name, key, StructType([*described, *tags]))


def _plain(column: TagColumn) -> StructField:
    return StructField(column.name, column.type, True, {"comment": column.path})


def _counted(columns: Sequence[TagColumn]) -> list[StructField]:
    fields = []
    for one in columns:
        text = f"How many distinct values {one.name} has among the living instances"
        fields += [_plain(one), StructField(one.count_name, LongType(), True, {"comment": text})]
    return fields
