"""Which tags are wanted: the set `imaging`, those of the settings, and those that `columns add` keeps in the lake."""

from __future__ import annotations

import json
from collections.abc import Sequence

from deltalake import CommitProperties, DeltaTable

from dicom_etl.core.errors import AnotherWriter, ConfigurationError, DataError, UsageError
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake.delta.errors import FAILURES, storage_error, storage_errors
from dicom_etl.lake.delta.folder import protect_log
from dicom_etl.lake.delta.table import properties
from dicom_etl.outputs.columns.design import ColumnDesign, column_of, design_of, keep_names

# A property of the table `output`: the tags that were added by command, in their order.
ADDED = "dicomEtl.columns.added"
_CHANGED = "another dicom-etl columns command chose tags just now, and nothing was changed; run again"


def added_tags(executions: DeltaTable | None) -> tuple[str, ...]:
    """The tags that were added by command, as they were written. Raises DataError when the property is not ours."""
    if executions is None:
        return ()
    try:
        tags = json.loads(properties(executions).get(ADDED, "[]"))
    except ValueError as error:
        raise DataError(f"the table output: its property {ADDED} is not a list of tags") from error
    return tuple(str(tag) for tag in tags)


def keep_added(executions: DeltaTable, before: Sequence[str], tags: Sequence[str]) -> None:
    """Write the list into the lake, in place of the one that was read ``before``.

    Raises AnotherWriter where that is not the list any more: another command has changed it. StorageError or
    AccessDenied when the storage fails.
    """
    if added_tags(executions) != tuple(before):
        raise AnotherWriter(_CHANGED)
    try:
        executions.alter.set_table_properties(
            {ADDED: json.dumps(list(tags))},
            raise_if_not_exists=False,  # it knows Delta's own properties alone
            commit_properties=CommitProperties(max_commit_retries=5),
        )
    except FAILURES as error:
        _settle(executions, before, tags, error)
    protect_log(executions, executions.version())


def _settle(executions: DeltaTable, before: Sequence[str], tags: Sequence[str], error: Exception) -> None:
    """Returns where the list was written all the same; else raises what came between, or what the storage says."""
    with storage_errors("output"):
        executions.update_incremental()
    now = added_tags(executions)
    if now == tuple(before):
        raise storage_error(error, "output", writing=True) from error
    if now != tuple(tags):
        raise AnotherWriter(_CHANGED) from error


def wanted_design(settings: Settings, added: Sequence[str], stored: ColumnDesign | None) -> ColumnDesign:
    """The design that the tables are to have; what is written keeps its name.

    A tag of the settings that was added by command, too, is one column. Raises ConfigurationError, which names
    ``columns.tags``, for a tag that cannot be one.
    """
    try:
        configured = [column_of(text) for text in settings.columns.tags]
        paths = {column.path for column in configured}
        # What was added has been checked then: it had to be asked for where it identifies a patient.
        base = design_of(configured, identifying=settings.columns.identifying)
        others = [column for column in map(column_of, added) if column.path not in paths]
        design = design_of([*base.columns, *others], identifying=True, imaging=False)
        return design if stored is None else keep_names(stored, design)
    except UsageError as error:
        raise ConfigurationError(f"columns.tags: {error}") from error
