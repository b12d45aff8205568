"""Results of every verb, as a command line prints them: of one lake, at 04:02 on a first of May."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from dicom_etl.core.timerange import TICKS_PER_SECOND, from_datetime
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.rejected import Reject
from dicom_etl.lake.status import Status

NOW = datetime(2026, 5, 1, 4, 2, tzinfo=UTC)
HOUR = 3600 * TICKS_PER_SECOND


def a_run(run_id: int, hour: int, **values: Any) -> Run:
    """A run of 61 seconds that read the window before this hour of the day."""
    started = NOW.replace(hour=0) + timedelta(hours=hour, minutes=13)
    end = from_datetime(NOW.replace(hour=0, minute=0)) + hour * HOUR
    defaults: dict[str, Any] = {
        "verb": "sync",
        "status": "succeeded",
        "window_start": end - HOUR,
        "window_end": end,
        "covered_until": end,
        "finished_at": started + timedelta(seconds=61),
    }
    return Run(run_id=run_id, started_at=started, **{**defaults, **values})


NO_WINDOW = {"window_start": None, "window_end": None, "covered_until": None}
RUNS = (
    a_run(41, 0, entries_read=1204, inserted=1150, updated=40, deleted=10, superseded=4),
    a_run(42, 1, status="failed", error_class="ServiceUnavailable", covered_until=None),
    a_run(43, 1, entries_read=310, inserted=300, updated=10),
    a_run(44, 2, verb="maintain", **NO_WINDOW),
    a_run(45, 3, entries_read=12_345, inserted=12_000, updated=300, deleted=41, superseded=4),
)
STATUS = Status(
    lake_id=uuid.UUID("0e9b9f5a-6d7e-4c1f-8a55-0d2f3c4b5a69"),
    covered_until=from_datetime(NOW) - 15 * 60 * TICKS_PER_SECOND,
    lag_seconds=900.4,
    windows_due=0,
    entries_per_second=202.4,
    eta_seconds=0.0,
    open_rejects=0,
    last_error=None,
    last_runs=RUNS,
)
REJECT = Reject(1204, 7, NOW, "Microsoft.Default", "1.2", "1.2.3", "1.2.3.4", "uid missing", "open", NOW)
