"""The open rejects of a lake: lists them, and closes one that nobody waits for (design/architecture.md: Rejects)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime

from dicom_etl.core.clock import utc_now
from dicom_etl.core.errors import UsageError
from dicom_etl.core.progress import NullProgress
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake.open import existing_lake, refuse_incomplete, refuse_restored
from dicom_etl.lake.rejected import Reject, append_closed, closed_rejects, read_open
from dicom_etl.run.record import record_verb
from dicom_etl.run.write_session import Resources, write_session
from dicom_etl.tables.engine.session import Engine

log = logging.getLogger(__name__)

VERB = "rejects"


def open_rejects(settings: Settings) -> list[Reject]:
    """The open rejects, by sequence. Raises DataError when there is no lake, or a table of it is gone."""
    snapshot = existing_lake(settings)
    refuse_incomplete(snapshot)
    return read_open(snapshot.table("rejected"))


def close(
    settings: Settings,
    sequence: int,
    why: str,
    *,
    clock: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
) -> Reject:
    """The reject that is void from now on, with ``why`` beside it; the ledger gets a row of the verb ``rejects``.

    Raises UsageError when no reject of this sequence is open, DataError when a table is older than recorded,
    AnotherWriter when somebody else writes the lake.
    """
    snapshot = existing_lake(settings)
    refuse_incomplete(snapshot)
    # Else the row of this verb would take the table's lower version for the one that it has to have.
    refuse_restored(snapshot)
    started = clock()
    with (
        Engine(settings.spark, paths=snapshot.lake.paths) as engine,
        write_session(Resources(settings, None, engine, NullProgress(), clock, sleep), VERB, snapshot) as session,
    ):
        lake, rejected = session.lake, session.snapshot.table("rejected")
        reject = next((one for one in read_open(rejected) if one.sequence == sequence), None)
        if reject is None:
            raise UsageError(f"--close: {sequence} is no open reject; dicom-etl rejects lists them")
        (closed,) = closed_rejects([reject], run_id=session.run_id, recorded_at=clock(), status="void")
        append_closed(rejected, closed, why, app_id=lake.app_id("rejected"), folder=lake.folder("rejected"))
        # The text is an operator's: it stands in the private table, and nowhere else.
        log.info("reject closed", extra={"run_id": session.run_id, "sequence": sequence, "reason": closed.reason})
        record_verb(session, started)
        return closed
