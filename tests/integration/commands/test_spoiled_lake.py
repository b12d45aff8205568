"""The lake misbehaves: full, read-only, deleted, cut, of another schema, written by others (issue 4, §5).

For each: one line without paths and UIDs, an exit code, whole commits only, nothing recorded as covered; and the
next run, or the remedy that the line names, ends with tables that equal the service.
"""

from __future__ import annotations

import errno
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from fsspec.implementations.local import LocalFileSystem
from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from dicom_etl.commands.metrics import metrics_text
from dicom_etl.core.progress import NullProgress
from dicom_etl.core.timerange import Window
from dicom_etl.lake import ledger
from dicom_etl.lake.delta.folder import TableFolder
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.status import status_and_runs
from dicom_etl.run import land, merge
from dicom_etl.run import roll_up as rollups
from support.oracle import Tables, instance_row, tables_of
from support.site import SECOND, Site, at, text_at, ticks_at

soak = pytest.mark.soak
Command = Callable[..., tuple[int, str, str]]
Spoil = Callable[[Path], None]

SHARED = ("instance", "series", "study")
ALL = ("run", "change", "rejected", *SHARED)
BAD = 10
COVERED = [Window(ticks_at(0), ticks_at(9))]


@pytest.fixture(scope="module")
def behind(make_shared_site: Callable[..., Site]) -> Site:
    """A lake up to 9:00; an update, a deletion, a create and a bad entry are due."""
    site = make_shared_site()
    for number in range(6):
        study = f"1.{number % 3}"
        site.create(study, f"{study}.1", f"{study}.1.{number}", name=f"Old^{number}", modality="CT")
    site.clock(9.25)
    site.sync()
    site.service.clock.freeze(at(9.3), step=SECOND)
    site.update("1.0", "1.0.1", "1.0.1.0", name="New^0", modality="MR")
    site.service.delete("Microsoft.Default", "1.1", "1.1.1", "1.1.1.1")
    site.create("1.5", "1.5.1", "1.5.1.1", name="New^5", modality="CT")
    assert site.create("1.6", "1.6.1", "1.6.1.1", document=b"[1]").sequence == BAD
    site.clock(11)
    return site


@pytest.fixture
def lake(behind: Site, tmp_path: Path) -> Site:
    """A copy of it to be spoiled."""
    shutil.copytree(behind.root, tmp_path / "lake")
    return replace(behind, folder=tmp_path)


def expected(site: Site) -> Tables:
    """What the tables hold when everything but the bad entry is merged."""
    return tables_of([instance_row(live) for live in site.service.live_instances() if live.sequence != BAD])


def versions(site: Site) -> dict[str, int]:
    return {name: site.version(name) for name in ALL}


def grown(site: Site, before: dict[str, int]) -> dict[str, int]:
    """By how many commits each table has grown; those that did not are left out."""
    return {name: version - before[name] for name, version in versions(site).items() if version != before[name]}


def coverage(site: Site) -> list[Window]:
    return ledger.covered(Run.from_row(row) for row in site.ledger())


def one_line(said: str) -> str:
    """The last line, which is the only one that is no log: without stack, path or UID."""
    *logged, last = said.splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\S+ (INFO|WARNING) ", line) for line in logged), said
    line = last.removeprefix("dicom-etl: ")
    assert not re.search(r"Traceback|/tmp|/work|\.parquet|\.json|1\.[0156]\.1", said), said
    return line


def fails(done: tuple[int, str, str], code: int, line: str) -> None:
    assert re.fullmatch(line, one_line(done[2])), done[2]
    assert done[0] == code


def heals(site: Site, command: Command, read: int = 4) -> None:
    """The next sync reads what is due; the tables equal the service, and the bad entry is open once."""
    code, out, said = command(site, "sync", "--json")
    assert code == 0, said
    (row,) = [json.loads(text) for text in out.splitlines()]
    assert (row["entriesRead"], row["status"]) == (read, "succeeded")
    assert is_whole(site)


def is_whole(site: Site) -> bool:
    tables = expected(site)
    assert [len(tables[name]) for name in SHARED] == [6, 4, 4]
    assert site.tables() == tables
    assert [(row["sequence"], row["status"]) for row in site.rows("rejected")] == [(BAD, "open")]
    assert coverage(site) == [Window(ticks_at(0), ticks_at(10))]
    return True


# -- what is seen before anything is read --------------------------------------------------------------------


def log_files(table: Path) -> list[Path]:
    return sorted((table / "_delta_log").glob("*.json"))


def delete_folder(table: Path) -> None:
    shutil.rmtree(table)


def empty_the_log(table: Path) -> None:
    for file in log_files(table):
        file.unlink()


def cut_the_last_version(table: Path) -> None:
    text = log_files(table)[-1].read_text()
    log_files(table)[-1].write_text(text[: len(text) // 2])


def lose_a_version_in_the_middle(table: Path) -> None:
    for _ in range(3 - len(log_files(table))):
        DeltaTable(table).alter.set_table_properties({"some.thing": "1"}, raise_if_not_exists=False)
    assert len(log_files(table)) == 3
    log_files(table)[1].unlink()


def delete_files(table: Path) -> None:
    files = [file for file in table.rglob("*.parquet") if "_delta_log" not in file.parts]
    assert files
    for file in files:
        file.unlink()


def cut_files(table: Path) -> None:
    for file in table.rglob("*.parquet"):
        file.write_bytes(file.read_bytes()[:100])


def declare(change: Callable[[list[dict[str, Any]]], None], **more: str) -> Spoil:
    """A commit of somebody else who declares other columns, or another property."""

    def spoil(table: Path) -> None:
        actions = [json.loads(line) for file in log_files(table) for line in file.read_text().splitlines()]
        declared = [action for action in actions if "metaData" in action][-1]
        schema = json.loads(declared["metaData"]["schemaString"])
        change(schema["fields"])
        declared["metaData"]["schemaString"] = json.dumps(schema)
        declared["metaData"]["configuration"].update(more)
        version = DeltaTable(table).version() + 1
        (table / "_delta_log" / f"{version:020d}.json").write_text(json.dumps(declared) + "\n")

    return spoil


def without_column(name: str) -> Spoil:
    def drop(fields: list[dict[str, Any]]) -> None:
        fields[:] = [field for field in fields if field["name"] != name]

    return declare(drop)


def column_of_type(name: str, kind: Any) -> Spoil:
    def retype(fields: list[dict[str, Any]]) -> None:
        for field in fields:
            field["type"] = kind if field["name"] == name else field["type"]

    return declare(retype)


NEWER = declare(lambda _: None, **{"dicomEtl.schemaVersion": "2"})
COLUMNS = {
    "run": "errorClass", "change": "metadata", "rejected": "reason",
    "instance": "patientName", "series": "modality", "study": "studyDate",
}  # fmt: skip
LONGS = {
    "run": "runId", "change": "sequence", "rejected": "sequence",
    "instance": "sequence", "series": "instanceCount", "study": "instanceCount",
}  # fmt: skip
REMEDY = dict.fromkeys(("run", "change", "rejected"), "mount or restore its folder, or begin a new lake")
REMEDY |= dict.fromkeys(SHARED, "mount or restore its folder, or run dicom-etl repair --rebuild")
LEDGER_GONE = (
    "the table change belongs to a lake whose table run is not here: mount or restore its folder, or correct "
    "lake.root; if this is to be another lake, set folders of its own for it"
)


def named(table: str) -> dict[str, tuple[Spoil, str]]:
    gone = LEDGER_GONE if table == "run" else f"the table {table} has vanished: {REMEDY[table]}"
    other = f"the table {table} is not as dicom-etl writes it, see %s: {REMEDY[table]}"
    log = f"{table}: its _delta_log cannot be read; restore it from a backup"
    return {
        f"{table} deleted": (delete_folder, gone),
        f"{table}: log emptied": (empty_the_log, gone),
        f"{table}: last version cut": (cut_the_last_version, log),
        f"{table}: no column {COLUMNS[table]}": (without_column(COLUMNS[table]), other % COLUMNS[table]),
        f"{table}: {LONGS[table]} a text": (column_of_type(LONGS[table], "string"), other % LONGS[table]),
        f"{table}: newer schema": (NEWER, "this lake has schema 2, this version knows up to 1: upgrade dicom-etl"),
    }


SEEN_AT_ONCE = {case: (table, *what) for table in ALL for case, what in named(table).items()}
for _table in ("run", "change"):
    _says = f"{_table}: a file of this table (is missing|cannot be read); restore it from a backup"
    SEEN_AT_ONCE |= {
        f"{_table}: version lost in the middle": (
            _table, lose_a_version_in_the_middle, f"{_table}: its _delta_log cannot be read; restore it from a backup",
        ),
        f"{_table}: file deleted": (_table, delete_files, _says),
        f"{_table}: file cut": (_table, cut_files, _says),
    }  # fmt: skip
SEEN_AT_ONCE["study: a column of lists"] = (
    "study",
    column_of_type("studyDate", {"type": "array", "elementType": "string", "containsNull": True}),
    f"the table study is not as dicom-etl writes it, see studyDate: {REMEDY['study']}",
)


@pytest.mark.parametrize(("table", "spoil", "line"), SEEN_AT_ONCE.values(), ids=SEEN_AT_ONCE.keys())
def test_what_is_spoilt_is_named_before_anything_is_read(
    lake: Site, command: Command, table: str, spoil: Spoil, line: str
) -> None:
    """65 for every verb that needs the table; nothing is read or written; put back, the same window is due."""
    shutil.copytree(lake.root / table, lake.folder / "whole")
    before = versions(lake)
    spoil(lake.root / table)
    lake.service.requests.clear()
    fails(command(lake, "sync"), 65, line)
    # The clock at most, and whether the feed has gone back: nothing of the window.
    assert lake.service.requests.count() <= 2
    assert not [one for one in lake.service.requests.all() if one.query.get("includeMetadata") != "false"]
    if spoil not in (delete_files, cut_files):
        fails(command(lake, "verify"), 65, line)
    if spoil is delete_folder:
        _, out, _ = command(lake, "doctor")
        assert re.search(f"^problem +lake +{line}$", out, re.MULTILINE)

    shutil.rmtree(lake.root / table, ignore_errors=True)
    shutil.copytree(lake.folder / "whole", lake.root / table)
    # A row of the ledger says that it failed, where there is a ledger; no other table has grown.
    assert set(grown(lake, before)) <= {"run"}
    assert coverage(lake) == COVERED
    code, out, _ = command(lake, "sync", "--dry-run")
    assert (code, out) == (0, f"would read {Window(ticks_at(9), ticks_at(10))}\n")


@pytest.mark.parametrize("table", [pytest.param(name, marks=soak) for name in ALL])
def test_a_table_that_is_put_back_goes_on(lake: Site, command: Command, table: str) -> None:
    """Unmounted and mounted again: the next run reads what is due, and nothing is lost."""
    (lake.root / table).rename(lake.folder / "away")
    assert command(lake, "sync")[0] == 65
    (lake.folder / "away").rename(lake.root / table)
    heals(lake, command)


@pytest.mark.parametrize("table", ["change", "rejected", *SHARED])
def test_nothing_to_do_does_not_hide_a_table_that_is_gone(lake: Site, command: Command, table: str) -> None:
    """With nothing due, in a dry run, and before maintain works on the others: 65, and nothing is written."""
    nothing_due = lake.having("feed.start=2024-05-01T10:30:00Z")
    assert command(nothing_due, "sync")[0] == 0
    (lake.root / table).rename(lake.folder / "away")
    versions = {name: lake.version(name) for name in SHARED if name != table}
    for words in (["sync"], ["sync", "--dry-run"], ["maintain"], ["maintain", "--dry-run"]):
        fails(command(nothing_due, *words), 65, f"the table {table} has vanished: {REMEDY[table]}")
    assert {name: lake.version(name) for name in versions} == versions


@pytest.mark.parametrize("table", SHARED)
def test_status_names_a_shared_table_that_is_gone(lake: Site, command: Command, table: str) -> None:
    """Although the ledger, which tells all the rest, is well; metrics are written from that all the same."""
    assert command(lake, "status")[0] == 0
    (lake.root / table).rename(lake.folder / "away")
    fails(command(lake, "status", "--json"), 65, f"the table {table} has vanished: {REMEDY[table]}")
    fails(command(lake, "query", f"TABLE {table}"), 65, f"the table {table} has vanished: {REMEDY[table]}")
    assert "dicom_etl_lag_seconds" in metrics_text(*status_and_runs(lake.settings)[:2])


@soak
def test_more_columns_than_ours_are_welcome(lake: Site, command: Command) -> None:
    """Somebody added one to `series`: it stays, and what is merged is right."""
    more = {"name": "ours", "type": "string", "nullable": True, "metadata": {}}
    declare(lambda fields: fields.append(more))(lake.root / "series")
    assert command(lake, "sync")[0] == 0
    rows = [dict(row) for row in lake.tables()["series"]]
    assert {row.pop("ours") for row in rows} == {None}
    assert rows == expected(lake)["series"]


# -- what Spark finds ----------------------------------------------------------------------------------------


# What a repair ends with here: the bad entry has no row.
REJECTED = "entries could not be used: dicom-etl rejects lists them; "
STILL_BAD = f"the lake and the service still differ; {REJECTED}dicom-etl verify --show prints the keys"


def lose_the_first_version(table: Path) -> None:
    log_files(table)[0].unlink()


SEEN_BY_SPARK = [
    ("instance", delete_files),
    pytest.param("instance", cut_files, marks=soak),
    pytest.param("instance", lose_the_first_version, marks=soak),
    pytest.param("series", delete_files, marks=soak),
    pytest.param("study", cut_files, marks=soak),
]


@pytest.mark.soak
@pytest.mark.parametrize(("table", "spoil"), SEEN_BY_SPARK)
def test_a_shared_table_without_its_files_is_built_anew(lake: Site, command: Command, table: str, spoil: Spoil) -> None:
    """65 and the remedy; it works: the tables equal the service without a backup."""
    before = versions(lake)
    spoil(lake.root / table)
    line = "a file of this table is missing or cannot be read; restore it from a backup, or run"
    if spoil is lose_the_first_version:
        line = "its _delta_log cannot be read; restore it from a backup, or move its folder away and run"
    fails(command(lake, "sync"), 65, f"{table}: {line} dicom-etl repair --rebuild")
    # It had landed; and what was merged before it was whole.
    assert set(grown(lake, before)) <= {"run", "change", *SHARED} - {table}
    assert coverage(lake) == COVERED
    if spoil is lose_the_first_version:
        (lake.root / table).rename(lake.folder / "away")
    fails(command(lake, "repair", "--rebuild"), 65, STILL_BAD)
    assert lake.tables() == expected(lake)


def test_pyspark_says_nothing_of_a_statement_that_fails(
    spark: SparkSession, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """It would print the statement's text, its place in our code and a stack, on a handler of its own."""
    with pytest.raises(AnalysisException, match="nowhere"):
        spark.range(1).select(F.col("nowhere"))
    with pytest.raises(AnalysisException, match="nowhere"):
        spark.sql("SELECT nowhere FROM range(1)")
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


# -- in the middle of a run ----------------------------------------------------------------------------------


class Acting(NullProgress):
    """Does something once, when a step begins."""

    def __init__(self, step: str, act: Callable[[], object]) -> None:
        self._step, self._act = step, act

    def step(self, name: str) -> None:
        if name == self._step:
            self._step = ""
            self._act()


@contextmanager
def at_step(monkeypatch: pytest.MonkeyPatch, step: str, act: Callable[[], object]) -> Iterator[None]:
    @contextmanager
    def acting() -> Iterator[Acting]:
        yield Acting(step, act)

    with monkeypatch.context() as patched:
        patched.setattr("dicom_etl.cli.terminal.terminal_progress", acting)
        yield


READ, MERGE, ROLL_UP = "read", "merge instance", "roll up series and study"
VANISHED = {
    (READ, "change"): (65, "change: a file of this table is missing; restore it from a backup", {"run"}),
    (MERGE, "change"): (65, "change: a file of this table is missing .*; restore it from a backup", {"run"}),
    (MERGE, "instance"): (65, "the table instance has vanished.*", {"run", "change"}),
    # Not `change` at the roll-up: nothing is asked of it any more, the run succeeds, and the next one says it.
    (ROLL_UP, "instance"): (65, "instance: (a file of this table|its _delta_log) .*", {"run", "change"}),
    (ROLL_UP, "series"): (65, "the table series has vanished: .*", {*ALL} - {"rejected"}),
    (ROLL_UP, "study"): (65, "the table study has vanished: .*", {*ALL} - {"rejected"}),
    (ROLL_UP, "rejected"): (65, "the table rejected has vanished.*", {"run", "change", *SHARED}),
    (ROLL_UP, "run"): (65, "the table run has vanished.*", {*ALL}),
}  # fmt: skip


@soak
@pytest.mark.parametrize(("step", "table"), VANISHED)
def test_a_table_that_vanishes_in_the_middle(
    lake: Site, command: Command, monkeypatch: pytest.MonkeyPatch, step: str, table: str
) -> None:
    """What was committed before is whole, nothing after it is; mounted again, the next run finishes it."""
    code, line, may_grow = VANISHED[step, table]
    before = versions(lake)
    with at_step(monkeypatch, step, lambda: (lake.root / table).rename(lake.folder / "away")):
        fails(command(lake, "sync"), code, line)
    shutil.rmtree(lake.root / table, ignore_errors=True)  # an empty folder that somebody made
    (lake.folder / "away").rename(lake.root / table)
    assert set(grown(lake, before)) <= may_grow | {table}
    assert all(number == 1 for number in grown(lake, before).values())
    assert coverage(lake) == COVERED
    heals(lake, command)


# -- full and read-only --------------------------------------------------------------------------------------

WORDS = {
    errno.ENOSPC: ("No space left on device", "the storage is full; free space and run again"),
    errno.EROFS: ("Read-only file system", "the storage is read-only; make it writable and run again"),
    errno.EACCES: ("Permission denied", "this user may not use its folder; give it the right to read and write"),
}


class Failing(io.RawIOBase):
    """A file that cannot be written."""

    def __init__(self, inner: Any, number: int) -> None:
        super().__init__()
        self._inner, self._number = inner, number

    def writable(self) -> bool:
        return True

    def write(self, _data: Any) -> int:
        raise OSError(self._number, "x")

    def close(self) -> None:
        self._inner.close()
        super().close()


def in_claim(patched: pytest.MonkeyPatch, number: int) -> None:
    real = LocalFileSystem.open

    def opened(self: Any, path: str, mode: str = "rb", **how: Any) -> Any:
        if mode == "xb":
            raise OSError(number, "x")
        return real(self, path, mode, **how)

    patched.setattr(LocalFileSystem, "open", opened)


def in_file_of(table: str) -> Callable[[pytest.MonkeyPatch, int], None]:
    def spoil(patched: pytest.MonkeyPatch, number: int) -> None:
        real = TableFolder.create

        def created(self: TableFolder, name: str) -> Any:
            file = real(self, name)
            return Failing(file, number) if self.path.rstrip("/").endswith(table) else file

        patched.setattr(TableFolder, "create", created)

    return spoil


def in_commit_of_change(patched: pytest.MonkeyPatch, number: int) -> None:
    real = land.commit_change

    class Full:
        def __init__(self, table: DeltaTable) -> None:
            self._table = table

        def __getattr__(self, name: str) -> Any:
            return getattr(self._table, name)

        def create_write_transaction(self, *_: Any, **__: Any) -> None:
            raise DeltaError(f"Generic LocalFileSystem error: {WORDS[number][0]} (os error {number})")

    patched.setattr(land, "commit_change", lambda table, *rest, **more: real(Full(table), *rest, **more))


def in_merge_of(name: str) -> Callable[[pytest.MonkeyPatch, int], None]:
    """Spark itself fails, with such words in its message."""

    def spoil(patched: pytest.MonkeyPatch, number: int) -> None:
        def failing(rows: Any) -> Any:
            told = f"java.io.IOException: {WORDS[number][0]}"
            return rows.where(f"raise_error('{told}') IS NULL")

        instance, roll_up = merge.merge_instance, rollups.merge_rollup
        if name == "instance":
            patched.setattr(
                merge,
                "merge_instance",
                lambda s, p, source, *r, **m: instance(s, p, lambda t: failing(source(t)), *r, **m),
            )
        else:
            patched.setattr(
                rollups, "merge_rollup",
                lambda s, t, p, rows, *r: roll_up(s, t, p, failing(rows) if t.name == name else rows, *r),
            )  # fmt: skip

    return spoil


# By step: how it fails, whose name the line begins with, and which tables have a commit of the run by then.
STEPS = {
    "claim": (in_claim, "_claims", set()),
    "landing": (in_file_of("change"), "change", {"run"}),
    "commit of change": (in_commit_of_change, "change", {"run"}),
    "instance": (in_merge_of("instance"), "instance", {"run", "change"}),
    "series": (in_merge_of("series"), "series", {"run", "change", "instance", "study"}),
    "study": (in_merge_of("study"), "study", {"run", "change", "instance", "series"}),
    "rejected": (in_file_of("rejected"), "rejected", {"run", "change", *SHARED}),
    "ledger": (in_file_of("run"), "run", {"change", "rejected", *SHARED}),
}


# In CI those that fail before Spark is needed, and one that has a MERGE behind it; the rest, and the next run of each,
# cost seconds of Spark.
CHEAP = [
    ("claim", errno.ENOSPC),
    ("landing", errno.ENOSPC),
    ("landing", errno.EROFS),
    ("commit of change", errno.EACCES),
]
CASES = [
    *((step, number, False) for step, number in CHEAP),
    ("series", errno.ENOSPC, True),
    *(pytest.param(step, number, True, marks=soak) for step in STEPS for number in WORDS),
]  # fmt: skip


@pytest.mark.parametrize(("step", "number", "again"), CASES)
def test_storage_that_cannot_be_written(
    lake: Site, command: Command, monkeypatch: pytest.MonkeyPatch, step: str, number: int, again: bool
) -> None:
    """74 in each step: the commits before it are whole, none is made after it, and the next run finishes."""
    spoil, name, commits = STEPS[step]
    before = versions(lake)
    with monkeypatch.context() as patched:
        spoil(patched, number)
        done = command(lake, "sync")
    said = WORDS[number][1]
    if step in SHARED and number != errno.ENOSPC:
        said = "Spark could not read or write the table .*; see to its storage and run again"
    fails(done, 74, f"{name}: {said}")
    assert grown(lake, before) == dict.fromkeys(commits, 1)
    assert coverage(lake) == COVERED
    if again:
        heals(lake, command)


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Something else at a folder; skips where this user may not mount (CI without rights)."""
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("this user may not mount a filesystem")
    try:
        yield
    finally:
        # Lazily: a JVM may still have a file open there.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, leaving: int) -> Path:
    """A file that takes all the space of the filesystem but so many bytes."""
    filler = folder / "filler"
    free = shutil.disk_usage(folder).free
    filler.write_bytes(b"x" * (free - leaving))
    return filler


def end_the_process(site: Site) -> None:
    """A claim that a full disk did not let release is a dead process's; here it is this one's, which lives."""
    for file in (site.root / "_claims").glob("*2.json"):
        claim = json.loads(file.read_text())
        file.write_text(json.dumps(claim | {"pid": 2**31 - 1}))


FULL = {
    # What is full, what it leaves, whose line, what has grown.
    "the lake": ("", 6_000, "change", set()),
    "instance": ("instance", 0, "instance", {"run", "change"}),
    "series": ("series", 0, "series", {"run", "change", "instance", "study"}),
}


@soak
@pytest.mark.parametrize("what", FULL)
def test_a_disk_that_is_really_full(lake: Site, command: Command, what: str) -> None:
    """The same on a small filesystem of its own; when space is free again, the next run finishes."""
    below, leaving, name, commits = FULL[what]
    before = versions(lake)
    folder = lake.root / below
    folder.rename(lake.folder / "before")
    folder.mkdir()
    with mounted(folder, "-t", "tmpfs", "-o", "size=16m", "tmpfs"):
        shutil.copytree(lake.folder / "before", folder, dirs_exist_ok=True)
        filler = fill(folder, leaving)
        fails(command(lake, "sync"), 74, f"{name}: the storage is full; free space and run again")
        assert {table for table in grown(lake, before) if table != "run"} == commits - {"run"}
        assert coverage(lake) == COVERED
        filler.unlink()
        end_the_process(lake)
        heals(lake, command)


def test_a_disk_that_is_really_read_only(lake: Site, command: Command) -> None:
    """The whole lake, and then one table: 74, and nothing is written."""
    before = versions(lake)
    root = lake.root
    with mounted(root, "--bind", str(root)):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(root)], check=True)
        fails(command(lake, "sync"), 74, ".*the storage (is read-only|cannot be written).*")
        assert grown(lake, before) == {}
        assert command(lake, "status")[0] == 0
    with mounted(root / "change", "--bind", str(root / "change")):
        subprocess.run(["mount", "-o", "remount,ro,bind", str(root / "change")], check=True)
        fails(command(lake, "sync"), 74, "change: the storage is read-only; make it writable and run again")
    assert grown(lake, before) == {"run": 1}
    assert coverage(lake) == COVERED


# -- other writers -------------------------------------------------------------------------------------------


def write_foreign(site: Site, column: str, value: str) -> None:
    """A row as somebody else might write it: one that is there, with another value, and without a sequence."""
    assert site.spark is not None
    path = str(site.root / "instance")
    rows = site.spark.read.format("delta").load(path).where("sopInstanceUid = '1.0.1.0'").limit(1)
    changed = rows.withColumn(column, F.lit(value)).withColumn("sequence", F.lit(None).cast("long"))
    changed.write.format("delta").mode("append").save(path)


def differences(site: Site, command: Command) -> set[tuple[str, str]]:
    code, out, _ = command(site, "verify", "--json", "--show")
    assert code == 65
    return {(one["table"], one["difference"]) for one in json.loads(out)["differences"]}


@soak
def test_a_row_of_another_writer_is_found_and_mended(lake: Site, command: Command) -> None:
    """A strange key, without a sequence and without a marker: the sync goes on, verify tells, repair takes it away."""
    write_foreign(lake, "sopInstanceUid", "1.0.1.77")
    assert len(lake.rows("instance")) == 7
    assert command(lake, "sync")[0] == 0
    assert [row["patientName"] for row in lake.rows("instance") if row["sopInstanceUid"] == "1.0.1.77"] == ["Old^0"]
    assert coverage(lake) == [Window(ticks_at(0), ticks_at(10))]
    # Missing: the bad entry.
    assert differences(lake, command) == {("instance", "extra"), ("instance", "missing")}
    fails(command(lake, "repair"), 65, STILL_BAD)
    assert lake.tables() == expected(lake)


@soak
def test_a_key_that_another_writer_doubled_is_named(lake: Site, command: Command) -> None:
    """65 when an entry changes several rows at once; verify tells, and only a rebuild mends it."""
    write_foreign(lake, "patientName", "Foreign")
    fails(command(lake, "sync"), 65, "instance holds a key in several rows, so somebody else has written to it: .*")
    assert [row["patientName"] for row in lake.rows("instance") if row["sopInstanceUid"] == "1.0.1.0"] == ["New^0"] * 2
    assert coverage(lake) == COVERED
    command(lake, "sync", "--start", text_at(9), "--end", text_at(10))
    assert ("instance", "duplicate") in differences(lake, command)
    fails(command(lake, "repair", "--rebuild"), 65, STILL_BAD)
    assert lake.tables() == expected(lake)


@pytest.mark.parametrize("table", [pytest.param("change"), pytest.param("run", marks=soak)])
def test_a_foreign_commit_before_ours_ends_the_run(
    lake: Site, command: Command, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """75 when somebody commits between our look and our commit; nothing of ours is doubled; the next run goes on."""
    before = versions(lake)

    def first(*_: Any) -> None:
        DeltaTable(lake.root / table).alter.set_table_properties({"some.thing": "1"}, raise_if_not_exists=False)

    with monkeypatch.context() as patched:
        place = land if table == "change" else ledger
        name = "commit_change" if table == "change" else "append_rows"
        real = getattr(place, name)
        struck: list[int] = []

        def overtaken(opened: DeltaTable, *rest: Any, **more: Any) -> int:
            if not struck:
                struck.append(1)
                first()
            return int(real(opened, *rest, **more))

        patched.setattr(place, name, overtaken)
        fails(command(lake, "sync"), 75, f"{table}: another writer came between, run 2 stops; run again")
    assert struck == [1]
    assert coverage(lake) == COVERED
    # The foreign commit; and of ours whole ones, the row that says so included.
    done = {"change": 1, "run": 1} if table == "change" else {**dict.fromkeys(ALL, 1), "run": 2}
    assert grown(lake, before) == done
    assert [row["status"] for row in lake.ledger()] == ["succeeded", "superseded"]
    if table == "run":
        heals(lake, command)


@soak
@pytest.mark.parametrize("table", SHARED)
def test_a_table_of_yesterday(lake: Site, command: Command, table: str) -> None:
    """A table restored from an older backup: every writer stops before it reads; repair is the way out."""
    shutil.copytree(lake.root / table, lake.folder / "yesterday")
    assert command(lake, "sync")[0] == 0
    shutil.rmtree(lake.root / table)
    shutil.copytree(lake.folder / "yesterday", lake.root / table)
    assert lake.tables() != expected(lake)
    before = versions(lake)
    older = (
        f"the table {table} is at version {before[table]}, and run 2 left it at {before[table] + 1}: was it restored "
        "from a backup\\? dicom-etl repair compares it with the service and brings it up to date"
    )
    lake.service.requests.clear()
    closing = ["rejects", "--close", "1", "--why", "test"]
    for words in (["sync"], ["sync", "--dry-run"], ["maintain"], ["maintain", "--dry-run"], closing):
        fails(command(lake, *words), 65, older)
    assert not [one for one in lake.service.requests.all() if one.query.get("includeMetadata") != "false"]
    assert grown(lake, before) == {"run": 1}, "the row of the sync that failed"
    assert command(lake, "verify")[0] == 65
    fails(command(lake, "repair"), 65, STILL_BAD)
    assert lake.tables() == expected(lake)
    assert command(lake, "sync")[0] == 0
    assert command(lake, "maintain", "--dry-run")[0] == 0
