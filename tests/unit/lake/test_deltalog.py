"""delta-rs as we use it: fenced commits, races, named errors, nothing in the log that may not be there."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError

from dicom_etl.core.errors import (
    AccessDenied,
    AnotherWriter,
    ConfigurationError,
    DataError,
    DicomEtlError,
    StorageError,
    Superseded,
    UnknownIdentity,
)
from dicom_etl.lake.delta.add_file import AddFile, Statistics
from dicom_etl.lake.delta.commit import append_rows, commit_files, file_name
from dicom_etl.lake.delta.errors import storage_error
from dicom_etl.lake.delta.folder import folder_of
from dicom_etl.lake.delta.table import (
    STATISTICS_PROPERTY,
    create_table,
    open_table,
    properties,
    read_rows,
    remove_empty_log,
    statistics_columns,
    table_name,
    txn_version,
)

APP = "5f0c/change"
_NOT_KNOWN = (
    "change: the storage does not accept our key or token: check storage.auth and the identity's sign-in, or the key "
    "in the variable of storage.key_env"
)
SCHEMA = pa.schema(
    [("runId", pa.int64()), ("name", pa.string()), ("at", pa.timestamp("us", tz="UTC")), ("day", pa.date32())]
)
PROPERTIES = {STATISTICS_PROPERTY: "runId, at", "dicomEtl.lakeId": "5f0c"}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "lake" / "change")


@pytest.fixture
def table(path: str) -> DeltaTable:
    return create_table(path, SCHEMA, name="change", properties=PROPERTIES, private=True)


def rows(*run_ids: int) -> pa.Table:
    at = datetime(2026, 3, 1, 8, 0, 0, 123456, tzinfo=UTC)
    values = [{"runId": n, "name": "CANARY", "at": at, "day": date(2026, 3, 1)} for n in run_ids]
    return pa.Table.from_pylist(values, schema=SCHEMA)


def append(table: DeltaTable, run_id: int) -> int:
    return append_rows(table, rows(run_id), app_id=APP, run_id=run_id, details={"runId": str(run_id)})


def newest(path: str) -> DeltaTable:
    table = open_table(path)
    assert table is not None
    return table


def run_ids(path: str) -> list[int]:
    found: list[int] = read_rows(newest(path), ["runId"])["runId"].to_pylist()
    return sorted(found)


def data_files(path: str) -> set[str]:
    return {name for name in os.listdir(path) if name.endswith(".parquet")}


def log(path: str, version: int) -> list[dict[str, Any]]:
    lines = (Path(path) / "_delta_log" / f"{version:020d}.json").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_a_new_table_keeps_our_properties(table: DeltaTable, path: str) -> None:
    """Delta's properties and our own come back, at reader version 1, under the table's name."""
    assert properties(table) == PROPERTIES
    assert properties(newest(path)) == PROPERTIES
    assert table.version() == 0
    assert table.protocol().min_reader_version == 1
    assert table_name(table) == "change"
    assert statistics_columns(table) == ("runId", "at")
    assert txn_version(table, APP) == 0


def test_rows_and_marker_are_committed_together(table: DeltaTable, path: str) -> None:
    """One version holds the rows, the run's marker and the details."""
    assert append(table, 7) == 1
    assert txn_version(newest(path), APP) == 7
    assert run_ids(path) == [7]
    actions = log(path, 1)
    assert [action["txn"] for action in actions if "txn" in action] == [{"appId": APP, "version": 7}]
    assert [action["commitInfo"]["runId"] for action in actions if "commitInfo" in action] == ["7"]


@pytest.mark.parametrize("run_id", [6, 7])
def test_a_run_that_is_not_newer_is_refused(table: DeltaTable, path: str, run_id: int) -> None:
    """Neither a lower nor the same id may commit; the marker stays, and no file stays behind."""
    append(table, 7)
    files = data_files(path)
    has = "its row stands already" if run_id == 7 else "run 7 already has"
    with pytest.raises(Superseded, match=rf"^change: run {run_id} may not write, {has}$"):
        append(newest(path), run_id)
    assert txn_version(newest(path), APP) == 7
    assert newest(path).version() == 1
    assert len(files) == 1
    assert data_files(path) == files


def test_markers_of_other_apps_do_not_count(table: DeltaTable, path: str) -> None:
    """Each table has its own app id; a marker of another one fences nothing here."""
    append(table, 7)
    with pytest.raises(Superseded):
        append(newest(path), 3)
    other = append_rows(newest(path), rows(3), app_id="5f0c/run", run_id=3, details={})
    assert other == 2
    assert txn_version(newest(path), APP) == 7


def test_a_newer_run_that_came_first_supersedes(table: DeltaTable, path: str) -> None:
    """Two runs with the same snapshot: the lower one, committing second, finds the higher marker and stops."""
    paused = newest(path)
    append(table, 8)
    with pytest.raises(Superseded, match=r"^change: run 8 has written, run 7 stops$"):
        append(paused, 7)
    assert run_ids(path) == [8]
    assert txn_version(newest(path), APP) == 8
    assert len(data_files(path)) == 1


def test_an_older_run_that_came_between_is_a_conflict(table: DeltaTable, path: str) -> None:
    """The snapshot is no longer the newest: a conflict ends the run, whoever made it."""
    snapshot = newest(path)
    append(table, 7)
    with pytest.raises(Superseded, match=r"^change: another writer came between, run 8 stops; run again$"):
        append(snapshot, 8)
    assert txn_version(newest(path), APP) == 7
    assert append(newest(path), 8) == 2


def test_an_append_that_delta_would_allow_is_a_conflict_too(table: DeltaTable, path: str) -> None:
    """delta-rs would try again behind another append; a run does not, its snapshot is what it was checked on."""
    append_rows(newest(path), rows(1), app_id="somebody/else", run_id=1, details={})
    with pytest.raises(Superseded, match="another writer came between"):
        append(table, 8)
    assert txn_version(newest(path), APP) == 0
    assert run_ids(path) == [1]


def test_a_commit_without_a_marker_is_a_conflict_too(table: DeltaTable, path: str) -> None:
    """OPTIMIZE and ALTER carry no run id, and still end a run whose snapshot they made old."""
    newest(path).alter.set_table_description("changed meanwhile")
    with pytest.raises(Superseded, match="another writer came between"):
        append(table, 8)
    assert txn_version(newest(path), APP) == 0
    assert data_files(path) == set()


@pytest.mark.usefixtures("table")
def test_of_many_at_once_one_commits(path: str) -> None:
    """Commits on one snapshot at the same moment: exactly one is in the table, all others are refused."""
    for round_ in range(1, 11):
        before = newest(path).version()
        snapshots = [newest(path) for _ in range(4)]
        barrier = threading.Barrier(4)
        outcomes: list[str] = []

        def write(
            at: int,
            run_id: int,
            snapshots: list[DeltaTable] = snapshots,
            barrier: Any = barrier,
            outcomes: list[str] = outcomes,
        ) -> None:
            barrier.wait()
            try:
                append(snapshots[at], run_id)
            except Superseded:
                outcomes.append("superseded")
            else:
                outcomes.append("committed")

        threads = [threading.Thread(target=write, args=(at, round_ * 10 + at)) for at in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["committed", "superseded", "superseded", "superseded"]
        assert newest(path).version() == before + 1
    assert len(run_ids(path)) == 10
    assert len(data_files(path)) == 10


class _Unclear:
    """A table whose commit call does something and then ends in an error, as a lost answer does."""

    def __init__(self, table: DeltaTable, act: Callable[[Callable[..., None]], None], error: Exception) -> None:
        self._table, self._act, self._error = table, act, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)

    def create_write_transaction(self, *args: Any, **kwargs: Any) -> None:
        self._act(lambda: self._table.create_write_transaction(*args, **kwargs))
        raise self._error


def test_an_unclear_answer_to_a_commit_that_is_ours(table: DeltaTable, path: str) -> None:
    """The marker equals our id: the rows are in, and are not written again."""
    unclear: Any = _Unclear(table, lambda commit: commit(), OSError("connection lost"))
    assert append(unclear, 7) == 1
    assert run_ids(path) == [7]
    assert len(data_files(path)) == 1


def test_an_unclear_answer_to_a_commit_that_is_not_there(table: DeltaTable, path: str) -> None:
    """Nothing was committed by anybody: the storage failed, and says so without the foreign text."""
    unclear: Any = _Unclear(table, lambda _: None, OSError("secret path"))
    with pytest.raises(StorageError, match=r"^change: the storage failed \(OSError\); see to it and run again$"):
        append(unclear, 7)
    assert run_ids(path) == []
    # The answer to the next look might differ: a file is removed only when it is certainly not in the table.
    assert len(data_files(path)) == 1


def test_an_unclear_answer_while_somebody_else_wrote(table: DeltaTable, path: str) -> None:
    """Another run's commit took the place of ours: superseded by a higher id, ended by a lower one."""
    unclear: Any = _Unclear(table, lambda _: append(newest(path), 9) and None, CommitFailedError("conflict"))
    with pytest.raises(Superseded, match="run 9 has written, run 7 stops"):
        append(unclear, 7)
    assert run_ids(path) == [9]


def test_an_unclear_answer_before_a_newer_run_wrote_leaves_our_file(table: DeltaTable, path: str) -> None:
    """Our commit was in before the machine slept: without its file nobody could read the table again."""

    def then_another(commit: Callable[..., None]) -> None:
        commit()
        append(newest(path), 9)

    unclear: Any = _Unclear(table, then_another, OSError("connection lost"))
    with pytest.raises(Superseded, match="run 9 has written, run 7 stops"):
        append(unclear, 7)
    assert run_ids(path) == [7, 9]
    assert len(data_files(path)) == 2


def test_an_unclear_answer_while_a_newer_run_wrote_in_our_name(table: DeltaTable, path: str) -> None:
    """It took us for dead: the marker equals our id, and the file is not ours; by the marker alone we had written."""
    unclear: Any = _Unclear(table, lambda _: append(newest(path), 7) and None, CommitFailedError("conflict"))
    with pytest.raises(Superseded, match=r"^change: a newer run took run 7 for dead, it stops$"):
        append(unclear, 7)
    assert run_ids(path) == [7]
    assert len(data_files(path)) == 1


def test_an_unclear_answer_that_cannot_be_looked_into(table: DeltaTable, path: str) -> None:
    """When even the look fails the run ends with the storage's error, and its file stays: it may be committed."""

    def vanish(commit: Callable[..., None]) -> None:
        commit()
        for name in (Path(path) / "_delta_log").glob("*.json"):
            name.unlink()

    unclear: Any = _Unclear(table, vanish, OSError(errno.EIO, "gone"))
    with pytest.raises(DataError, match=r"^change: its _delta_log cannot be read"):
        append(unclear, 7)
    assert len(data_files(path)) == 1


def test_of_many_creations_at_once_one_makes_the_table(tmp_path: Path) -> None:
    """The loser of a race gets AnotherWriter, and the winner's properties are the table's, as version 0."""
    for round_ in range(15):
        path = str(tmp_path / str(round_) / "run")
        barrier = threading.Barrier(4)
        made: list[str] = []
        lost: list[str] = []

        def make(
            who: str, path: str = path, barrier: Any = barrier, made: list[str] = made, lost: list[str] = lost
        ) -> None:
            barrier.wait()
            try:
                create_table(path, SCHEMA, name="run", properties={"dicomEtl.lakeId": who})
            except AnotherWriter as error:
                lost.append(str(error))
            else:
                made.append(who)

        threads = [threading.Thread(target=make, args=(str(who),)) for who in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(made), len(lost)) == (1, 3)
        assert set(lost) == {"run: another run made this table just now; run again"}
        assert properties(newest(path)) == {"dicomEtl.lakeId": made[0]}
        assert newest(path).version() == 0


def test_creating_a_table_that_is_there_is_refused(table: DeltaTable, path: str) -> None:
    """The table that is there keeps its properties."""
    with pytest.raises(AnotherWriter, match="change: another run made this table"):
        create_table(path, SCHEMA, name="change", properties={}, private=True)
    assert properties(newest(path)) == properties(table) == PROPERTIES


@pytest.mark.parametrize("where", ["nowhere", "nowhere/at/all", "empty", "only_a_log_folder"])
def test_no_table_is_none(tmp_path: Path, where: str) -> None:
    """A folder that is not there, is empty, or has an empty log (a creation that died) holds no table."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "only_a_log_folder" / "_delta_log").mkdir(parents=True)
    before = sorted(os.listdir(tmp_path))
    assert open_table(str(tmp_path / where)) is None
    assert sorted(os.listdir(tmp_path)) == before


def test_a_table_can_be_made_where_a_creation_died(tmp_path: Path) -> None:
    """An empty log folder does not stand in the way of the next run."""
    path = str(tmp_path / "change")
    (tmp_path / "change" / "_delta_log").mkdir(parents=True)
    create_table(path, SCHEMA, name="change", properties=PROPERTIES)
    assert append(newest(path), 1) == 1


def test_a_file_in_the_way_is_a_wrong_setting(tmp_path: Path) -> None:
    """A lake that is a file: one line that names the settings."""
    (tmp_path / "lake").write_text("I am a file")
    for path in (tmp_path / "lake", tmp_path / "lake" / "change"):
        with pytest.raises(ConfigurationError, match=r"a file stands where its folder must be; set lake\.root"):
            open_table(str(path))


@pytest.mark.parametrize("damage", ["first line cut", "log cut off at the front"])
def test_a_damaged_log_is_named(table: DeltaTable, path: str, damage: str) -> None:
    """DataError, and nothing of the file's text in the message."""
    append(table, 1)
    first = Path(path) / "_delta_log" / f"{0:020d}.json"
    if damage == "first line cut":
        first.write_text(first.read_text()[:40])
    else:
        first.unlink()
    with pytest.raises(DataError, match=r"^change: its _delta_log cannot be read; restore it from a backup$"):
        open_table(path)


def test_a_missing_or_broken_data_file_is_named(table: DeltaTable, path: str) -> None:
    """Reading rows whose file is gone, or is no Parquet, is a DataError."""
    append(table, 1)
    [name] = data_files(path)
    (Path(path) / name).write_bytes(b"not Parquet at all, but long enough to be one")
    with pytest.raises(DataError, match=r"^change: a file of this table cannot be read; restore it from a backup$"):
        read_rows(newest(path), ["runId"])
    (Path(path) / name).unlink()
    with pytest.raises(DataError, match=r"^change: a file of this table is missing; restore it from a backup$"):
        read_rows(newest(path), ["runId"])


def test_read_rows_opens_only_the_files_it_needs(table: DeltaTable, path: str) -> None:
    """Files whose bounds exclude the condition are not touched: they may even be gone."""
    append(table, 1)
    [first] = data_files(path)
    append(newest(path), 2)
    (Path(path) / first).unlink()
    found = read_rows(newest(path), ["runId", "name"], pc.field("runId") == 2)
    assert found.to_pylist() == [{"runId": 2, "name": "CANARY"}]


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_a_private_table_is_for_its_owner_only(tmp_path: Path, umask: int) -> None:
    """Folders 0700, files 0600, the log and its checkpoints too; a folder that was there keeps its rights."""
    old = os.umask(umask)
    try:
        (tmp_path / "given").mkdir(mode=0o755)
        path = tmp_path / "given" / "private" / "change"
        table = create_table(str(path), SCHEMA, name="change", properties=PROPERTIES, private=True)
        for run_id in range(1, 102):
            append(table, run_id)
            table = newest(str(path))
    finally:
        os.umask(old)
    assert (path / "_delta_log" / "_last_checkpoint").exists()
    found = [(p, stat.S_IMODE(p.stat().st_mode)) for p in (tmp_path / "given" / "private").rglob("*")]
    assert len(found) > 200
    assert {mode for p, mode in found if p.is_dir()} == {0o700}
    assert {mode for p, mode in found if p.is_file()} == {0o600}
    assert stat.S_IMODE((tmp_path / "given" / "private").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "given").stat().st_mode) == 0o755 & ~umask


def test_a_shared_table_follows_the_umask(tmp_path: Path) -> None:
    """Other people read the shared tables; nothing of ours takes that away."""
    old = os.umask(0o027)
    try:
        path = tmp_path / "run"
        create_table(str(path), SCHEMA, name="run", properties=PROPERTIES)
        append(newest(str(path)), 1)
    finally:
        os.umask(old)
    modes = {stat.S_IMODE(p.stat().st_mode) for p in path.rglob("*") if p.is_file()}
    assert len(data_files(str(path))) == 1
    assert modes == {0o640}
    assert stat.S_IMODE(path.stat().st_mode) == 0o750


def test_statistics_only_of_the_columns_that_may_have_them(table: DeltaTable, path: str) -> None:
    """The log holds bounds of the table's own list, widened to milliseconds, and no other value."""
    append(table, 7)
    [add] = [action["add"] for action in log(path, 1) if "add" in action]
    assert json.loads(add["stats"]) == {
        "numRecords": 1,
        "minValues": {"runId": 7, "at": "2026-03-01T08:00:00.123Z"},
        "maxValues": {"runId": 7, "at": "2026-03-01T08:00:00.124Z"},
        "nullCount": {"runId": 0, "at": 0},
    }
    assert "CANARY" not in (Path(path) / "_delta_log" / f"{1:020d}.json").read_text()


def test_without_the_property_there_are_no_bounds_at_all(tmp_path: Path) -> None:
    """A table that does not say which columns may have bounds gets none: the default would be all."""
    path = str(tmp_path / "bare")
    append(create_table(path, SCHEMA, name="bare", properties={}), 1)
    [add] = [action["add"] for action in log(path, 1) if "add" in action]
    assert json.loads(add["stats"]) == {"numRecords": 1, "minValues": {}, "maxValues": {}, "nullCount": {}}


def test_statistics_of_rows_and_of_rows_together() -> None:
    """Bounds and nulls per column; nulls have no bound; two files' bounds join."""
    first = pa.table({"n": pa.array([3, None, 1]), "t": ["b", "a", None], "x": pa.array([None] * 3, pa.int64())})
    second = pa.table({"n": pa.array([None], pa.int64()), "t": ["c"], "x": [5]})
    one, two = Statistics.of(first, ["n", "t", "x"]), Statistics.of(second, ["n", "t", "x"])
    assert json.loads(one.json()) == {
        "numRecords": 3,
        "minValues": {"n": 1, "t": "a"},
        "maxValues": {"n": 3, "t": "b"},
        "nullCount": {"n": 1, "t": 1, "x": 3},
    }
    assert one | two == Statistics.of(pa.concat_tables([first, second]), ["n", "t", "x"])


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        (datetime(2026, 3, 1, 8, tzinfo=UTC), "2026-03-01T08:00:00.000Z", "2026-03-01T08:00:00.000Z"),
        (
            datetime(2026, 12, 31, 23, 59, 59, 999001, tzinfo=UTC),
            "2026-12-31T23:59:59.999Z",
            "2027-01-01T00:00:00.000Z",
        ),
        (datetime(800, 1, 1, tzinfo=UTC), "0800-01-01T00:00:00.000Z", "0800-01-01T00:00:00.000Z"),
    ],
)
def test_bounds_of_timestamps_never_exclude_their_value(value: datetime, low: str, high: str) -> None:
    """Delta's log holds milliseconds: the minimum is cut down, the maximum goes up."""
    found = Statistics.of(pa.table({"at": pa.array([value], pa.timestamp("us", tz="UTC"))}), ["at"])
    assert (found.minimums["at"], found.maximums["at"]) == (low, high)


def test_bounds_of_dates() -> None:
    """A date is written as ISO."""
    found = Statistics.of(pa.table({"day": [date(2026, 3, 1), None]}), ["day"])
    assert (found.minimums["day"], found.null_counts["day"]) == ("2026-03-01", 1)


def test_several_files_are_one_commit(table: DeltaTable, path: str) -> None:
    """All files become visible together, as one version."""
    files = []
    for number in (1, 2):
        name = file_name(7, number)
        folder = folder_of(table)
        with folder.create(name) as sink:
            pa.parquet.write_table(rows(7, 7), sink)
        statistics = Statistics.of(rows(7, 7), ["runId"])
        files.append(AddFile(name, folder.size_bytes(name), 0, statistics))
    version = commit_files(table, files, app_id=APP, run_id=7, details={}, schema=SCHEMA)
    assert version == 1
    assert files[0].rows == 2
    assert run_ids(path) == [7, 7, 7, 7]


def test_file_names_are_unique_to_the_try() -> None:
    """Two tries of one run never write the same name; names sort by run."""
    assert len({file_name(7, 1) for _ in range(100)}) == 100
    assert file_name(7, 12).startswith("part-00000000000000000007-00012-")


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (OSError(errno.ENOSPC, "x"), StorageError, "change: the storage is full; free space and run again"),
        (OSError(errno.EDQUOT, "x"), StorageError, "change: the storage is full; free space and run again"),
        (OSError(errno.EROFS, "x"), StorageError, "change: the storage is read-only; make it writable and run again"),
        (
            PermissionError(errno.EACCES, "x"),
            StorageError,
            "change: this user may not use its folder; give it the right to read and write",
        ),
        (
            OSError("Generic LocalFileSystem error\n No space left on device (os error 28)\n"),
            StorageError,
            "change: the storage is full; free space and run again",
        ),
        (
            DeltaError('Error: Os { code: 13, kind: PermissionDenied, message: "Permission denied" }'),
            StorageError,
            "change: this user may not use its folder; give it the right to read and write",
        ),
        (
            OSError("Generic MicrosoftAzure error: status 403 Forbidden: AuthorizationPermissionMismatch"),
            AccessDenied,
            "change: the storage refused our identity; assign it the role Storage Blob Data Contributor",
        ),
        (
            OSError("Generic MicrosoftAzure error: 403 Forbidden: AuthenticationFailed: Server failed to authenticate"),
            UnknownIdentity,
            _NOT_KNOWN,
        ),
        (
            DeltaError("The operation lacked valid authentication credentials for path lake/run: x"),
            UnknownIdentity,
            _NOT_KNOWN,
        ),
        (
            OSError("lake/403/run/401.parquet: nobody knows why"),
            StorageError,
            "change: the storage failed (OSError); see to it and run again",
        ),
        (OSError(errno.EIO, "/secret/path"), StorageError, "change: the storage failed (EIO); see to it and run again"),
        (DeltaError("anything"), StorageError, "change: the storage failed (DeltaError); see to it and run again"),
    ],
)
def test_errors_of_storage_get_our_names(error: Exception, kind: type[DicomEtlError], message: str) -> None:
    """Each failure has its exit code and one line that says what to do, without foreign text."""
    found = storage_error(error, "change", writing=True)
    assert type(found) is kind
    assert str(found) == message


def test_a_folder_name_with_spaces_and_signs_works(tmp_path: Path) -> None:
    """The table's address is an URL in delta-rs; the path in it is decoded before we write there."""
    path = str(tmp_path / "my lake #1? 100% ä" / "change")
    table = create_table(path, SCHEMA, name="change", properties=PROPERTIES, private=True)
    assert append(table, 1) == 1
    assert run_ids(path) == [1]
    assert len(data_files(path)) == 1


def test_a_folder_name_that_delta_rs_cannot_take_is_refused(tmp_path: Path) -> None:
    """A percent code in the name: one line before anything is written."""
    with pytest.raises(ConfigurationError, match=r"^change: take the % and the two digits after it out"):
        create_table(str(tmp_path / "my%20lake"), SCHEMA, name="change", properties=PROPERTIES)
    assert os.listdir(tmp_path) == []


def test_delta_rs_alone_would_lower_the_marker(table: DeltaTable, path: str) -> None:
    """Why the check is ours: from a fresh snapshot delta-rs takes a lower version (a control of this suite)."""
    append(table, 7)
    newest(path).create_write_transaction(
        [],
        "append",
        SCHEMA,
        commit_properties=CommitProperties(app_transactions=[Transaction(APP, 3)], max_commit_retries=0),
    )
    assert txn_version(newest(path), APP) == 3


def test_a_log_without_any_version_is_removed(tmp_path: Path) -> None:
    """What a run that died while it made a table left is removed, so that the table can be made."""
    unborn = tmp_path / "study" / "_delta_log"
    unborn.mkdir(parents=True)
    (unborn / ".00000000000000000000.json.1b2c.tmp").write_text("{}")
    remove_empty_log(str(tmp_path / "study"))
    assert not unborn.exists()
    assert (tmp_path / "study").is_dir()


@pytest.mark.parametrize("name", ["00000000000000000000.json", "00000000000000000010.checkpoint.parquet"])
def test_a_log_with_a_version_is_left_alone(tmp_path: Path, name: str) -> None:
    """A table that exists is never touched."""
    log = tmp_path / "study" / "_delta_log"
    log.mkdir(parents=True)
    (log / name).write_text("")
    remove_empty_log(str(tmp_path / "study"))
    assert (log / name).exists()
    remove_empty_log(str(tmp_path / "nothing here"))
