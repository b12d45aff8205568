"""Chooses the tags that get a column: adds one, removes one, lists them. No JVM is started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dicom_etl.commands.columns.wanted import added_tags, keep_added, wanted_design
from dicom_etl.core.errors import UsageError
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake.open import existing_lake
from dicom_etl.outputs.columns.design import Column, ColumnDesign, column_of, design_of, imaging_columns
from dicom_etl.outputs.execution import made_executions, open_executions
from dicom_etl.outputs.stored_tags import stored_tags

Source = Literal["imaging", "settings", "added"]
State = Literal["filled", "pending", "leaving"]


@dataclass(frozen=True, slots=True)
class ListedColumn:
    """A column that the tag tables have or are to have: who wants it, and whether the tables have it.

    ``pending``: `columns backfill` fills it. ``leaving``: nobody wants it any more, and a backfill removes it.
    """

    column: Column
    source: Source | None
    state: State

    def as_row(self) -> dict[str, Any]:
        """By name, as a command prints it."""
        column = self.column
        return {
            "column": column.name,
            "tag": column.path.text,
            "type": column.type,
            "level": column.level,
            "source": self.source,
            "state": self.state,
        }


def add(settings: Settings, tags: Sequence[str], *, identifying: bool = False) -> list[ListedColumn]:
    """The columns of these tags, as they are listed from now on; `columns backfill` fills them.

    A tag that is wanted already is listed and added no second time. Raises UsageError for a text that is no tag, or
    one that identifies a patient unless ``identifying``, AnotherWriter where another command chose tags at the same
    time; nothing is added then.
    """
    columns = [column_of(text) for text in tags]
    design_of(columns, identifying=identifying or settings.columns.identifying, imaging=False)
    lake = existing_lake(settings, private=False).lake
    # Written in place of what is read here: of two that add at once, the second is told.
    table = open_executions(lake)
    stored, before = stored_tags(lake).design, added_tags(table)
    wanted = {column.path for column in wanted_design(settings, before, stored).columns}
    new = [text for text, column in zip(tags, columns, strict=True) if column.path not in wanted]
    wanted_design(settings, [*before, *new], stored)  # refuses two columns of one name
    if new:
        keep_added(table or made_executions(lake), before, [*before, *new])
    paths = {column.path for column in columns}
    return [one for one in listed(settings) if one.column.path in paths]


def remove(settings: Settings, name: str) -> ListedColumn:
    """The column that nobody wants from now on; `columns backfill` takes it out of the tables.

    Raises UsageError when no column that was added has this name, AnotherWriter as ``add`` does.
    """
    lake = existing_lake(settings, private=False).lake
    found = next((one for one in listed(settings) if name in (one.column.name, one.column.path.text)), None)
    if found is None or found.source is None:
        raise UsageError(f"{name}: there is no such column: dicom-etl columns list shows them")
    if found.source == "settings":
        raise UsageError(f"{name}: take it out of columns.tags in the settings")
    if found.source == "imaging":
        raise UsageError(f"{name}: it belongs to the set imaging, which other outputs stand on, and stays")
    table = made_executions(lake)
    before = added_tags(table)
    keep_added(table, before, [tag for tag in before if column_of(tag).path != found.column.path])
    left = next((one for one in listed(settings) if one.column.path == found.column.path), None)
    return left or ListedColumn(found.column, None, "leaving")


def listed(settings: Settings) -> list[ListedColumn]:
    """Every column that the tag tables have or are to have, in the order of the tables."""
    lake = existing_lake(settings, private=False).lake
    stored, added = stored_tags(lake).design, added_tags(open_executions(lake))
    wanted = wanted_design(settings, added, stored)
    filled = set() if stored is None else {column.path for column in stored.columns}
    sources = _sources(settings, wanted)
    rows = [
        ListedColumn(column, sources[column.path], "filled" if column.path in filled else "pending")
        for column in wanted.columns
    ]
    leaving = [] if stored is None else [column for column in stored.columns if column.path not in sources]
    return rows + [ListedColumn(column, None, "leaving") for column in leaving]


def _sources(settings: Settings, wanted: ColumnDesign) -> dict[Any, Source]:
    imaging = {column.path for column in imaging_columns()}
    configured = {column_of(text).path for text in settings.columns.tags}
    return {
        column.path: "imaging" if column.path in imaging else "settings" if column.path in configured else "added"
        for column in wanted.columns
    }
