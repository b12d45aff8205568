"""One writer per lake: a run creates the file of its id, once the claims before it are over, gone or silent.

design/architecture.md: Claims.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from types import TracebackType

import msgspec
from fsspec import AbstractFileSystem

from dicom_etl.core.errors import DicomEtlError
from dicom_etl.lake.claims.file import ClaimFile, ClaimFolder, ClaimSnapshot, another_writer
from dicom_etl.lake.claims.heartbeat import INTERVAL_SECONDS, Heartbeat
from dicom_etl.lake.claims.process import Process, is_gone, this_process

logger = logging.getLogger(__name__)

KEPT_CLAIMS = 10
SILENT = timedelta(seconds=60)
WATCH_SECONDS = 20.0
_LOOKS = 10


class Claim:
    """The right to write the lake, from its creation until `release`; a context manager.

    ``run_id`` is the fencing token of every commit. A run that a newer one has overtaken is not told here: its next
    commit is refused. ``earlier`` are the claims before it that can be read, by id; those of dead runs, this claim's
    own finds included, name in ``overtaken_by`` who took over.
    """

    def __init__(self, run_id: int, heartbeat: Heartbeat, earlier: tuple[ClaimFile, ...] = ()) -> None:
        self.run_id = run_id
        self.earlier = earlier
        self._heartbeat = heartbeat

    def release(self) -> None:
        """Mark the claim released and end its heartbeat; again: nothing."""
        self._heartbeat.stop()

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def claim(
    fs: AbstractFileSystem,
    folder: str,
    *,
    verb: str,
    last_known_run_id: int,
    clock: Callable[[], datetime],
    sleep: Callable[[float], None],
    progress: Callable[[], object] | None = None,
    interval_seconds: float = INTERVAL_SECONDS,
    process: Process | None = None,
    own_ids: Collection[int] = (),
) -> Claim:
    """The claim of the next run id: 1 + max(claim files, ``last_known_run_id``); its heartbeat has begun.

    ``folder`` is `_claims` below the lake's root, as ``fs`` takes it. ``last_known_run_id`` is the largest id in the
    ledger and in the markers of all tables, so that lost files cannot bring an id back. ``clock`` is aware
    UTC; ``progress`` as in `Heartbeat`. ``own_ids`` are ids that this process holds itself (to read ahead).

    Raises AnotherWriter (75) at once when a live run holds the lake; waits 20 s by ``sleep`` before it takes
    over from one that is silent. ConfigurationError (78) when the lake's root is a file, StorageError (74) or
    AccessDenied (77) when it cannot be written.
    """
    claims = ClaimFolder(fs, str(fs._strip_protocol(folder)))
    claims.make()
    ids = claims.ids()
    run_id = 1 + max([last_known_run_id, *ids])
    me = process or this_process()
    seen = [snapshot for i in ids if i not in own_ids and (snapshot := claims.read(i)) is not None]
    stale = _stale(claims, seen, me, run_id, sleep)
    own_claim = _new_file(run_id, verb, me, clock())
    claims.create(own_claim)
    _step_back_for_others(claims, own_claim, stale, own_ids)
    _tidy(claims, own_claim, stale)
    heartbeat = Heartbeat(claims, own_claim, clock=clock, progress=progress, interval_seconds=interval_seconds)
    heartbeat.start()
    earlier = (_taken_over(s.file, run_id) if s in stale else s.file for s in seen if s.file is not None)
    return Claim(run_id, heartbeat, tuple(earlier))


def _stale(
    claims: ClaimFolder, seen: list[ClaimSnapshot], me: Process, run_id: int, sleep: Callable[[float], None]
) -> list[ClaimSnapshot]:
    """The claims that were never released and whose runs are gone; AnotherWriter when one is alive."""
    unreleased = [snapshot for snapshot in seen if not snapshot.over]
    gone = [s for s in unreleased if s.file is not None and is_gone(s.file.process, me)]
    doubtful = [s for s in unreleased if s not in gone]
    if not doubtful:
        return gone
    now = claims.storage_now(run_id)
    for snapshot in reversed(doubtful):
        # A clock that fell back leaves heartbeats in the future: as doubtful as one in the past.
        if abs(now - snapshot.modified) <= SILENT:
            raise another_writer(snapshot, snapshot.run_id)
    _watch(claims, doubtful, sleep)
    return gone + doubtful


def _watch(claims: ClaimFolder, doubtful: list[ClaimSnapshot], sleep: Callable[[float], None]) -> None:
    """Look for 20 s of our own clock whether a heartbeat moves; AnotherWriter when one does.

    Many short looks instead of one long sleep: when this whole machine was suspended, the others get time to
    beat after it woke.
    """
    for _ in range(_LOOKS):
        sleep(WATCH_SECONDS / _LOOKS)
        for before in doubtful:
            now = claims.read(before.run_id)
            if now is not None and not now.over and now != before:
                raise another_writer(now, now.run_id)


def _step_back_for_others(
    claims: ClaimFolder, own_claim: ClaimFile, stale: list[ClaimSnapshot], own_ids: Collection[int]
) -> None:
    """Withdraw our new claim when another appeared, or moved, while we looked.

    A lower one that lives was there first; a higher one has taken the tables' markers beyond our id.
    """
    for other in (i for i in claims.ids() if i != own_claim.run_id and i not in own_ids):
        snapshot = claims.read(other)
        if snapshot is None or snapshot in stale:
            continue
        withdrawn = snapshot.file is not None and snapshot.file.withdrawn
        if not withdrawn and (other > own_claim.run_id or not snapshot.over):
            claims.write(msgspec.structs.replace(own_claim, released=True, withdrawn=True), writer=own_claim.run_id)
            raise another_writer(snapshot, other)


def _tidy(claims: ClaimFolder, own_claim: ClaimFile, stale: list[ClaimSnapshot]) -> None:
    """Mark those we take over from, so that nobody watches them again, and delete the old files."""
    try:
        for snapshot in stale:
            if snapshot.file is None:
                claims.delete(snapshot.run_id)
            else:
                claims.write(_taken_over(snapshot.file, own_claim.run_id), writer=own_claim.run_id)
        ids = claims.ids()
        claims.delete_below(ids[-KEPT_CLAIMS:][0] if ids else 0)
    except DicomEtlError as error:
        logger.warning("old claims not tidied", extra={"run_id": own_claim.run_id, "error_class": type(error).__name__})


def _taken_over(file: ClaimFile, by_run: int) -> ClaimFile:
    return msgspec.structs.replace(file, released=True, overtaken_by=by_run)


def _new_file(run_id: int, verb: str, me: Process, now: datetime) -> ClaimFile:
    return ClaimFile(
        run_id=run_id,
        nonce=uuid.uuid4().hex,
        verb=verb,
        host=me.host,
        pid=me.pid,
        process_started=me.started,
        boot_id=me.boot_id,
        pid_namespace=me.namespace,
        claimed_at=now,
        heartbeat_at=now,
    )
