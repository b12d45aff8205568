"""Broken twins of the rules that make whole runs safe: ids, claims, coverage, the ledger, markers; without Spark.

As in test_mutants: a check passes the real code, and with one rule broken it fails by the assertion about that rule.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from dicom_emulator.testing.faults import Fault
from dicom_etl.commands import sync
from dicom_etl.commands.sync import planned
from dicom_etl.commands.sync_request import request
from dicom_etl.core.errors import Superseded, TemporaryError
from dicom_etl.core.timerange import from_datetime
from dicom_etl.lake.delta import commit
from dicom_etl.lake.delta.commit import append_rows
from dicom_etl.lake.delta.table import create_table
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.run import merge, pipeline, record, write_session
from dicom_etl.run.merge import RunResult
from dicom_etl.run.plan import RunPlan
from dicom_etl.run.write_session import WriteSession
from dicom_etl.tables.merge import MergeResult
from support.broken import Mutant, assert_caught, checks
from support.landing_only import landed, landing_only, outcome, served
from support.site import Site, at, text_at, ticks_at


class Killed(BaseException):
    """The end of a process: nobody handles it."""


def _killed() -> RunResult:
    raise Killed


def _superseded() -> RunResult:
    raise Superseded("instance: a newer run has written")


def _merged() -> RunResult:
    return outcome()


def _rejected() -> RunResult:
    return outcome(1)


def _in_turn(*merges: Callable[[], RunResult]) -> Callable[..., RunResult]:
    """What becomes of the MERGEs of each run, one after the other."""
    left = list(merges)
    return lambda *_: left.pop(0)()


def create(site: Site, hour: float, sop: str = "1") -> None:
    site.create("1.1", "1.1.1", f"1.1.1.{sop}", at_ticks=ticks_at(hour), modality="CT")


def due(site: Site, hour: float) -> list[tuple[int, int]]:
    return [(w.start, w.end) for w in planned(site.settings, request(None, None, None, None), clock=lambda: at(hour))]


# -- what is checked -----------------------------------------------------------------------------------------


def check_the_ledger_is_last(folder: Path) -> None:
    """A run that dies before its MERGEs are done has covered nothing: the next reads its window again."""
    with landing_only(folder, merge=_in_turn(_killed, _merged)) as site:
        create(site, 9)
        site.clock(10.5)
        with pytest.raises(Killed):
            site.sync()
        assert landed(site) == {1}
        assert [run.entries_read for run in site.sync()] == [1], "what was not merged is read again"
        assert due(site, 10.5) == []


def check_the_coverage(folder: Path) -> None:
    """An open range that is read by a clock three hours ahead covers what was closed by the slower one."""
    with landing_only(folder) as site:
        create(site, 9)
        site.clock(10)
        (run,) = site.sync(until=text_at(20), now=at(13))
        assert landed(site) == {1}
        create(site, 9.9, "2")
        create(site, 10.5, "3")
        site.clock(12)
        site.sync(now=at(12))
        assert landed(site) == served(site, 11) == {1, 2, 3}, "what was not closed is read again"
        assert run.covered_until == ticks_at(9.75), "coverage ends at now - delay, by the slower clock"


def check_the_run_ids(folder: Path) -> None:
    """Ids of which only a row of the ledger or a marker is left are not given again."""
    with landing_only(folder, merge=_in_turn(_merged, _killed, _merged)) as site:
        create(site, 9)
        site.clock(10.5)
        site.sync()
        create(site, 10.9, "2")
        site.clock(12)
        with pytest.raises(Killed):
            site.sync()
        assert {row["runId"] for row in site.rows("change")} == {1, 2}
        assert [row["runId"] for row in site.ledger()] == [1]
        shutil.rmtree(site.root / "_claims")
        with suppress(Superseded):
            site.sync()
        assert [(row["runId"], row["status"]) for row in site.ledger()] == [
            (1, "succeeded"),
            (3, "succeeded"),
        ], "a run id is never given again"


def check_a_skipped_merge(folder: Path) -> None:
    """A MERGE that was skipped, since a newer run has written, ends the run, and covers nothing."""
    with landing_only(folder, merge=merge.merge_landed) as site, pytest.MonkeyPatch.context() as patched:
        nothing = merge.Fold(lambda _: None, 0, frozenset(), None)  # type: ignore[arg-type,return-value]
        patched.setattr(merge, "folded", lambda *_: nullcontext(nothing))
        patched.setattr(merge, "merge_instance", lambda *_, **__: MergeResult(0, 0, 0, None))
        patched.setattr(merge, "roll_up", lambda *_, **__: (1, 1))
        create(site, 9)
        site.clock(10.5)
        with suppress(Superseded):
            site.sync()
        assert landed(site) == {1}
        assert due(site, 10.5) == [(ticks_at(0), ticks_at(10))], "what a superseded run has read is due again"
        (row,) = site.ledger()
        assert (row["status"], row["windowEnd"]) == ("superseded", at(10)), "it says what happened, and to what"


def check_the_rejects(folder: Path) -> None:
    """A reject that has healed is resolved by a run that has merged it, and not by one that was superseded."""
    with landing_only(folder, merge=_in_turn(_rejected, _superseded, _merged)) as site:
        create(site, 9)
        site.service.faults.add(Fault(sequences=(1,)))
        site.clock(10.5)
        site.sync()
        assert [(row["sequence"], row["status"]) for row in site.rows("rejected")] == [(1, "open")]
        site.service.faults.clear()
        site.clock(11.5)
        with pytest.raises(Superseded):
            site.sync()
        assert [row["status"] for row in site.rows("rejected")] == ["open"], "nothing is resolved that was not merged"
        site.sync()
        assert sorted(row["status"] for row in site.rows("rejected")) == ["open", "resolved"], "it is resolved once"


APP = "lake/table"


def _add(table: DeltaTable, run_id: int) -> None:
    append_rows(table, pa.table({"run": [run_id]}), app_id=APP, run_id=run_id, details={})


def check_the_marker(folder: Path) -> None:
    """An older run does not write after a newer one, and none twice."""
    path = str(folder / "table")
    create_table(path, pa.schema([("run", pa.int64())]), name="table", properties={})
    _add(DeltaTable(path), 5)
    assert DeltaTable(path).transaction_version(APP) == 5
    with suppress(Superseded):
        _add(DeltaTable(path), 3)
    assert DeltaTable(path).transaction_version(APP) == 5, "a marker is never lowered"
    with suppress(Superseded):
        _add(DeltaTable(path), 5)
    assert len(DeltaTable(path).file_uris()) == 1, "a run writes a table once"


def check_the_claim(folder: Path) -> None:
    """While one run works, another is refused and nothing is read twice."""
    said: list[str] = []

    def meanwhile(*_: Any) -> RunResult:
        said.append("merging")
        if len(said) == 1:
            try:
                said.extend(run.status for run in site.sync())
            except TemporaryError as error:
                said.append(type(error).__name__)
        return outcome()

    with landing_only(folder, merge=meanwhile) as site:
        create(site, 9)
        site.clock(10.5)
        with suppress(Superseded):
            site.sync()
        assert landed(site) == {1}
        assert said == ["merging", "AnotherWriter"], "one writer at a time"


# -- what is broken ------------------------------------------------------------------------------------------


def _run(early: Callable[..., Run | None]) -> Callable[..., Run]:
    """One run that does something before its MERGEs: what that gives stands in the place of its last step."""

    def run(session: WriteSession, plan: RunPlan, *_: Any) -> Run:
        read = pipeline.read_and_land(session, plan)
        pipeline.make_shared_tables(session.engine.session(0), session)
        row = early(session, plan, read)
        done = pipeline.merge_landed(None, session, read.landed)  # type: ignore[arg-type]
        return row or record.record(session, plan, read, done)

    return run


def _ledger_first(session: WriteSession, plan: RunPlan, read: Any) -> Run:
    return record.record(session, plan, read, outcome())


def _rejects_first(session: WriteSession, _plan: RunPlan, read: Any) -> None:
    rejected = {unusable.sequence for unusable in read.landed.unusable}
    pipeline.record_rejects(session, read.landed, read.rejects_seen, rejected, session.now())


def _record_as_covered(row: Run, lake: LakeSnapshot, real: Any = write_session._record_failure) -> None:
    real(replace(row, status="succeeded", covered_until=row.window_end), lake)


def _ids_of_the_ledger(lake: LakeSnapshot | None) -> int:
    return max((run.run_id for run in lake.runs()), default=0) if lake else 0


def _claim_beside_others(*where: Any, real: Any = write_session.claim, **how: Any) -> Any:
    return real(*where, **{**how, "own_ids": range(100)})


AGAIN = "what a superseded run has read is due again"
MUTANTS = [
    Mutant("ledger first", check_the_ledger_is_last, sync, "run", _run(_ledger_first),
           "what was not merged is read again"),
    Mutant("coverage up to the end", check_the_coverage, record, "coverage_end", lambda read, _now, _delay: read.end,
           "what was not closed is read again"),
    Mutant("coverage without the delay", check_the_coverage, record, "coverage_end",
           lambda read, now, _delay: min(read.end, now), "coverage ends at now - delay, by the slower clock"),
    Mutant("now by our own clock", check_the_coverage, sync, "_now", lambda _client, clock: from_datetime(clock()),
           "what was not closed is read again"),
    Mutant("run ids from claim files only", check_the_run_ids, write_session, "highest_run_id", lambda _lake: 0,
           "a run id is never given again"),
    Mutant("run ids without the markers", check_the_run_ids, write_session, "highest_run_id", _ids_of_the_ledger,
           "a run id is never given again"),
    Mutant("a skipped MERGE not noticed", check_a_skipped_merge, merge, "version_of",
           lambda merged, _table: merged.version or 0, AGAIN),
    Mutant("coverage of a superseded run", check_a_skipped_merge, write_session, "_record_failure",
           _record_as_covered, AGAIN),
    Mutant("rejects before the MERGEs", check_the_rejects, sync, "run", _run(_rejects_first),
           "nothing is resolved that was not merged"),
    Mutant("a commit without a look at the marker", check_the_marker, commit, "txn_version", lambda *_: 0,
           "a marker is never lowered"),
    Mutant("claims that nobody looks at", check_the_claim, write_session, "claim", _claim_beside_others,
           "one writer at a time"),
]  # fmt: skip


@pytest.mark.parametrize("check", checks(MUTANTS), ids=lambda check: check.__name__)
def test_the_real_code_passes(tmp_path: Path, check: Callable[[Path], None]) -> None:
    """The checks below are those that the product meets."""
    check(tmp_path)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.rule)
def test_the_broken_twin_is_caught(tmp_path: Path, mutant: Mutant) -> None:
    """With the guard broken the very same check fails, by its own assertion."""
    assert_caught(mutant, tmp_path)


def test_broken_runs_are_right_but_for_their_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin of a run that does nothing early passes."""
    monkeypatch.setattr(sync, "run", _run(lambda *_: None))
    check_the_ledger_is_last(tmp_path / "1")
