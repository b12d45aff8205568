"""The one commit that makes a landing part of ``change`` (architecture §2, §5.2)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from deltalake import DeltaTable

from dicom_etl.deltalog import FAILURES, commit_files
from dicom_etl.errors import Superseded
from dicom_etl.landing.files import Landed
from dicom_etl.landing.schema import change_schema


def commit_change(table: DeltaTable, landed: Landed, *, app_id: str, run_id: int, details: Mapping[str, str]) -> int:
    """The version of ``change`` that holds what was landed: all of it, by one commit.

    A landing without entries commits nothing, and the version that ``table`` has comes back. Raises as
    ``deltalog.commit_files`` does; when this run was superseded its files are removed.
    """
    if not landed.files:
        return table.version()
    try:
        return commit_files(table, landed.files, app_id=app_id, run_id=run_id, details=details, schema=change_schema())
    except Superseded:
        # Only then it is certain that no version names them; what else stays behind is vacuum's.
        for file in landed.files:
            with contextlib.suppress(*FAILURES):
                landed.folder.remove(file.path)
        raise
