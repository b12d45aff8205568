"""One verb at a time writes a lake, and one that fails leaves its row in the ledger.

design/architecture.md: Claims, Coverage and the ledger.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import datetime

from dicom_etl.core.errors import DicomEtlError, Superseded
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import Window
from dicom_etl.lake.claims.claim import Claim, claim
from dicom_etl.lake.ledger import Run, Status
from dicom_etl.lake.paths import Places
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.remote.http.client import DicomClient
from dicom_etl.run.pipeline import row_origin
from dicom_etl.tables.engine.session import Engine

log = logging.getLogger(__name__)


@contextmanager
def writing(
    where: Places,
    verb: str,
    floor: int,
    client: DicomClient,
    engine: Engine,
    clock: Callable[[], datetime],
    sleep: Callable[[float], None],
    holding: Collection[int] = (),
) -> Iterator[Claim]:
    """The claim of the next run, above ``floor``; its heart beats as long as the work moves.

    ``holding`` are ids that this process holds itself, when it reads ahead.

    That is: the fetch moves, or waits as told, or the JVM answers. Raises as ``claim`` does.
    """
    filesystem, folder = where.storage.filesystem(where.claims)
    with claim(
        filesystem,
        folder,
        verb=verb,
        floor=floor,
        clock=clock,
        sleep=sleep,
        # Whole seconds of processor time: landing files are cut, which neither the service nor the JVM sees.
        progress=lambda: (client.pulse(), int(time.process_time()), engine.pulse()),
        holding=holding,
    ) as held:
        yield held


@contextmanager
def failure_recorded(
    run_id: int,
    verb: str,
    stretches: list[Window] | None,
    settings: Settings,
    snapshot: LakeSnapshot,
    clock: Callable[[], datetime],
) -> Iterator[None]:
    """Leave a row in the ledger for a run that fails; it covers nothing."""
    started = clock()
    try:
        yield
    except Exception as error:
        status: Status = "superseded" if isinstance(error, Superseded) else "failed"
        log.warning("run ended", extra={"run_id": run_id, "status": status, "error": type(error).__name__})
        stretch = stretches[0] if stretches else None
        _record_failure(
            Run(
                run_id=run_id,
                verb=verb,
                status=status,
                window_start=stretch.start if stretch else None,
                window_end=stretch.end if stretch else None,
                covered_until=stretch.start if stretch else None,
                started_at=started,
                finished_at=clock(),
                error_class=type(error).__name__,
                **row_origin(settings),
            ),
            snapshot,
        )
        raise


def _record_failure(row: Run, snapshot: LakeSnapshot) -> None:
    try:
        snapshot.record(row)
    except DicomEtlError as unrecorded:
        # The run's own error matters more, and a newer run may have written its row already.
        log.warning("failure not recorded", extra={"run_id": row.run_id, "error": type(unrecorded).__name__})
