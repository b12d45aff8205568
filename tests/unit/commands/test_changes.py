"""What `change` can tell of the time between two runs, by the ledger and the number of its rows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dicom_etl.commands.changes import Between, between, span_of, unused_entries
from dicom_etl.core.errors import DataError, UsageError
from dicom_etl.core.timerange import TICKS_PER_SECOND
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.past import When
from dicom_etl.lake.rejected import Reject, closed_rejects
from dicom_etl.tables.changes import Unused

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


EPOCH_MICROS = 1_769_860_800_000_000  # NOON
KEY = ("p", "1.1", "1.1.1", "1.1.1.1")


def reject(run_id: int, sequence: int, *, reason: str = "metadata-missing", minutes: int = 0) -> Reject:
    return Reject(run_id, sequence, NOON + timedelta(minutes=minutes), *KEY, reason, "open", NOON)


def closed(row: Reject, run_id: int, status: Any = "resolved") -> Reject:
    (done,) = closed_rejects([row], run_id=run_id, recorded_at=NOON, status=status)
    return done


def test_an_entry_is_refused_from_the_run_that_rejected_it_until_one_could_use_it() -> None:
    """Run 3 used 50, and run 8 read it again from a bad page: what run 3 did stands. An operator's void heals none."""
    history = [reject(2, 40), closed(reject(2, 40), 5), closed(reject(2, 40), 6), reject(8, 50), reject(9, 60)]
    history = [*history, reject(9, 50), closed(reject(9, 60), 10, "void")]
    assert unused_entries(history) == Unused(
        {}, [(40, EPOCH_MICROS, 2, 5), (50, EPOCH_MICROS, 8, None), (60, EPOCH_MICROS, 9, None)]
    )


def test_a_sequence_that_a_restored_service_gave_again_is_another_entry() -> None:
    history = [reject(2, 500), closed(reject(2, 500), 3), reject(7, 500, minutes=1)]
    assert unused_entries(history).refused == [(500, EPOCH_MICROS, 2, 3), (500, EPOCH_MICROS + 60_000_000, 7, None)]


def test_a_void_holds_as_long_as_its_row_is_the_newest_of_its_sequence() -> None:
    """A rebuild after the service went back has settled that of 70; a void is no reject that waits for a run."""
    first, second = (closed(reject(2, number, reason="uid-changed"), 2, "void") for number in (70, 60))
    assert unused_entries([first, second]) == Unused({KEY: 70}, [])
    assert unused_entries([first, second, closed(first, 9)]) == Unused({KEY: 60}, [])
