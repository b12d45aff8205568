"""One verb at a time writes a lake, and one that fails leaves its row in the ledger.

design/architecture.md: Claims, Coverage and the ledger.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from dicom_etl import __version__
from dicom_etl.core.errors import DicomEtlError, Superseded, name_run
from dicom_etl.core.progress import NullProgress, Progress
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import Window
from dicom_etl.lake.claims.claim import Claim, claim
from dicom_etl.lake.ledger import Run, Status
from dicom_etl.lake.open import highest_run_id
from dicom_etl.lake.paths import LakePaths
from dicom_etl.lake.snapshot import Lake, LakeSnapshot
from dicom_etl.remote.http.client import HttpClient
from dicom_etl.run.dead_runs import counted, record_dead_runs
from dicom_etl.tables.engine.session import Engine

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Resources:
    """What all runs of one call of a verb share; who has opened ``client`` and ``engine`` closes them.

    ``client`` is None for a verb that asks the service for nothing.
    """

    settings: Settings
    client: HttpClient | None
    engine: Engine
    progress: Progress
    clock: Callable[[], datetime]
    sleep: Callable[[float], None]


@dataclass(frozen=True, slots=True)
class WriteSession:
    """One run of a verb that holds the claim ``run_id``, with the lake as it was after the claim."""

    verb: str
    run_id: int
    snapshot: LakeSnapshot
    resources: Resources

    @property
    def lake(self) -> Lake:
        return self.snapshot.lake

    @property
    def settings(self) -> Settings:
        return self.resources.settings

    @property
    def client(self) -> HttpClient:
        if self.resources.client is None:
            raise ValueError(f"{self.verb} has no client of the service")
        return self.resources.client

    @property
    def engine(self) -> Engine:
        return self.resources.engine

    @property
    def progress(self) -> Progress:
        return self.resources.progress

    def now(self) -> datetime:
        """The time by this machine's clock, aware UTC."""
        return self.resources.clock()


@contextmanager
def write_session(resources: Resources, verb: str, snapshot: LakeSnapshot) -> Iterator[WriteSession]:
    """The session of the next run, its claim held until the end; the lake is brought up to date behind the claim.

    ``snapshot`` was opened before: the highest run id in it is the least that the claim has to be above. Runs that have
    died without a row get theirs. Raises as ``claim`` and ``record_dead_runs`` do.
    """
    with claimed(resources, verb, snapshot.lake.paths, highest_run_id(snapshot)) as own_claim:
        record_dead_runs(snapshot.refresh(), own_claim.earlier)
        yield WriteSession(verb, own_claim.run_id, snapshot, resources)


@contextmanager
def next_session(session: WriteSession) -> Iterator[WriteSession]:
    """A session of the next id beside one that still works, to read ahead for it; the lake is that of ``session``.

    It shows no progress. The id is above that of ``session``, whatever became of the files of claims.
    """
    quiet = replace(session.resources, progress=NullProgress())
    least = max(highest_run_id(session.snapshot), session.run_id)
    with claimed(quiet, session.verb, session.lake.paths, least, own_ids=(session.run_id,)) as own_claim:
        yield WriteSession(session.verb, own_claim.run_id, session.snapshot, quiet)


@contextmanager
def claimed(
    resources: Resources, verb: str, paths: LakePaths, least: int, own_ids: Collection[int] = ()
) -> Iterator[Claim]:
    """The claim of the next run, above the id ``least``; its heart beats as long as the work moves.

    That is: the fetch moves, or waits as told, or the JVM answers. ``own_ids`` are ids that this process holds itself,
    when it reads ahead. Raises as ``claim`` does; what the block raises knows the run from then on (``run_of``).
    """
    filesystem, folder = paths.storage.filesystem(paths.claims)
    with claim(
        filesystem,
        folder,
        verb=verb,
        last_known_run_id=least,
        clock=resources.clock,
        sleep=resources.sleep,
        progress=partial(_progress, resources),
        own_ids=own_ids,
    ) as own_claim:
        try:
            yield own_claim
        except BaseException as error:
            name_run(error, own_claim.run_id)
            raise


def _progress(resources: Resources) -> tuple[int, ...]:
    """What changes as long as the work moves; nothing changes while an answer of the service is overdue.

    A warm JVM answers all the time, and a loop of `102 Processing` takes processor time: neither may keep the claim of
    a run that waits without end.
    """
    client = resources.client
    if client is not None and client.overdue:
        return ()
    # Whole seconds of processor time: landing files are cut, which neither the service nor the JVM sees.
    return (client.pulse() if client else 0, int(time.process_time()), resources.engine.pulse())


@contextmanager
def failure_recorded(session: WriteSession, stretches: list[Window] | None = None) -> Iterator[None]:
    """Leave a row in the ledger for a run that fails; it covers nothing, and counts what its MERGE has committed.

    The row names the first of ``stretches``, as that list is then.
    """
    started = session.now()
    try:
        yield
    except Exception as error:
        status: Status = "superseded" if isinstance(error, Superseded) else "failed"
        log.warning("run ended", extra={"run_id": session.run_id, "status": status, "error": type(error).__name__})
        stretch = stretches[0] if stretches else None
        _record_failure(
            Run(
                run_id=session.run_id,
                verb=session.verb,
                status=status,
                window_start=stretch.start if stretch else None,
                window_end=stretch.end if stretch else None,
                covered_until=stretch.start if stretch else None,
                started_at=started,
                finished_at=session.now(),
                error_class=type(error).__name__,
                **row_origin(session.settings),
            ),
            session.snapshot,
        )
        raise


def _record_failure(row: Run, snapshot: LakeSnapshot) -> None:
    try:
        snapshot.record(replace(row, **counted(snapshot, row.run_id, row.verb, refreshed=True)))
    except DicomEtlError as unrecorded:
        # The run's own error matters more, and a newer run may have written its row already.
        log.warning("failure not recorded", extra={"run_id": row.run_id, "error": type(unrecorded).__name__})


def row_origin(settings: Settings) -> dict[str, Any]:
    """Who writes a row of the ledger: version, host and settings."""
    return {
        "writer_version": __version__,
        "host": socket.gethostname(),
        "settings_digest": settings.digest,
    }
