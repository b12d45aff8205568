"""kill -9 at every point of a run: what is there then, and that the next sync makes the tables equal (issue 4, §1)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from delta.tables import DeltaTable

from dicom_emulator.testing.faults import Fault
from dicom_etl.commands.maintain import maintain
from dicom_etl.commands.repair.repair import repair
from dicom_etl.core.timerange import Window
from dicom_etl.lake.ledger import Run
from support.due import SHARED, TABLES, check_equal, copy_of, covered, make_due, markers, strays, synced, versions
from support.site import Site, at, text_at, ticks_at
from support.stopping import busy_ticks, child, gone, killed, stop_jvm_in_merge, wait_for


@pytest.fixture(scope="module")
def prepared(make_shared_site: Callable[..., Site]) -> Site:
    return make_due(make_shared_site("feed.batch_size=5"))


@pytest.fixture
def due(prepared: Site, tmp_path: Path) -> Iterator[Site]:
    """A lake in which changes are due, five entries a page, one of them a new instance without metadata for now."""
    prepared.service.faults.add(Fault(sequences=(bad_sequence(prepared),)))
    yield copy_of(prepared, tmp_path)
    prepared.service.faults.clear()
    prepared.service.clock.freeze(at(15), step=0)


def bad_sequence(site: Site) -> int:
    (row,) = (row for row in site.feed(11, 13) if row.key[1] == "1.8")
    return int(row.sequence)


def healed(site: Site, entries: list[Any] | None = None) -> Run:
    """The next sync, an hour later and with all metadata served; it reads what is due, or these entries."""
    site.service.faults.clear()
    site.clock(16)
    run = synced(site, site.feed(11, 15) if entries is None else entries)
    assert covered(site) == [Window(ticks_at(0), ticks_at(15))]
    return run


# What a run has committed before it dies at the point; those without "instance" die before a JVM is started.
DIES_AT: dict[str, tuple[str, ...]] = {
    "page read": (),
    "files written": (),
    "landed": ("change",),
    "instance merged": ("change", "instance"),
    "series merged": ("change", "instance", "series"),
    "study merged": ("change", "instance", "study"),
    "all merged": ("change", *SHARED),
    "rejects recorded": ("change", *SHARED, "rejected"),
    "row written": TABLES,
}
IN_CI = ("instance merged",)


@pytest.mark.parametrize("point", [p if p in IN_CI else pytest.param(p, marks=pytest.mark.soak) for p in DIES_AT])
def test_the_next_sync_heals_a_killed_one(due: Site, point: str) -> None:
    """kill -9 at the point leaves what was committed, covers nothing before its row, and the next sync is right."""
    before = versions(due)
    assert markers(due) == {"change": 1, "instance": 1, "series": 1, "study": 1, "rejected": 0, "run": 1}
    assert not strays(due, "change")

    killed(due, point)

    reached = DIES_AT[point]
    assert versions(due) == {name: before[name] + (name in reached) for name in TABLES}
    assert {name for name, run in markers(due).items() if run == 2} == set(reached)
    assert bool(strays(due, "change")) == (point == "files written")
    assert [row["runId"] for row in due.ledger()] == ([1, 2] if "run" in reached else [1])
    assert covered(due) == [Window(ticks_at(0), ticks_at(14 if "run" in reached else 11))]
    assert [(r["sequence"], r["status"]) for r in due.rows("rejected")] == (
        [(bad_sequence(due), "open")] if "rejected" in reached else []
    )
    if not set(SHARED) <= set(reached):
        assert due.tables() != due.expected()

    only_the_reject = [row for row in due.feed(11, 13) if row.sequence == bad_sequence(due)]
    run = healed(due, only_the_reject if "run" in reached else None)
    assert run.run_id == 3
    assert run.completes == (2 if "change" in reached and not set(SHARED) <= set(reached) else None)
    second = "succeeded" if "run" in reached else "killed"
    assert [(row["runId"], row["status"]) for row in due.ledger()] == [(1, "succeeded"), (2, second), (3, "succeeded")]
    check_counted(due, before["instance"], merged="instance" in reached)
    assert {(r["runId"], r["status"]) for r in due.rows("rejected")} == (
        {(2, "open"), (3, "resolved")} if "rejected" in reached else set()
    )


def check_counted(site: Site, version: int, *, merged: bool) -> None:
    """Run 2 counts what it has taken from and given to the table ``instance``: to the row, whatever ended it."""
    row = site.ledger()[1]
    if not merged:
        assert (row["entriesRead"], row["deleted"], row["instanceVersion"]) == (0, 0, None)
        return
    keys = [
        {
            (r["studyInstanceUid"], r["seriesInstanceUid"], r["sopInstanceUid"])
            for r in site.rows("instance", at_version)
        }
        for at_version in (version, version + 1)
    ]
    assert (row["inserted"], row["deleted"]) == (len(keys[1] - keys[0]), len(keys[0] - keys[1]))
    assert row["deleted"] > 0
    outcomes = sum(row[name] for name in ("inserted", "updated", "deleted", "superseded", "rejected"))
    assert (row["entriesRead"], row["instanceVersion"]) == (outcomes, version + 1)
    assert outcomes == sum(entry["runId"] == 2 for entry in site.rows("change"))


@pytest.mark.soak
def test_a_killed_run_takes_with_it_the_one_that_was_begun_ahead(due: Site) -> None:
    """Two claims and the files of both lie there; the next sync takes over from both and reads everything again."""
    killed(due.having("feed.max_entries_per_run=1"), "instance merged")
    assert [claim.name[:20].lstrip("0") for claim in sorted((due.root / "_claims").glob("*.json"))] == ["1", "2", "3"]
    assert markers(due) == {"change": 2, "instance": 2, "series": 1, "study": 1, "rejected": 0, "run": 1}
    assert covered(due) == [Window(ticks_at(0), ticks_at(11))]

    assert healed(due).run_id == 4
    ends = [(row["runId"], row["status"], row["errorClass"]) for row in due.ledger()]
    assert ends == [(1, "succeeded", None), (2, "killed", "Killed"), (4, "succeeded", None)]


# -- Python alone is killed, its JVM goes on -----------------------------------------------------------------


@contextmanager
def stopped_while_it_merges(site: Site, python: int) -> Iterator[int]:
    """The JVM of a child, stopped after the first new file of ``instance`` and before the commit.

    A JVM ends with its standard input: here that is held open besides, so that it outlives its Python.
    """
    version = site.version("instance")
    jvm = stop_jvm_in_merge(site, python)
    pipe = os.readlink(f"/proc/{jvm}/fd/0")
    assert pipe.startswith("pipe:")
    (end,) = (path for path in Path(f"/proc/{python}/fd").iterdir() if os.readlink(path) == pipe)
    held = os.open(end, os.O_WRONLY)
    try:
        assert site.version("instance") == version, "it was too quick to be stopped before its commit"
        yield jvm
    except BaseException:
        os.kill(jvm, signal.SIGKILL)
        raise
    finally:
        os.close(held)


def wait_until_idle(pid: int) -> None:
    """Wait until a process has had next to no processor time for a second."""
    seen = [busy_ticks(pid)]

    def idle() -> bool:
        seen.append(busy_ticks(pid))
        return len(seen) > 10 and seen[-1] - seen[-11] <= 3

    wait_for(idle, every=0.1)


@pytest.mark.soak
@pytest.mark.parametrize("first", ["the JVM", "the next run"])
def test_a_jvm_whose_python_was_killed_commits_first_or_never(due: Site, first: str) -> None:
    """A JVM that goes on alone ends its MERGE: before the next run, which heals it; after the next run it is fenced."""
    before = versions(due)
    with child(due, "landed", "none", "sync") as running, stopped_while_it_merges(due, running.pid) as jvm:
        running.kill()
        running.wait()
        assert not gone(jvm)
        assert versions(due) == before | {"change": before["change"] + 1}
        if first == "the next run":
            assert healed(due).run_id == 3
        then = versions(due)
        os.kill(jvm, signal.SIGCONT)
        if first == "the JVM":
            wait_for(lambda: due.version("instance") > before["instance"])
            assert markers(due)["instance"] == 2
            then["instance"] += 1
        # Its commit is made or refused by then; nobody tells it to go on with series and study.
        wait_until_idle(jvm)
        assert not gone(jvm)
        assert versions(due) == then
    wait_for(lambda: gone(jvm))
    assert versions(due) == then
    if first == "the JVM":
        assert due.tables() != due.expected()
        assert healed(due).run_id == 3
    check_equal(due)
    assert markers(due) == {"change": 3, "instance": 3, "series": 3, "study": 3, "rejected": 0, "run": 3}
    # Recorded when the next run began: then the JVM had committed, or never could.
    assert [row["runId"] for row in due.ledger()] == [1, 2, 3]
    assert (due.ledger()[1]["entriesRead"] > 0) == (first == "the JVM")


# -- other verbs ---------------------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.parametrize(("point", "words"), [("instance merged", []), ("instance built", ["--rebuild"])])
def test_the_next_sync_heals_a_killed_repair(copy: Site, point: str, words: list[str]) -> None:
    """Killed between its MERGEs: a sync with nothing to read rolls up what the repair has mended."""
    assert copy.spark is not None
    instance = DeltaTable.forPath(copy.spark, copy.place("instance"))
    instance.delete("sopInstanceUid = '1.7.2.1'")
    instance.update("sopInstanceUid = '1.7.2.2'", {"patientName": "'Wrong'", "sequence": "sequence + 1000"})
    series = DeltaTable.forPath(copy.spark, copy.place("series"))
    series.update("seriesInstanceUid = '1.7.2'", {"patientName": "'Wrong'", "instanceCount": "7"})
    assert copy.tables() != copy.expected()
    ranges = covered(copy)

    killed(copy, point, "repair", *words)
    assert copy.tables()["instance"] == copy.expected()["instance"]
    assert copy.tables()["series"] != copy.expected()["series"]
    assert {name for name, run in markers(copy).items() if run == 6} == {"change", "instance"}
    assert [row["runId"] for row in copy.ledger()] == [1, 2, 4, 5]

    (run,) = copy.sync()
    assert (run.run_id, run.entries_read, run.completes) == (7, 0, 6)
    assert [(row["runId"], row["verb"], row["status"]) for row in copy.ledger()][-2:] == [
        (6, "repair", "killed"),
        (7, "sync", "succeeded"),
    ]
    check_equal(copy)
    assert covered(copy) == ranges
    done = repair(copy.settings, spark=copy.spark, clock=lambda: at(15))
    assert (done.equal, set(done.found.values())) == (True, {0})


@pytest.mark.soak
def test_a_killed_maintain_leaves_the_tables_as_they_were(copy: Site) -> None:
    """Some tables are compacted, others not; the rows are the same, and syncs and the next maintain go on."""
    files = {name: copy.files(name) for name in TABLES}
    assert len(files["change"]) == 3
    killed(copy, "change maintained", "maintain")
    assert len(copy.files("change")) == 1
    assert {name for name in TABLES if copy.files(name) != files[name]} == {"run", "change"}
    assert [row["runId"] for row in copy.ledger()] == [1, 2, 4, 5]
    check_equal(copy)

    done = list(maintain(copy.settings, spark=copy.spark, clock=lambda: at(15)))
    assert len(done) == len(TABLES)
    last = copy.ledger()[-1]
    assert (last["runId"], last["verb"], last["status"]) == (7, "maintain", "succeeded")
    (run,) = copy.sync(start=text_at(11), end=text_at(14))
    assert (run.run_id, run.entries_read) == (8, 22)
    check_equal(copy)
