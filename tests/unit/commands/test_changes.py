"""What `change` can tell of the time between two runs, by the ledger and the number of its rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dicom_etl.commands.changes import Between, between, span_of
from dicom_etl.core.errors import DataError, UsageError
from dicom_etl.core.timerange import TICKS_PER_SECOND
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.past import When

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOUR = 3600 * TICKS_PER_SECOND


def run(run_id: int, **values: Any) -> Run:
    """A run of the hour after that of the run before, with ten entries; the first one begins in 1970."""
    made = dict.fromkeys(("instance_version", "series_version", "study_version"), run_id)
    window = {"window_start": (run_id - 1) * HOUR, "window_end": run_id * HOUR, "covered_until": run_id * HOUR}
    given = {"verb": "sync", "status": "succeeded", "entries_read": 10, **made, **window, **values}
    return Run(run_id=run_id, started_at=NOON, finished_at=NOON + timedelta(hours=run_id), **given)


RUNS = [run(number) for number in range(1, 6)]
WHOLE = dict.fromkeys(range(1, 6), 10)
ASKED = Between(RUNS[2], RUNS[4])


def test_a_whole_change_tells_all() -> None:
    span = span_of(RUNS, WHOLE, ASKED)
    assert (span.since, span.until, span.floor, span.unfinished) == (3, 5, 0, ())


def test_what_was_purged_does_not_count() -> None:
    """Of run 2 the entry with the highest sequence is left; what is an hour newer than its end was read later."""
    span = span_of(RUNS, {2: 1, 3: 10, 4: 10, 5: 10}, ASKED)
    assert (span.floor, span.new_from) == (2, NOON + timedelta(hours=3))


@pytest.mark.parametrize("gap", ["in the middle", "at the beginning"])
def test_with_a_gap_the_first_entry_proves_nothing(gap: str) -> None:
    """An Update may be of an instance that the tables did not have."""
    first = run(1, window_start=HOUR // 2) if gap == "at the beginning" else run(1, covered_until=HOUR // 2)
    span = span_of([first, *RUNS[1:]], {3: 10, 4: 10, 5: 10}, ASKED)
    assert (span.floor, span.new_from) == (2, None)


def test_entries_of_the_time_itself_must_be_there() -> None:
    with pytest.raises(DataError, match="entries of that time were purged"):
        span_of(RUNS, {1: 10, 2: 10, 3: 10, 4: 9, 5: 10}, ASKED)


def test_a_run_that_died_is_known_by_its_entries_alone() -> None:
    """The ledger has no row of run 2, and one of run 4 that says failed."""
    runs = [RUNS[0], RUNS[2], run(4, status="failed"), RUNS[4]]
    assert span_of(runs, WHOLE, ASKED).unfinished == (2, 4)


def test_a_repair_before_it_is_a_floor() -> None:
    """What it removed stands in no entry."""
    assert span_of([RUNS[0], run(2, verb="repair"), *RUNS[2:]], WHOLE, ASKED).floor == 2


def test_runs_are_compared_forwards() -> None:
    assert between(RUNS, When(run_id=2), None) == Between(RUNS[1], RUNS[4])
    with pytest.raises(UsageError, match=r"^--until: run 1 comes before run 2"):
        between(RUNS, When(run_id=2), When(run_id=1))
