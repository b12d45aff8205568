"""Gives the runs that ended without a row in the ledger their rows (design/architecture.md: Dead runs).

A process that is killed cannot record itself: the next run does, behind its claim and before anything else. A crash in
between is made up for by the run after it, since the claims stay and the ledger's marker says what is recorded.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from dicom_etl import __version__
from dicom_etl.core.errors import Superseded
from dicom_etl.lake.claims.file import ClaimFile
from dicom_etl.lake.committed import committed
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.snapshot import LakeSnapshot

log = logging.getLogger(__name__)

KILLED = "Killed"
UNRECORDED = "Unrecorded"


def record_dead_runs(snapshot: LakeSnapshot, earlier: Iterable[ClaimFile]) -> None:
    """Add a row of status ``killed`` for each run of the claims ``earlier`` that has died without one.

    It covers nothing. Its row ends at the last heartbeat. ``snapshot`` is as of after our claim, before we commit.
    Raises as ``ledger.record`` does; a run that was taken for dead may record itself meanwhile, and no error is that.
    """
    for claim in list(_unrecorded(snapshot, list(earlier))):
        row = Run(
            run_id=claim.run_id,
            verb=claim.verb,
            status="killed",
            started_at=claim.claimed_at,
            finished_at=max(claim.claimed_at, claim.heartbeat_at),
            writer_version=__version__,
            host=claim.host,
            error_class=UNRECORDED if claim.overtaken_by is None else KILLED,
            **counted(snapshot, claim.run_id, claim.verb),
        )
        if not _recorded(snapshot, row):
            continue
        counts = {"inserted": row.inserted, "updated": row.updated, "deleted": row.deleted}
        log.warning("dead run recorded", extra={"run_id": row.run_id, "verb": row.verb, **counts})


def _recorded(snapshot: LakeSnapshot, row: Run) -> bool:
    """Whether the row was added; not where the run has recorded itself meanwhile.

    Raises Superseded when a run has written that is newer than the dead one, and so than what was read of the tables.
    """
    for last_try in (False, True):
        try:
            snapshot.record(row)
        except Superseded:
            newest = snapshot.refresh("run").txn_version("run")
            if newest == row.run_id:
                return False
            if last_try or newest > row.run_id:
                raise
        else:
            return True
    return False


def counted(snapshot: LakeSnapshot, run_id: int, verb: str, *, refreshed: bool = False) -> dict[str, Any]:
    """What ``committed`` says; nothing, and a line in the log, where it cannot be read: no run may fail of it.

    ``refreshed``: as the tables are now.
    """
    try:
        tables = snapshot.refresh("change", "rejected", "instance") if refreshed else snapshot
        return committed(tables, run_id, verb)
    except Exception as error:  # noqa: BLE001  a log of another writer may hold anything; every later run would end here
        log.warning("commits not counted", extra={"run_id": run_id, "error": type(error).__name__})
        return {}


def _unrecorded(snapshot: LakeSnapshot, claims: list[ClaimFile]) -> Iterator[ClaimFile]:
    """The claims of dead runs without a row, by id: those that were overtaken, and the one that has merged last.

    The latter may have been released: by a signal, or by an error that the ledger could not take. What lies below the
    ledger's marker cannot be recorded any more.
    """
    recorded, merged = snapshot.txn_version("run"), snapshot.txn_version("instance")
    dead = {run.run_id for run in snapshot.runs() if run.status == "killed"}
    by_id = {claim.run_id: claim for claim in claims}
    for claim in sorted(claims, key=lambda one: one.run_id):
        run_id, before = claim.run_id, by_id.get(claim.run_id - 1)
        if run_id <= recorded or (claim.overtaken_by is None and run_id != merged):
            continue
        # A process that dies while it reads ahead leaves two claims; only the first of them was at work.
        if run_id != merged and before is not None and before.run_id in dead and before.process == claim.process:
            continue
        dead.add(run_id)
        yield claim
