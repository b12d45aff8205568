"""Which run a moment names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dicom_etl.core.errors import DataError, UsageError
from dicom_etl.core.timerange import from_datetime
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.past import When, last_run, run_at, versions

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def run(run_id: int, minutes: int, **values: Any) -> Run:
    """A run that ended so many minutes after noon; its versions are 10 times its id."""
    made = dict.fromkeys(("instance_version", "series_version", "study_version"), run_id * 10)
    moment = NOON + timedelta(minutes=minutes)
    given = {"verb": "sync", "status": "succeeded", "started_at": NOON, "finished_at": moment, **made, **values}
    return Run(run_id=run_id, **given)


# 3 has failed, 5 ended when a clock had been put back, 6 and 7 at the same time, 8 had no tables.
RUNS = [
    run(1, 0), run(2, 10), run(3, 20, status="failed"), run(4, 40), run(5, 30), run(6, 50), run(7, 50),
    run(8, 60, study_version=None),
]  # fmt: skip


@pytest.mark.parametrize(("minutes", "found"), [(0, 1), (9, 1), (10, 2), (25, 2), (30, 5), (45, 5), (50, 7), (99, 7)])
def test_a_time_names_the_last_run_that_had_succeeded(minutes: int, found: int) -> None:
    """The highest id of those that had ended by then, the very moment included."""
    moment = from_datetime(NOON + timedelta(minutes=minutes))
    assert run_at(reversed(RUNS), When(as_of=moment)).run_id == found


def test_a_run_is_named_by_its_number() -> None:
    assert versions(run_at(RUNS, When(run_id=4))) == {"instance": 40, "series": 40, "study": 40}
    assert last_run(RUNS).run_id == 7


@pytest.mark.parametrize(
    ("when", "error", "text"),
    [
        (When(run_id=9), UsageError, "there is no run 9 in the ledger"),
        (When(run_id=3), UsageError, "run 3 has not succeeded (failed)"),
        (When(run_id=8), DataError, "run 8 recorded no versions"),
        (When(as_of=0), UsageError, "no run had succeeded by then: the first ended at 2026-01-31T12:00:00Z;"),
    ],
)
def test_a_moment_without_tables_is_refused(when: When, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        run_at(RUNS, when)
    assert text in str(caught.value)


def test_a_moment_is_a_number_or_a_time() -> None:
    assert When.parsed("12", "--since") == When(run_id=12)
    assert When.parsed("1970-01-01T00:00:01Z", "--since") == When(as_of=10_000_000)
    assert When.either(None, None) is None
    for text in ("yesterday", "-1", "2026-01-31T08:00:00", "¹"):
        with pytest.raises(UsageError, match="--since: expected RFC 3339 with a zone"):
            When.parsed(text, "--since")
    with pytest.raises(UsageError, match="give one of them"):
        When.either(1, "2026-01-31T08:00:00Z")


def test_a_time_that_is_still_to_come_is_refused() -> None:
    """Later the same words would name a run that is not there yet; this very moment is over."""
    clock = NOON.astimezone
    assert When.either(None, "2026-01-31T12:00:00Z", clock) == When(as_of=from_datetime(NOON))
    for text in ("2026-01-31T12:00:00.0000001Z", "2036-01-31T12:00:00Z"):
        with pytest.raises(UsageError, match=r"^--as-of: this time is still to come"):
            When.either(None, text, clock)
        with pytest.raises(UsageError, match=r"^--until: this time is still to come"):
            When.parsed(text, "--until", clock)
