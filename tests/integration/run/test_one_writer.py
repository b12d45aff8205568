"""One writer at a time: who comes second is told, who was overtaken stops, and no run id comes back (issue 4, §2)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from dicom_emulator.testing.faults import Fault
from dicom_etl.core.timerange import Window
from dicom_etl.lake.lake_id import service_fingerprint
from dicom_etl.lake.open import make_lake
from dicom_etl.lake.paths import lake_paths
from support.due import TABLES, check_equal, copy_of, covered, make_due, markers, strays, synced, versions
from support.site import Site, at, text_at, ticks_at
from support.stopping import BEAT_SECONDS, at_point, child, let_go_on, stop_jvm_in_merge, wait_until_stopped
from support.story import NoSpark

Command = Callable[..., tuple[int, str, str]]
# A window of the finished story that holds nothing: a run of it needs no JVM.
EMPTY = ("--start", text_at(14), "--end", text_at(15))


@pytest.fixture(scope="module")
def prepared(make_shared_site: Callable[..., Site]) -> Site:
    return make_due(make_shared_site())


@pytest.fixture
def due(prepared: Site, tmp_path: Path) -> Iterator[Site]:
    """A lake that run 1 has written, and in which changes are due."""
    yield copy_of(prepared, tmp_path)
    prepared.service.faults.clear()
    prepared.service.clock.freeze(at(15), step=0)


def claim_path(site: Site, run_id: int) -> Path:
    return site.root / "_claims" / f"{run_id:020d}.json"


def claim_of(site: Site, run_id: int) -> dict[str, Any]:
    return dict(json.loads(claim_path(site, run_id).read_bytes()))


def claims(site: Site) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (site.root / "_claims").iterdir()}


def let_claim_go_stale(site: Site, run_id: int) -> None:
    """The heartbeat of a stopped run, as if it were a minute old; the watch of 20 s costs an injected sleep only."""
    assert claim_of(site, run_id)["released"] is False
    then = time.time() - 61
    os.utime(claim_path(site, run_id), (then, then))


# -- two at once ---------------------------------------------------------------------------------------------


def test_of_two_writers_the_second_is_told_who_and_since_when(copy: Site, command: Command) -> None:
    """While a sync lives, another process's sync, a maintain and a repair end with 75 and change nothing."""
    with child(copy, "row next", "SIGSTOP", "sync", *EMPTY) as first:
        wait_until_stopped(first)
        before = versions(copy), copy.ledger(), claims(copy)
        since = claim_of(copy, 6)["claimedAt"][:19] + "Z"
        line = (
            f"sync is running on host {socket.gethostname()}, pid {first.pid}, since {since} (run 6); try again later"
        )
        settings = [word for text in copy.texts for word in ("--set", text)]
        second = subprocess.run(
            [sys.executable, "-m", "dicom_etl", "sync", *EMPTY, *settings],
            cwd=copy.folder, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert (second.returncode, second.stdout, second.stderr) == (75, "", f"dicom-etl: {line}\n")
        for words in (["maintain"], ["repair"], ["repair", "--rebuild"], ["sync"]):
            assert command(copy, *words) == (75, "", line), words
        assert (versions(copy), copy.ledger(), claims(copy)) == before
        assert sorted(before[2])[-1] == claim_path(copy, 6).name

        assert let_go_on(first) == (0, [])
    assert [(row["runId"], row["status"]) for row in copy.ledger()][-1] == (6, "succeeded")
    assert claim_of(copy, 6)["released"] is True
    check_equal(copy)


# -- a stopped run is overtaken ------------------------------------------------------------------------------

# Where the older run stands still, and in which words it ends when the newer one has reached that table.
CHANGE = {
    "files written": "change: run 2 may not write, run 3 already has",
    "landing opened": "change: run 3 has written, run 2 stops",
}
MERGES = {
    "instance next": "instance: a newer run has written; this one stops and covers nothing",
    "instance merged": "series: a newer run has written; this one stops and covers nothing",
    "study merged": "series: a newer run has written; this one stops and covers nothing",
    "series merged": "study: a newer run has written; this one stops and covers nothing",
}
LEDGER = {
    "row next": "run: run 6 may not write, run 7 already has",
    "ledger opened": "run: run 7 has written, run 6 stops",
}
SOAK = pytest.mark.soak


@pytest.mark.soak
@pytest.mark.parametrize(
    ("point", "line"),
    [("files written", CHANGE["files written"])]
    + [pytest.param(*case, marks=SOAK) for case in (CHANGE | MERGES).items() if case[0] != "files written"],
)
def test_a_run_that_was_overtaken_finds_the_table_taken(due: Site, point: str, line: str) -> None:
    """The newer run has been to its end when the older one goes on: it writes nothing more, covers nothing, 75."""
    with child(due, point, "SIGSTOP", "sync") as older:
        wait_until_stopped(older)
        reached = {name for name, run in markers(due).items() if run == 2}
        assert reached == {
            "files written": set(), "landing opened": set(), "instance next": {"change"},
            "instance merged": {"change", "instance"}, "study merged": {"change", "instance", "study"},
            "series merged": {"change", "instance", "series"},
        }[point]  # fmt: skip
        let_claim_go_stale(due, 2)
        run = synced(due, due.feed(11, 14))
        assert run.run_id == 3
        before = versions(due), due.ledger()
        assert let_go_on(older) == (75, [f"dicom-etl: {line}"])
    assert (versions(due), due.ledger()) == before
    ends = [(row["runId"], row["status"]) for row in before[1]]
    assert ends == [(1, "succeeded"), (2, "killed"), (3, "succeeded")]
    assert markers(due) == {"change": 3, "instance": 3, "series": 3, "study": 3, "rejected": 0, "run": 3}
    assert strays(due, "change") == set()
    check_equal(due)
    assert due.sync(spark=NoSpark()) == []


@pytest.mark.parametrize(("point", "line"), LEDGER.items())
def test_a_run_that_was_overtaken_before_its_row_covers_nothing(copy: Site, point: str, line: str) -> None:
    """The newer run has its row in the ledger: the older one gets none, and says so with 75."""
    with child(copy, point, "SIGSTOP", "sync", *EMPTY) as older:
        wait_until_stopped(older)
        assert markers(copy)["run"] == 5
        let_claim_go_stale(copy, 6)
        (run,) = copy.sync(start=text_at(15), end=text_at(16), spark=NoSpark())
        assert run.run_id == 7
        before = versions(copy)
        assert let_go_on(older) == (75, [f"dicom-etl: {line}"])
    assert versions(copy) == before
    assert [(row["runId"], row["status"]) for row in copy.ledger()][-2:] == [(6, "killed"), (7, "succeeded")]
    # The service's clock says 15:00: nothing of the newer run's window was closed, and the older one's is still due.
    assert covered(copy) == [Window(ticks_at(0), ticks_at(14))]
    check_equal(copy)


@pytest.mark.soak
def test_a_run_that_was_overtaken_rejects_nothing(due: Site) -> None:
    """A newer run that met nothing bad left no marker in `rejected`: the older one looks at `instance` instead."""
    bad = next(row.sequence for row in due.feed(11, 13) if row.key[1] == "1.8")
    due.service.faults.add(Fault(sequences=(bad,)))
    with child(due, "all merged", "SIGSTOP", "sync") as older:
        wait_until_stopped(older)
        assert (len(due.rows("instance")), due.rows("rejected")) == (25, [])
        due.service.faults.clear()
        let_claim_go_stale(due, 2)
        assert synced(due, due.feed(11, 14)).run_id == 3
        line = "dicom-etl: rejected: a newer run has written; this one stops and covers nothing"
        assert let_go_on(older) == (75, [line])
    assert due.rows("rejected") == []
    check_equal(due)


# -- a stopped run goes on before the newer one has come so far ----------------------------------------------

# Where the older run stands still, and where the newer one waits until the older has ended.
NOT_YET = {
    "files written": "files written",
    "instance next": "instance next",
    "instance merged": "series next",
    "study merged": "series next",
    "series merged": "study next",
}


@pytest.mark.soak
@pytest.mark.parametrize(("point", "held"), NOT_YET.items())
def test_a_run_that_goes_on_before_the_newer_one_does_no_harm(
    due: Site, monkeypatch: pytest.MonkeyPatch, point: str, held: str
) -> None:
    """The newer run has its claim and not yet the table: the older one merges, and has the row of a dead run."""
    ended: list[Any] = []
    with child(due, point, "SIGSTOP", "sync") as older:
        wait_until_stopped(older)
        let_claim_go_stale(due, 2)

        def overtaken() -> None:
            assert claim_of(due, 3)["released"] is False
            ended.append(let_go_on(older))
            ended.append([row["runId"] for row in due.ledger()])
            ended.append(markers(due))

        at_point(held, overtaken, monkeypatch.setattr)
        # What the older run merges after the newer one has looked for equal rows is equal, and counts as updated.
        (run,) = due.sync(accounted=point != "instance next")
    code, rows, marked = ended
    assert (code, rows) == ((75, ["dicom-etl: run: run 2 may not write, its row stands already"]), [1, 2])
    newer_has = {"files written": set(), "instance next": {"change"}}.get(point, {"change", "instance"})
    assert {name for name, run_id in marked.items() if run_id == 3} == newer_has
    assert {name for name, run_id in marked.items() if run_id == 2} == set(TABLES) - newer_has - {"rejected"}
    assert (run.run_id, run.entries_read) == (3, 22)
    assert [(row["runId"], row["status"]) for row in due.ledger()] == [
        (1, "succeeded"), (2, "killed"), (3, "succeeded"),
    ]  # fmt: skip
    check_equal(due)
    assert covered(due) == [Window(ticks_at(0), ticks_at(14))]


@pytest.mark.parametrize("held", LEDGER)
def test_of_a_runs_own_row_and_the_row_of_its_death_the_first_stands(
    copy: Site, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    """An older run that goes on before it is recorded as dead has its row; after that it ends with 75, without one."""
    ended: list[Any] = []
    with child(copy, "ledger opened", "SIGSTOP", "sync", *EMPTY) as older:
        wait_until_stopped(older)
        let_claim_go_stale(copy, 6)
        at_point(held, lambda: ended.append(let_go_on(older)), monkeypatch.setattr)
        (run,) = copy.sync(start=text_at(14), end=text_at(15), spark=NoSpark())
        assert run.run_id == 7
    too_late = (75, ["dicom-etl: run: a newer run took run 6 for dead, it stops"])
    assert ended == [too_late if held == "row next" else (0, [])]
    assert [(row["runId"], row["status"]) for row in copy.ledger()][-2:] == [
        (6, "killed" if held == "row next" else "succeeded"), (7, "succeeded"),
    ]  # fmt: skip
    assert covered(copy) == [Window(ticks_at(0), ticks_at(14.75))]
    check_equal(copy)


# -- run ids -------------------------------------------------------------------------------------------------


def test_a_run_id_never_comes_back(copy: Site) -> None:
    """Not by a clock that jumps back, nor without claim files, nor when all that knows it is one table's marker."""

    def next_id(hour: float = 15, spark: Any = None) -> int:
        (run,) = copy.sync(start=text_at(14), end=text_at(15), now=at(hour), spark=spark or NoSpark())
        assert copy.ledger()[-1]["runId"] == run.run_id
        return run.run_id

    assert [next_id(hour) for hour in (15, 1, -24 * 365)] == [6, 7, 8]
    assert len(claims(copy)) == 8
    for path in (copy.root / "_claims").iterdir():
        path.unlink()
    assert next_id() == 9
    shutil.rmtree(copy.root / "_claims")
    assert next_id() == 10
    for number, name in enumerate(("change", "instance", "series", "study", "rejected", "run"), 2):
        shutil.rmtree(copy.root / "_claims")
        mark(copy, name, 10 * number)
        assert {other: run for other, run in markers(copy).items() if run >= 10 * number} == {name: 10 * number}
        # What was never rolled up, as the marker of `change` or `instance` says now, is work for Spark.
        assert next_id(spark=copy.spark if name in ("change", "instance") else None) == 10 * number + 1, name
    assert [row["runId"] for row in copy.ledger()] == [1, 2, 4, 5, 6, 7, 8, 9, 10, 21, 31, 41, 51, 61, 71]
    check_equal(copy)


def mark(site: Site, name: str, run_id: int) -> None:
    """Leave the marker of a run in a table, and nothing else of it (delta-rs writes no clustered table)."""
    table = DeltaTable(site.root / name)
    app_id = f"{table.metadata().configuration['dicomEtl.lakeId']}/{name}"
    actions = [{"commitInfo": {"timestamp": 0}}, {"txn": {"appId": app_id, "version": run_id}}]
    log = site.root / name / "_delta_log" / f"{table.version() + 1:020d}.json"
    with log.open("x") as file:
        file.writelines(json.dumps(action) + "\n" for action in actions)


# -- lakes that are in each other's way ----------------------------------------------------------------------

# (That a lake pointed at another service is refused with 78: test_sync.py, test_a_lake_of_another_service_is_refused.)
SHARING = {
    "instance": ["lake.instance_path=lake/instance"],
    "study": ["lake.study_path=lake/study"],
    "change": ["lake.private_root={folder}/lake"],
}


@pytest.mark.parametrize("own", [False, True], ids=["a new lake", "a lake of its own"])
@pytest.mark.parametrize("table", SHARING)
def test_two_lakes_that_share_a_table_are_refused(copy: Site, command: Command, table: str, own: bool) -> None:
    """65 for the second one, in one line; the first keeps all it had, and goes on.

    78 where private_root has tables and lake.root nothing: it looks as a root that is not mounted.
    """
    # Its root is the folder above the first one's.
    above = copy.place("run").removesuffix("/lake/run")
    texts = [text.format(folder=above) for text in SHARING[table]]
    second = copy.having(f"lake.root={above}", *texts)
    if own:
        make_lake(lake_paths(second.settings), service_fingerprint(second.settings.dicom.base_url))
    before = versions(copy), copy.ledger()
    expected, says = 65, f"the table {table} belongs to a lake whose table run is not here"
    if own:
        says = f"the table {table} belongs to another lake"
    elif table == "change":
        expected, says = 78, "but lake.private_root has the tables of one"
    for verb in ("sync", "maintain", "repair"):
        code, out, line = command(second, verb)
        assert (code, out, len(line.splitlines())) == (expected, "", 1)
        assert says in line
    assert (versions(copy), copy.ledger()) == before
    filesystem, path = copy.storage.filesystem(above)
    assert {Path(name).name for name in filesystem.ls(path, detail=False)} == {"lake", *(["run"] if own else [])}
    (run,) = copy.sync(start=text_at(14), end=text_at(15), spark=NoSpark())
    assert run.run_id == 6


# -- the JVM alone stands still ------------------------------------------------------------------------------


@pytest.mark.soak
def test_the_heartbeat_stops_with_the_jvm(due: Site) -> None:
    """While its JVM is stopped in a MERGE the claim does not move; then both go on, and the run ends with 0."""
    with child(due, "landed", "none", "sync") as running:
        jvm = stop_jvm_in_merge(due, running.pid)
        try:
            before = claim_of(due, 2)["beats"]
            assert before > 5
            time.sleep(5 * BEAT_SECONDS)  # one beat may have been on its way
            stopped = claim_of(due, 2)
            time.sleep(15 * BEAT_SECONDS)
            assert claim_of(due, 2) == stopped
            assert stopped["beats"] <= before + 1
            assert stopped["released"] is False
            assert markers(due)["instance"] == 1
        finally:
            os.kill(jvm, signal.SIGCONT)
        assert let_go_on(running) == (0, [])
    assert claim_of(due, 2)["beats"] > stopped["beats"]
    assert [(row["runId"], row["status"]) for row in due.ledger()] == [(1, "succeeded"), (2, "succeeded")]
    check_equal(due)
