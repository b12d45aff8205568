"""The ledger's row of a run that succeeded, and how its entries are accounted for.

design/architecture.md: Coverage and the ledger.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from dicom_etl.lake.coverage import coverage_end
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.landing.landing import Landed
from dicom_etl.run.land import Read
from dicom_etl.run.merge import RunResult
from dicom_etl.run.plan import RunPlan
from dicom_etl.run.roll_up import fitting_versions
from dicom_etl.run.write_session import WriteSession, row_origin
from dicom_etl.tables.merge import MergeResult


def record(
    session: WriteSession,
    plan: RunPlan,
    read: Read,
    outcome: RunResult | None,
    start_seconds: float = 0.0,
    completes: int | None = None,
) -> Run:
    """The row, written, of a run that has read the feed; without an ``outcome`` there was nothing to merge.

    ``completes`` is the newest of the runs that had left their roll-up to this one.
    """
    window = read.reading.window
    row = Run(
        run_id=session.run_id,
        verb=session.verb,
        status="succeeded",
        window_start=window.start,
        window_end=window.end,
        covered_until=coverage_end(window, plan.now, session.settings.feed.delay),
        started_at=plan.started_at,
        finished_at=session.now(),
        repeated=read.landed.repeated + read.reading.repeated,
        pages=read.reading.pages,
        retries=read.retries,
        start_seconds=start_seconds,
        fetch_seconds=read.fetch_seconds,
        land_seconds=read.land_seconds,
        completes=completes,
        **row_results(session.snapshot, read.landed, outcome),
        **row_origin(session.settings),
    )
    session.snapshot.record(row)
    return row


def record_verb(session: WriteSession, started: datetime) -> Run:
    """The row, written, of a verb that succeeded and reads nothing of the feed."""
    row = Run(
        run_id=session.run_id,
        verb=session.verb,
        status="succeeded",
        started_at=started,
        finished_at=session.now(),
        **fitting_versions(session.snapshot),
        **row_origin(session.settings),
    )
    session.snapshot.record(row)
    return row


def row_results(snapshot: LakeSnapshot, landed: Landed | None, outcome: RunResult | None) -> dict[str, Any]:
    """What became of the entries, how long the merging took, and the tables' versions.

    The versions are the commits' own answers; of a table that this run did not commit to, that of the claim: whatever
    an overtaken or a newer run has written since need not fit the others.

    Superseded are the entries that changed nothing: not the last of their key, Replaced, refused by the guard, equal
    to the stored row, nothing to remove, or a closed reject. The fold has counted the entries, so that none is
    missing among them; a test classifies every entry by itself and compares. Rows that were changed beyond one for
    each key (which only a repair lets pass) count as read, and so does each row that a repair removes without an entry.
    """
    merged = outcome.instance if outcome else MergeResult(0, 0, 0, snapshot.version("instance"))
    rejected = len(outcome.rejected) if outcome else 0
    read = (landed.entries if landed else 0) + (outcome.removed + outcome.doubled if outcome else 0)
    return {
        "entries_read": read,
        "inserted": merged.inserted,
        "updated": merged.updated,
        "deleted": merged.deleted,
        "superseded": read - merged.changed - rejected,
        "rejected": rejected,
        "merge_seconds": outcome.merge_seconds if outcome else 0.0,
        "rollup_seconds": outcome.rollup_seconds if outcome else 0.0,
        "change_version": snapshot.version("change") if landed is None else landed.version,
        "instance_version": merged.version,
        "series_version": outcome.series_version if outcome else snapshot.version("series"),
        "study_version": outcome.study_version if outcome else snapshot.version("study"),
    }
