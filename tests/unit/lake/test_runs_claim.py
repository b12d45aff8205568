"""One writer per lake: who gets the claim, who steps back, and when somebody else's is stale."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from dicom_etl.core.errors import AccessDenied, AnotherWriter, ConfigurationError, StorageError
from dicom_etl.lake.claims.claim import Claim, claim
from dicom_etl.lake.claims.holder import Holder, holder
from dicom_etl.lake.claims.process import Process, this_process

NOW = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
NEVER = 3600.0  # seconds between beats of a test that beats by hand
HERE = Process(host="etl-1", pid=4242, started=99, boot_id="boot-a", namespace="pid:[1]")
ELSEWHERE = Process(host="etl-2", pid=17, started=5, boot_id="boot-b", namespace="pid:[1]")
SECOND = timedelta(seconds=1)


class Sleeps(list[float]):
    """A sleep that only remembers, and does something at its nth call."""

    def __init__(self, at: int = 0, then: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self._at, self._then = at, then

    def __call__(self, seconds: float) -> None:
        self.append(seconds)
        if len(self) == self._at:
            self._then()


def beat(held: Claim) -> bool:
    """One heartbeat by hand; whether the file was written."""
    return held._heartbeat.beat()


class Lake:
    """A folder of claims, and runs that begin on it by a frozen clock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.claims = root / "_claims"
        self._open = ExitStack()

    def begin(self, **changes: Any) -> Claim:
        arguments: dict[str, Any] = {
            "verb": "sync",
            "last_known_run_id": 0,
            "clock": lambda: NOW,
            "sleep": Sleeps(),
            "interval_seconds": NEVER,
            "process": HERE,
        } | changes
        fs = arguments.pop("fs", None) or LocalFileSystem()
        return self._open.enter_context(claim(fs, str(self.claims), **arguments))

    def file(self, run_id: int) -> Path:
        return self.claims / f"{run_id:020d}.json"

    def says(self, run_id: int) -> dict[str, Any]:
        return dict(json.loads(self.file(run_id).read_text()))

    def put(self, run_id: int, **changes: Any) -> None:
        """A claim of somebody else, as its file stands."""
        self.claims.mkdir(parents=True, exist_ok=True)
        self.file(run_id).write_text(
            json.dumps(
                {
                    "runId": run_id,
                    "nonce": f"nonce {run_id}",
                    "verb": "maintain",
                    "host": ELSEWHERE.host,
                    "pid": ELSEWHERE.pid,
                    "processStarted": ELSEWHERE.started,
                    "bootId": ELSEWHERE.boot_id,
                    "pidNamespace": ELSEWHERE.namespace,
                    "claimedAt": "2026-03-29T00:10:00Z",
                    "heartbeatAt": "2026-03-29T00:10:00Z",
                    "beats": 0,
                    "released": False,
                    "withdrawn": False,
                    "overtakenBy": None,
                }
                | changes
            )
        )

    def age(self, run_id: int, by: timedelta) -> None:
        """Move the file's modification time into the past, as the storage sees it."""
        moved = self.file(run_id).stat().st_mtime - by.total_seconds()
        os.utime(self.file(run_id), (moved, moved))

    def ids(self) -> list[int]:
        return sorted(int(path.stem) for path in self.claims.glob("[0-9]*.json"))

    def close(self) -> None:
        self._open.close()


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    made = Lake(tmp_path)
    yield made
    made.close()


def test_the_first_claim_of_a_lake_is_run_1_and_says_who_and_since_when(lake: Lake) -> None:
    """The file is named by the id with 20 digits and holds the process, the times, and nothing else."""
    held = lake.begin()

    assert held.run_id == 1
    assert [path.name for path in lake.claims.iterdir()] == ["00000000000000000001.json"]
    says = lake.says(1)
    assert len(says.pop("nonce")) == 32
    assert says == {
        "runId": 1,
        "verb": "sync",
        "host": "etl-1",
        "pid": 4242,
        "processStarted": 99,
        "bootId": "boot-a",
        "pidNamespace": "pid:[1]",
        "claimedAt": "2026-03-29T01:30:00Z",
        "heartbeatAt": "2026-03-29T01:30:00Z",
        "beats": 0,
        "released": False,
        "withdrawn": False,
        "overtakenBy": None,
    }


def test_a_second_writer_is_told_at_once_who_writes_and_since_when(lake: Lake) -> None:
    """It does not wait, and changes nothing."""
    lake.put(12, verb="sync")
    before = lake.file(12).read_bytes(), lake.file(12).stat().st_mtime_ns
    sleeps = Sleeps()

    with pytest.raises(AnotherWriter) as caught:
        lake.begin(sleep=sleeps)

    assert str(caught.value) == (
        "sync is running on host etl-2, pid 17, since 2026-03-29T00:10:00Z (run 12); try again later"
    )
    assert caught.value.exit_code == 75
    assert sleeps == []
    assert (lake.file(12).read_bytes(), lake.file(12).stat().st_mtime_ns) == before
    assert [path.name for path in lake.claims.iterdir()] == [f"{12:020d}.json"]


def test_a_released_claim_stays_as_a_file_and_the_next_id_follows_it(lake: Lake) -> None:
    """Release marks, never deletes; a second release changes nothing."""
    held = lake.begin()
    held.release()
    marked = lake.file(1).read_bytes(), lake.file(1).stat().st_mtime_ns
    held.release()

    assert lake.says(1)["released"] is True
    assert (lake.file(1).read_bytes(), lake.file(1).stat().st_mtime_ns) == marked
    assert lake.begin().run_id == 2
    assert lake.ids() == [1, 2]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_whatever_ends_the_run_releases_the_claim(lake: Lake, kind: type[BaseException]) -> None:
    """The context manager releases on errors and on the exceptions of SIGINT and SIGTERM."""
    held = lake.begin()
    assert lake.says(1)["released"] is False

    with pytest.raises(kind), held:
        raise kind

    assert lake.says(1)["released"] is True


@pytest.mark.parametrize(
    ("files", "floor", "expected"),
    [([], 0, 1), ([], 41, 42), ([7], 41, 42), ([50], 41, 51), ([3, 50, 9], 50, 51)],
)
def test_the_id_is_above_every_file_and_above_the_floor(
    lake: Lake, files: list[int], floor: int, expected: int
) -> None:
    """Lost claim files do not bring an id back, nor does a ledger that is behind."""
    for run_id in files:
        lake.put(run_id, released=True)
    assert lake.ids() == sorted(files)

    assert lake.begin(last_known_run_id=floor).run_id == expected


@pytest.mark.parametrize(
    ("holder", "why"),
    [
        ({"pid": 2**31 - 2}, "no such process"),
        ({"pid": os.getpid(), "processStarted": 1}, "the pid was given to a later process"),
    ],
)
def test_a_process_that_is_dead_on_this_host_is_succeeded_at_once(lake: Lake, holder: dict[str, Any], why: str) -> None:
    """Same host, boot and pids: its end is certain, so nobody waits, and it is marked as overtaken."""
    me = this_process()
    facts = {"host": me.host, "bootId": me.boot_id, "pidNamespace": me.namespace, "processStarted": 1}
    lake.put(5, **(facts | holder))
    sleeps = Sleeps()

    held = lake.begin(process=me, sleep=sleeps)

    assert held.run_id == 6, why
    assert sleeps == []
    assert (lake.says(5)["released"], lake.says(5)["overtakenBy"]) == (True, 6)


@pytest.mark.parametrize(
    "other", [{"host": "etl-9"}, {"bootId": "another boot"}, {"pidNamespace": "pid:[another container]"}]
)
def test_a_pid_of_another_machine_or_container_says_nothing(lake: Lake, other: dict[str, str]) -> None:
    """Where a pid means another process, only the heartbeat counts: a fresh one is alive."""
    me = this_process()
    facts = {"host": me.host, "bootId": me.boot_id, "pidNamespace": me.namespace}
    lake.put(5, **(facts | {"pid": 2**31 - 2} | other))

    with pytest.raises(AnotherWriter, match=r"run 5\)"):
        lake.begin(process=me)
    lake.age(5, 61 * SECOND)
    sleeps = Sleeps()

    assert lake.begin(process=me, sleep=sleeps).run_id == 6
    assert sum(sleeps) == 20.0


@pytest.mark.parametrize("age", [61 * SECOND, timedelta(days=3), -61 * SECOND, timedelta(hours=-1)])
def test_a_heartbeat_that_stands_still_is_overtaken_after_20_seconds(lake: Lake, age: timedelta) -> None:
    """Over 60 s from the storage's now, in the past or (a clock that fell back) the future, and unmoved."""
    lake.put(5)
    lake.age(5, age)
    sleeps = Sleeps()

    held = lake.begin(sleep=sleeps)

    assert held.run_id == 6
    assert sum(sleeps) == 20.0
    assert lake.says(5)["overtakenBy"] == 6


@pytest.mark.parametrize("age", [55 * SECOND, -55 * SECOND])
def test_a_heartbeat_of_the_last_minute_is_alive(lake: Lake, age: timedelta) -> None:
    """Up to 60 s nobody even watches."""
    lake.put(5)
    lake.age(5, age)
    sleeps = Sleeps()

    with pytest.raises(AnotherWriter, match=r"run 5\)"):
        lake.begin(sleep=sleeps)
    assert sleeps == []


@pytest.mark.parametrize("age", [300 * SECOND, -300 * SECOND])
def test_an_old_heartbeat_that_moves_while_it_is_watched_is_alive(lake: Lake, age: timedelta) -> None:
    """The writer's clock may be wrong by hours: what counts is that the file changes."""
    lake.put(5)
    lake.age(5, age)
    sleeps = Sleeps(at=10, then=lambda: lake.age(5, -SECOND))

    with pytest.raises(AnotherWriter, match=r"run 5\)"):
        lake.begin(sleep=sleeps)
    assert len(sleeps) == 10
    assert lake.ids() == [5]


def test_a_claim_that_is_released_while_it_is_watched_is_followed(lake: Lake) -> None:
    """The watched run ends in good order: that is no sign of another writer."""
    lake.put(5)
    lake.age(5, 61 * SECOND)

    held = lake.begin(sleep=Sleeps(at=3, then=lambda: lake.put(5, released=True)))

    assert held.run_id == 6
    assert lake.says(5)["overtakenBy"] in (None, 6)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"runId":5,"ver',
        b"[]",
        b"\xff\xfe",
        b'{"runId":5}',
    ],
)
def test_a_claim_cut_by_a_crash_counts_with_the_age_of_its_file(lake: Lake, content: bytes) -> None:
    """Fresh, somebody may just be writing it; old and unmoved, its id is used up and the file goes."""
    lake.put(5)
    lake.file(5).write_bytes(content)

    with pytest.raises(AnotherWriter, match=r"^another run has just begun \(run 5\); try again later$"):
        lake.begin()
    lake.age(5, 61 * SECOND)
    sleeps = Sleeps()

    assert lake.begin(sleep=sleeps).run_id == 6
    assert sum(sleeps) == 20.0
    assert lake.ids() == [6]


@pytest.mark.parametrize(
    "changes",
    [
        {"runId": 4}, {"claimedAt": "2026-03-29T00:10:00"}, {"pid": 0}, {"host": "two\nlines"},
        {"claimedAt": "0001-01-01T00:00:00+14:00"},
    ],
)  # fmt: skip
def test_a_claim_with_impossible_content_counts_as_a_cut_one(lake: Lake, changes: dict[str, Any]) -> None:
    """Nothing of it is believed, least of all `released`."""
    lake.put(5, released=True, **changes)

    with pytest.raises(AnotherWriter, match="another run has just begun"):
        lake.begin()


def test_a_claim_of_a_number_that_no_run_can_have_is_passed_over(lake: Lake) -> None:
    """The next id would not fit into the ledger, run after run."""
    lake.file(5).parent.mkdir(parents=True, exist_ok=True)
    (lake.file(5).parent / f"{10**19}.json").write_text("{}")
    assert lake.begin().run_id == 1


def test_one_silent_and_one_live_claim_mean_another_writer(lake: Lake) -> None:
    """Every unreleased claim is judged, not only the newest one."""
    lake.put(5)
    lake.put(8)
    lake.age(8, 61 * SECOND)

    with pytest.raises(AnotherWriter, match=r"run 5\)"):
        lake.begin()


def test_of_two_threads_that_race_exactly_one_wins_each_round(lake: Lake) -> None:
    """200 rounds on real files; ids grow by one, and none is given twice."""
    rounds, writers = 200, 2
    gate = threading.Barrier(writers)
    won: list[list[int]] = [[] for _ in range(rounds)]
    lost: list[list[int]] = [[] for _ in range(rounds)]

    def write(who: int) -> None:
        for number in range(rounds):
            gate.wait()
            held = None
            try:
                held = claim(
                    LocalFileSystem(),
                    str(lake.claims),
                    verb="sync",
                    last_known_run_id=0,
                    clock=lambda: NOW,
                    sleep=Sleeps(),
                    interval_seconds=NEVER,
                )
                won[number].append(held.run_id)
            except AnotherWriter:
                lost[number].append(who)
            gate.wait()
            if held is not None:
                held.release()

    threads = [threading.Thread(target=write, args=(who,)) for who in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [len(ids) for ids in won] == [1] * rounds
    assert [len(who) for who in lost] == [writers - 1] * rounds
    assert [ids[0] for ids in won] == list(range(1, rounds + 1))


RACER = """
    import sys, time
    from datetime import UTC, datetime
    from fsspec.implementations.local import LocalFileSystem
    from dicom_etl.core.errors import AnotherWriter
    from dicom_etl.lake.claims.claim import claim

    print("ready", flush=True)
    held = None
    for line in sys.stdin:
        if line == "release\\n":
            if held:
                held.release()
            held = None
            print("released", flush=True)
            continue
        try:
            held = claim(
                LocalFileSystem(), sys.argv[1], verb="sync", last_known_run_id=0, clock=lambda: datetime.now(UTC),
                sleep=time.sleep, interval_seconds=float(sys.argv[2]),
            )
            print("won", held.run_id, flush=True)
        except AnotherWriter:
            print("lost", flush=True)
        if line == "wait\\n":
            while held._heartbeat.beat():
                time.sleep(0.005)
            print("overtaken", flush=True)
"""


class Racer:
    """A process of its own that claims when it is told to."""

    def __init__(self, lake: Lake, interval_seconds: float = NEVER) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(RACER), str(lake.claims), str(interval_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        print(word, file=self.process.stdin, flush=True)

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __enter__(self) -> Racer:
        assert self.hear() == "ready"
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_of_three_processes_that_race_exactly_one_wins_each_round(lake: Lake) -> None:
    """60 rounds on real files, by processes that share nothing else."""
    with Racer(lake) as one, Racer(lake) as two, Racer(lake) as three:
        racers = [one, two, three]
        for number in range(1, 61):
            for racer in racers:
                racer.tell("claim")
            assert sorted(racer.hear() for racer in racers) == ["lost", "lost", f"won {number}"]
            for racer in racers:
                racer.tell("release")
            assert [racer.hear() for racer in racers] == ["released"] * 3


def test_after_kill_9_the_next_run_takes_over_at_once(lake: Lake) -> None:
    """A real process holds the claim and is killed; even as a zombie it is known to be dead."""
    with Racer(lake) as racer:
        racer.tell("claim")
        assert racer.hear() == "won 1"
        with pytest.raises(AnotherWriter, match=f"pid {racer.process.pid}"):
            lake.begin(process=this_process())
        racer.process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, racer.process.pid, os.WEXITED | os.WNOWAIT)
        sleeps = Sleeps()

        assert lake.begin(process=this_process(), sleep=sleeps).run_id == 2
        assert sleeps == []


def test_a_stopped_process_is_overtaken_and_notices_when_it_goes_on(lake: Lake) -> None:
    """SIGSTOP: alive but silent. After SIGCONT its heartbeat finds the newer run and gives up."""
    with Racer(lake, interval_seconds=0.02) as racer:
        racer.tell("wait")
        assert racer.hear() == "won 1"
        racer.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, racer.process.pid, os.WSTOPPED | os.WNOWAIT)
        lake.age(1, 61 * SECOND)

        held = lake.begin(process=this_process())
        racer.process.send_signal(signal.SIGCONT)

        assert held.run_id == 2
        assert racer.hear() == "overtaken"
        assert beat(held)


class Meddling(LocalFileSystem):
    """A local disk on which something happens right after our exclusive create."""

    cachable = False

    def __init__(self, then: Callable[[], None]) -> None:
        super().__init__()
        self._meddle = then

    def ls(self, path: str, detail: bool = False, **options: Any) -> Any:
        if any(name.endswith("6.json") for name in os.listdir(path)):
            self._meddle()
        return super().ls(path, detail=detail, **options)


@pytest.mark.parametrize(
    ("other", "changes"),
    [(4, {}), (8, {}), (8, {"released": True})],
    ids=["a lower one lives", "a higher one lives", "a higher one has been"],
)
def test_a_new_claim_steps_back_when_another_appears_beside_it(lake: Lake, other: int, changes: dict[str, Any]) -> None:
    """Two floors can differ, and so the ids: after the create everybody looks again."""
    lake.put(5, released=True)

    with pytest.raises(AnotherWriter, match=rf"\(run {other}\); try again later"):
        lake.begin(fs=Meddling(lambda: lake.put(other, **changes)))

    assert (lake.says(6)["released"], lake.says(6)["withdrawn"]) == (True, True)


@pytest.mark.parametrize(("other", "changes"), [(4, {"released": True}), (8, {"released": True, "withdrawn": True})])
def test_a_claim_that_is_over_makes_nobody_step_back(lake: Lake, other: int, changes: dict[str, Any]) -> None:
    """A lower run that ended, or a higher one that stepped back before us, is no writer."""
    lake.put(5, released=True)

    held = lake.begin(fs=Meddling(lambda: lake.put(other, **changes)))

    assert held.run_id == 6
    assert lake.says(6)["withdrawn"] is False


def test_a_silent_claim_that_moves_after_our_create_makes_us_step_back(lake: Lake) -> None:
    """It was continued in the very last moment: it goes on, we do not."""
    lake.put(5)
    lake.age(5, 61 * SECOND)

    with pytest.raises(AnotherWriter, match=r"run 5\)"):
        lake.begin(fs=Meddling(lambda: lake.put(5, beats=1)))
    assert lake.says(6)["withdrawn"] is True


class ObjectStore(MemoryFileSystem):
    """A storage without folders and without rename, whose answers to a create may go wrong."""

    cachable = False
    store: dict[str, Any] = {}  # noqa: RUF012 - MemoryFileSystem's own is shared by the process

    def __init__(self, after_create: Exception | None = None, before_create: Exception | None = None) -> None:
        super().__init__()
        self.store = {}
        self._after, self._before = after_create, before_create

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode != "xb" or (self._after, self._before) == (None, None):
            return super().open(path, mode, **options)
        if self._before is not None:
            raise self._before
        opened = super().open(path, mode, **options)
        close, error = opened.close, self._after

        def close_and_fail() -> None:
            close()
            raise error

        opened.close = close_and_fail
        return opened


def begin_on(fs: ObjectStore, **changes: Any) -> Claim:
    arguments: dict[str, Any] = {"verb": "sync", "last_known_run_id": 0, "process": HERE} | changes
    return claim(fs, "/lake/_claims", clock=lambda: NOW, sleep=Sleeps(), interval_seconds=NEVER, **arguments)


def test_claims_work_on_an_object_store(tmp_path: Path) -> None:
    """No folders, no rename: claim, refusal, beat, release and the next claim by plain puts and gets."""
    fs = ObjectStore()

    with begin_on(fs) as held:
        assert held.run_id == 1
        assert beat(held)
        with pytest.raises(AnotherWriter, match=r"host etl-1, pid 4242.*\(run 1\)"):
            begin_on(fs, process=ELSEWHERE)
    with begin_on(fs) as after:
        assert after.run_id == 2
    assert [json.loads(fs.cat(f"/lake/_claims/{i:020d}.json"))["released"] for i in (1, 2)] == [True, True]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [FileExistsError("exists"), TimeoutError("no answer")])
def test_a_creation_whose_answer_was_lost_is_recognised_as_ours(error: Exception) -> None:
    """A client repeats its own create and is told that the file exists: by its nonce it is ours."""
    fs = ObjectStore(after_create=error)

    with begin_on(fs) as held:
        assert held.run_id == 1
        assert json.loads(fs.cat(f"/lake/_claims/{1:020d}.json"))["released"] is False


def test_an_id_that_somebody_else_creates_first_is_lost() -> None:
    """The exclusive create decides, also between two that found the same silent claim."""
    fs = ObjectStore()
    begin_on(fs, process=ELSEWHERE, last_known_run_id=8)
    fs._before = FileExistsError("exists")
    other = fs.cat(f"/lake/_claims/{9:020d}.json").replace(b'"runId":9', b'"runId":10')
    fs.rm(f"/lake/_claims/{9:020d}.json")
    listed = iter([[], [10]])
    fs.ls = lambda *_, **__: [f"/lake/_claims/{i:020d}.json" for i in next(listed)]  # type: ignore[method-assign]
    fs.pipe_file(f"/lake/_claims/{10:020d}.json", other)

    with pytest.raises(AnotherWriter, match=r"host etl-2, pid 17.*\(run 10\); try again later"):
        begin_on(fs, last_known_run_id=9)


def test_a_storage_that_refuses_our_identity_ends_with_77() -> None:
    """403 of the storage account names the role, and repeats nothing of the answer."""
    fs = ObjectStore(before_create=HttpResponseError(message="AuthorizationPermissionMismatch 1.2.840.1"))

    with pytest.raises(AccessDenied, match="role Storage Blob Data Contributor") as caught:
        begin_on(fs)
    assert "1.2.840" not in str(caught.value)


class Failing(LocalFileSystem):
    """A local disk that fails with one error number: at the create, or while the content is written."""

    cachable = False

    def __init__(self, number: int, *, writing: bool) -> None:
        super().__init__()
        self._error, self._writing = OSError(number, os.strerror(number), "/secret/path"), writing

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if mode != "xb":
            return super().open(path, mode, **options)
        if not self._writing:
            raise self._error
        opened = super().open(path, mode, **options)
        opened.write = self._fail
        return opened

    def _fail(self, _: bytes) -> int:
        raise self._error


@pytest.mark.parametrize(
    ("number", "writing", "message"),
    [
        (errno.EACCES, False, "this user may not use"),
        (errno.EROFS, False, "the storage is read-only"),
        (errno.ENOSPC, False, "the storage is full"),
        (errno.ENOSPC, True, "the storage is full"),
        (errno.EIO, True, r"the storage failed \(EIO\)"),
    ],
)
def test_a_disk_that_cannot_be_written_ends_with_74(lake: Lake, number: int, writing: bool, message: str) -> None:
    """One line that says what is wrong, without a path; no claim is left behind, not even an empty one."""
    with pytest.raises(StorageError, match=f"^_claims: {message}") as caught:
        lake.begin(fs=Failing(number, writing=writing))

    assert "secret" not in str(caught.value)
    assert caught.value.exit_code == 74
    assert list(lake.claims.iterdir()) == []


@pytest.mark.parametrize("where", ["root", "above", "claims"])
def test_a_root_that_is_a_file_is_a_wrong_configuration(tmp_path: Path, where: str) -> None:
    """78, and the file is left as it was."""
    file = {"root": tmp_path / "lake", "above": tmp_path / "a", "claims": tmp_path / "lake/_claims"}[where]
    file.parent.mkdir(exist_ok=True)
    file.write_text("not a lake")
    root = tmp_path / "a/b" if where == "above" else tmp_path / "lake"

    with pytest.raises(ConfigurationError, match=r"^lake\.root is a file, not a folder") as caught:
        Lake(root).begin()

    assert caught.value.exit_code == 78
    assert file.read_text() == "not a lake"


def test_only_the_newest_ten_claim_files_are_kept(lake: Lake) -> None:
    """Old ones go, and what crashed writes left beside them; the newest never does."""
    for run_id in range(1, 15):
        lake.put(run_id, released=True)
    for name in (f".{3:020d}.4", f".{4:020d}.0123456789abcdef", f".{14:020d}.9", "README"):
        (lake.claims / name).write_text("left")

    lake.begin()

    assert lake.ids() == list(range(6, 16))
    assert sorted(path.name for path in lake.claims.glob("*") if path.suffix != ".json") == [
        f".{14:020d}.9",
        "README",
    ]


def test_one_process_may_hold_two_ids_to_read_ahead(lake: Lake) -> None:
    """It says which it holds; to everybody else both are claims of a live run."""
    first = lake.begin()

    second = lake.begin(own_ids=[first.run_id])

    assert (first.run_id, second.run_id) == (1, 2)
    with pytest.raises(AnotherWriter, match=r"run 2\)"):
        lake.begin(process=ELSEWHERE)
    assert [beat(first), beat(first)] == [True, True]
    second.release()
    with pytest.raises(AnotherWriter, match=r"run 1\)"):
        lake.begin(process=ELSEWHERE)


def test_a_beat_writes_the_file_and_counts(lake: Lake) -> None:
    """Time and count move, everything else stays."""
    times = iter([NOW, NOW + 10 * SECOND, NOW + 20 * SECOND])
    held = lake.begin(clock=lambda: next(times))
    before = lake.says(1)

    assert beat(held)

    assert lake.says(1) == before | {"heartbeatAt": "2026-03-29T01:30:10Z", "beats": 1}


def test_without_progress_there_is_no_beat(lake: Lake) -> None:
    """A value that does not change means that the work does not move: the claim is to go stale."""
    values = iter([1, 1, 1, 2])
    held = lake.begin(progress=lambda: next(values))

    assert [beat(held) for _ in range(4)] == [True, False, False, True]
    assert lake.says(1)["beats"] == 2


def test_a_progress_that_blocks_holds_up_neither_release_nor_the_truth(lake: Lake) -> None:
    """The JVM is stopped: no beat; released meanwhile, the late answer must not bring the claim back."""
    asked, answer = threading.Event(), threading.Event()

    def progress() -> int:
        asked.set()
        answer.wait()
        return 1

    held = lake.begin(progress=progress)
    beating = threading.Thread(target=beat, args=(held,))
    beating.start()
    assert asked.wait(5)
    assert lake.says(1)["beats"] == 0
    held.release()
    answer.set()
    beating.join()

    assert (lake.says(1)["beats"], lake.says(1)["released"]) == (0, True)


def test_the_heartbeat_beats_by_itself(lake: Lake) -> None:
    """A thread beats at each interval, and no more after the release."""
    beaten = threading.Semaphore(0)

    def progress() -> object:
        beaten.release()
        return object()

    held = lake.begin(progress=progress, interval_seconds=0.001)
    assert all(beaten.acquire(timeout=5) for _ in range(5))
    held.release()

    assert lake.says(1)["beats"] >= 4
    assert lake.says(1)["released"] is True
    assert not [thread for thread in threading.enumerate() if thread.name == "claim-1"]


def test_a_progress_that_raises_is_logged_by_class_and_ends_nothing(
    lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    """A dead JVM: no beat, no traceback, and a beat again once it answers."""
    asked: list[int] = []
    asked_again = threading.Event()

    def progress() -> object:
        asked.append(1)
        if len(asked) < 3:
            raise LookupError("1.2.840.113619 /secret/path")
        if len(asked) > 3:
            asked_again.set()
        return object()

    held = lake.begin(progress=progress, interval_seconds=0.001)
    assert asked_again.wait(5)
    assert lake.says(1)["beats"] >= 1
    held.release()

    assert [(r.message, vars(r)["run_id"], vars(r)["error_class"]) for r in caplog.records] == [
        ("progress not known", 1, "LookupError")
    ] * 2
    assert "secret" not in caplog.text


def test_a_run_that_was_overtaken_gives_no_sign_of_life(lake: Lake) -> None:
    """Whatever becomes of the newer run; fencing ends this one at its next commit."""
    held = lake.begin()
    assert beat(held)
    lake.put(2)
    assert [beat(held), beat(held)] == [False, False]
    lake.put(2, released=True)
    assert not beat(held)

    assert lake.says(1)["beats"] == 1


def test_a_newer_claim_that_steps_back_takes_nothing_away(lake: Lake) -> None:
    """Its first look was at a moment when it had not withdrawn yet."""
    held = lake.begin()
    lake.put(2)
    assert not beat(held)
    lake.put(2, released=True, withdrawn=True)

    assert [beat(held), beat(held)] == [True, True]


def test_a_storage_error_in_a_beat_is_logged_by_class_and_ends_nothing(
    lake: Lake, caplog: pytest.LogCaptureFixture
) -> None:
    """The log names the class, not the text: it holds paths. The next beat tries again."""
    fs = LocalFileSystem(skip_instance_cache=True)
    held = lake.begin(fs=fs)
    error = OSError(errno.EIO, "1.2.840.113619", "/secret/path")
    fs.pipe_file = lambda *_: (_ for _ in ()).throw(error)  # type: ignore[method-assign]

    with caplog.at_level(logging.DEBUG):
        assert not beat(held)
        held.release()

    assert [(r.message, vars(r)["run_id"], vars(r)["error_class"]) for r in caplog.records] == [
        ("heartbeat not written", 1, "OSError"),
        ("claim not released", 1, "OSError"),
    ]
    assert "secret" not in caplog.text
    assert "840" not in caplog.text
    assert lake.says(1)["released"] is False


def test_files_follow_the_umask(lake: Lake) -> None:
    """Claims hold nothing of patients: others may read who writes."""
    lake.claims.mkdir()
    (lake.root / "plain").write_text("")

    beat(lake.begin())

    assert lake.file(1).stat().st_mode == (lake.root / "plain").stat().st_mode


# -- who holds the lake, told without a claim ----------------------------------------------------------------------


def told(lake: Lake, me: Process = HERE, after: timedelta = timedelta(0)) -> Holder | None:
    """Who holds it, this long after the newest claim was written; looking changes nothing."""
    newest = lake.file(lake.ids()[-1]).stat().st_mtime
    before = {path.name: path.read_bytes() for path in lake.claims.iterdir()}
    found = holder(LocalFileSystem(), str(lake.claims), datetime.fromtimestamp(newest, UTC) + after, me)
    assert {path.name: path.read_bytes() for path in lake.claims.iterdir()} == before
    return found


def test_nobody_holds_a_lake_without_claims_or_with_released_ones(lake: Lake) -> None:
    """One that stepped back hides nobody, and one that was overtaken is over."""
    assert holder(LocalFileSystem(), str(lake.claims), NOW, HERE) is None
    lake.put(1)
    lake.put(2, released=True)
    assert told(lake) is None
    lake.put(3, released=True, withdrawn=True)
    assert told(lake) is None
    lake.put(2)
    assert str(told(lake)) == "maintain is running on host etl-2, pid 17, since 2026-03-29T00:10:00Z (run 2)"


def test_a_run_of_this_host_is_running_or_hangs_or_is_dead(lake: Lake) -> None:
    me = this_process()
    lake.put(1, host=me.host, pid=me.pid, processStarted=me.started, bootId=me.boot_id, pidNamespace=me.namespace)
    for after, state in ((0, "running"), (3600, "silent")):
        found = told(lake, me, after * SECOND)
        assert found is not None
        assert found.state == state
    assert str(found) == f"run 1 (maintain) on host {me.host} hangs: silent for 60 min"
    with subprocess.Popen(["true"]) as child:
        child.wait()
    lake.put(2, host=me.host, pid=child.pid, processStarted=1, bootId=me.boot_id, pidNamespace=me.namespace)
    found = told(lake, me)
    assert found is not None
    assert found.state == "died"
    assert str(found) == "run 2 (maintain) died on this host; the next run that writes records it and goes on"


@pytest.mark.parametrize(("seconds", "state"), [(0, "running"), (60, "running"), (61, "silent"), (-3600, "silent")])
def test_a_run_elsewhere_is_doubtful_when_its_file_rests(lake: Lake, seconds: int, state: str) -> None:
    """As long as a claim that is asked for would watch it first; a clock that fell back counts as silence."""
    lake.put(1)
    found = told(lake, after=seconds * SECOND)
    assert found is not None
    assert found.state == state


def test_a_doubtful_run_is_told_with_its_host_and_its_silence(lake: Lake) -> None:
    lake.put(7)
    assert str(told(lake, after=timedelta(minutes=90))) == (
        "run 7 (maintain) on host etl-2 may have died: silent for 90 min"
    )
    lake.file(8).write_text("")
    assert str(told(lake)) == "another run has just begun (run 8)"
    assert str(told(lake, after=timedelta(minutes=5))) == "run 8 may have died: silent for 5 min"
