"""Open rejects: asks again which are usable by now or gone, and records what a run learned of them.

design/architecture.md: Rejects.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import datetime
from functools import cached_property
from itertools import groupby

from dicom_etl.core.entry import Entry
from dicom_etl.core.errors import AccessDenied, ConfigurationError, ProtocolError, ServiceUnavailable, Superseded
from dicom_etl.core.reasons import STATE_UNKNOWN
from dicom_etl.core.timerange import from_datetime
from dicom_etl.dicomweb.feed.bad_entries import Budget
from dicom_etl.dicomweb.feed.reader import refetch
from dicom_etl.dicomweb.retrieve import instance_exists
from dicom_etl.dicomweb.search import partitions
from dicom_etl.lake.rejected import Reject, append_rejects, closed_rejects, new_rejects
from dicom_etl.landing.landing import Landed
from dicom_etl.landing.rows import rows_of
from dicom_etl.remote.http.retry import RetryPolicy
from dicom_etl.run.plan import RunPlan
from dicom_etl.run.write_session import WriteSession

# Thousands of bad entries must not cost thousands of requests in every run: so many for those that stay bad,
REQUESTS_FOR_REJECTS = 300
# and so many entries when they have become usable, which costs two requests each.
MOST_REJECTS_RETRIED = 1000
# The next run begins so many further on; no more of them use the requests up than stand at one instant.
REJECTS_A_TURN = 100

_ONE_TRY = RetryPolicy(None, 1)
_NO_PROOF = (AccessDenied, ConfigurationError, ProtocolError, ServiceUnavailable)


class RejectRetry:
    """One run's look at the open rejects; ``gone`` are those of which it finds the instance gone."""

    def __init__(self, session: WriteSession, plan: RunPlan) -> None:
        self.gone: list[Reject] = []
        self._client = session.client
        self._run_id = session.run_id
        self._plan = plan
        self._budget = Budget(REQUESTS_FOR_REJECTS)

    def usable(self, rejects: list[Reject]) -> Iterator[list[Entry]]:
        """The entries that have become usable, by instants; those that are as bad as before cost requests only.

        When there are many, each run takes others: its id says where it begins.
        """
        first = self._run_id * REJECTS_A_TURN % len(rejects) if rejects else 0
        in_turn = (rejects[first:] + rejects[:first])[:MOST_REJECTS_RETRIED]
        for begin in range(0, len(in_turn), REJECTS_A_TURN):
            for _, tie in groupby(in_turn[begin : begin + REJECTS_A_TURN], key=lambda reject: reject.timestamp):
                if self._budget.spent:
                    return
                yield self._usable_of(tie)

    def _usable_of(self, tie: Iterable[Reject]) -> list[Entry]:
        """Of rejects at one instant."""
        asked = {reject.sequence: reject for reject in tie}
        ticks = from_datetime(next(iter(asked.values())).timestamp)
        again = refetch(self._client, ticks, asked.keys(), self._budget)
        read = rows_of(again, run_id=self._run_id, read_at=self._plan.started_at)
        reasons = {unusable.sequence: unusable.reason for unusable in read.unusable}
        usable = [entry for entry in again if entry.sequence not in reasons]
        self._budget.give(2 * len(usable))
        self.gone += [asked[entry.sequence] for entry in usable if _state(entry) == "deleted"]
        self.gone += [
            asked[entry.sequence]
            for entry in again
            if reasons.get(entry.sequence) == STATE_UNKNOWN
            and _state(entry) != "current"
            and self._is_gone(asked[entry.sequence])
        ]
        return usable

    def _is_gone(self, reject: Reject) -> bool:
        """Whether the service answers 404 for the metadata; whatever else it does is no proof."""
        partition, study, series, sop = reject.partition, reject.study, reject.series, reject.sop
        if study is None or series is None or sop is None or not self._budget.take():
            return False
        if self._has_partitions is None:
            return False
        segment = partition if self._has_partitions else None
        try:
            return not instance_exists(self._client, study, series, sop, partition=segment, retry_policy=_ONE_TRY)
        except _NO_PROOF:
            return False

    @cached_property
    def _has_partitions(self) -> bool | None:
        """None when the service does not say so: asked once a run, since nothing that a run must do depends on it."""
        try:
            return partitions(self._client, _ONE_TRY) is not None
        except _NO_PROOF:
            return None


def _state(entry: Entry) -> str:
    return (entry.state or "").lower()


def record_rejects(
    session: WriteSession,
    landed: Landed,
    rejects_seen: Collection[Reject],
    rejected: Collection[int],
    recorded_at: datetime,
    more: Iterable[Reject] = (),
) -> None:
    """One commit of ``rejected``: what is new, what has become usable, and ``more`` of this run (voids).

    Nothing commits nothing. Raises Superseded when a newer run has merged, as ``instance`` is now: one that met nothing
    bad leaves no marker here.
    """
    run_id, snapshot = session.run_id, session.snapshot
    known = {reject.sequence for reject in rejects_seen}
    new = [u for u in landed.unusable if u.sequence in rejected and u.sequence not in known]
    healed = [reject for reject in rejects_seen if reject.sequence not in rejected]
    rows = [
        *new_rejects(new, run_id=run_id, recorded_at=recorded_at),
        *closed_rejects(healed, run_id=run_id, recorded_at=recorded_at),
        *more,
    ]
    if not rows:
        return
    if snapshot.refresh("instance").txn_version("instance") > run_id:
        raise Superseded("rejected: a newer run has written; this one stops and covers nothing")
    append_rejects(
        snapshot.refresh("rejected").table("rejected"),
        rows,
        app_id=session.lake.app_id("rejected"),
        run_id=run_id,
        details={"runId": str(run_id)},
        folder=session.lake.folder("rejected"),
    )
