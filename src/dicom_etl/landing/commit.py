"""The one commit that makes a landing part of ``change`` (design/architecture.md: Landing, Fencing)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from deltalake import DeltaTable

from dicom_etl.core.errors import Superseded
from dicom_etl.lake.change_schema import change_schema
from dicom_etl.lake.delta.commit import commit_files
from dicom_etl.lake.delta.errors import FAILURES
from dicom_etl.landing.landing import Landed


def commit_change(table: DeltaTable, landed: Landed, *, app_id: str, run_id: int, details: Mapping[str, str]) -> int:
    """The version of ``change`` that holds what was landed: all of it, by one commit.

    A landing without entries commits nothing, and the version that ``table`` has comes back. Raises as
    ``commit_files`` does; when this run was superseded its files are removed.
    """
    if not landed.files:
        return table.version()
    try:
        return commit_files(table, landed.files, app_id=app_id, run_id=run_id, details=details, schema=change_schema())
    except Superseded as error:
        # Only then it is certain that no version names them; what else stays behind is vacuum's.
        for file in () if error.committed else landed.files:
            with contextlib.suppress(*FAILURES):
                landed.folder.remove(file.path)
        raise
