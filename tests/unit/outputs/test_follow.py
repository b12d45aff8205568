"""From which run to which an output is brought, and by what: by the ledgers alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from dicom_etl.core.errors import DataError
from dicom_etl.lake.ledger import Run
from dicom_etl.outputs.execution import Counts, Execution, last_succeeded
from dicom_etl.outputs.follow import Step, next_step, oldest_needed, restored
from dicom_etl.outputs.state import output_states
from support.results import NO_WINDOW, NOW, a_run

VERSIONS = {"change_version": 4, "instance_version": 3, "series_version": 2, "study_version": 1}


def a_step(*runs: Run, last: Execution | None, forced: Any = None) -> tuple[int, int, str] | None:
    step = next_step(runs, last, forced=forced)
    return None if step is None else (step.since, step.to_run, step.mode)


def done(output: str, execution_id: int, to_run: int, **values: Any) -> Execution:
    given: dict[str, Any] = {"mode": "changed", "status": "succeeded", "from_run": 0, "versions": {}}
    return Execution(
        output=output, execution_id=execution_id, to_run=to_run, started_at=NOW, finished_at=NOW, **{**given, **values}
    )


def good(run_id: int, **values: Any) -> Run:
    return a_run(run_id, 1, **{**VERSIONS, **values})


def test_the_first_execution_computes_everything_up_to_the_last_run_that_succeeded() -> None:
    assert a_step(good(1), good(4), a_run(5, 2, status="failed"), last=None) == (0, 4, "full")


def test_the_next_one_follows_the_entries_of_the_runs_since() -> None:
    last = done("columns", 1, 4)
    assert a_step(good(4), good(6), last=last) == (4, 6, "changed")
    assert a_step(good(4), a_run(6, 2, status="failed"), last=last) is None, "nothing is due"
    assert a_step(good(4), last=last, forced="full") == (4, 4, "full")


@pytest.mark.parametrize(("verb", "status"), [("repair", "succeeded"), ("repair", "failed"), ("adopt", "succeeded")])
def test_a_run_that_changes_rows_without_an_entry_is_followed_by_a_comparison(verb: str, status: str) -> None:
    """A failed one, too: it may have committed to `instance` before it failed."""
    silent = a_run(5, 2, verb=verb, status=status, **NO_WINDOW)
    assert a_step(good(4), silent, good(6), last=done("columns", 1, 4)) == (4, 6, "compare")
    assert a_step(good(4), silent, good(6), last=done("columns", 1, 5)) == (5, 6, "changed"), "it was followed before"


@pytest.mark.parametrize(("since", "rebuilt"), [(4, True), (5, False), (6, False)])
def test_a_step_knows_the_last_rebuild_and_whether_the_output_is_older(since: int, rebuilt: bool) -> None:
    """A repair without coverage rebuilds nothing, nor does a rebuild that failed."""
    rebuild = good(5, verb="repair")
    others = [good(7, verb="repair", **NO_WINDOW), a_run(8, 2, verb="repair", status="failed")]
    for forced in (None, "full"):
        step = next_step([good(4), rebuild, good(6), *others], done("columns", 1, since), forced=forced)
        assert step is not None
        assert (step.to_run, step.rebuilt, step.after_rebuild) == (7, 5, rebuilt)
    assert next_step([good(4), good(6)], None) == Step(good(6), 0, "full", rebuilt=0)


def test_a_ledger_that_was_put_back_is_followed_by_a_comparison() -> None:
    assert a_step(good(4), last=done("columns", 3, 9)) == (9, 4, "compare")


def test_without_a_run_there_is_nothing_to_follow() -> None:
    with pytest.raises(DataError, match="no run has finished here yet"):
        next_step([], None)


def test_a_table_is_known_to_be_put_back_by_its_version() -> None:
    last = done("columns", 2, 4, versions={"instance_tags": 7, "series_tags": 0, "study_tags": 5})
    assert restored(last, {"instance_tags": 7, "series_tags": 0, "study_tags": 6}) == []
    assert restored(last, {"instance_tags": 6, "series_tags": 0, "study_tags": None}) == ["instance_tags", "study_tags"]


def test_the_output_that_is_furthest_behind_holds_back_the_purge() -> None:
    rows = [done("columns", 1, 4), done("columns", 2, 9), done("fhir", 1, 7), done("fhir", 2, 9, status="failed")]
    assert oldest_needed(rows) == (7, "fhir")
    assert oldest_needed([done("fhir", 1, 3, status="failed")]) is None, "its first execution reads everything"
    assert last_succeeded(rows, "fhir") == rows[2]


def test_the_state_of_an_output_tells_its_lag_and_its_last_error() -> None:
    runs = [good(4), good(6, finished_at=NOW - timedelta(hours=2)), good(7, finished_at=NOW - timedelta(hours=1))]
    rows = [done("columns", 1, 7), done("fhir", 1, 4), done("fhir", 2, 7, status="failed", error_class="StorageError")]
    assert [state.as_row() for state in output_states(runs, rows, NOW)] == [
        {"output": "columns", "reachedRun": 7, "lastRun": 7, "runsBehind": 0, "lagSeconds": 0.0, "lastEnded": NOW,
         "lastError": None, "holdsPurge": False},
        {"output": "fhir", "reachedRun": 4, "lastRun": 7, "runsBehind": 2, "lagSeconds": 7200.0, "lastEnded": NOW,
         "lastError": "StorageError", "holdsPurge": True},
    ]  # fmt: skip


def test_counts_agree_only_when_each_key_is_counted_once() -> None:
    assert Counts(touched=9, unchanged=3, written=4, withdrawn=2).whole
    assert not Counts(touched=9, unchanged=3, written=5, withdrawn=2).whole
