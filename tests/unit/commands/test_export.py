"""The parts of an export that need no JVM: its manifest, its digest, its check, its files."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dicom_etl.cli.main import cli
from dicom_etl.commands.export import check, export
from dicom_etl.commands.export.check import check_export
from dicom_etl.commands.export.export import ExportRequest, appearing, refuse_without_paths, target
from dicom_etl.commands.export.files import copy_files
from dicom_etl.commands.export.manifest import Column, ExportedFile, Manifest, copied, manifest_sha256, read_manifest
from dicom_etl.commands.export.rows import RowsDigest, RowsFormat, listed, writer
from dicom_etl.commands.verify.row_files import read_batches
from dicom_etl.core.errors import AccessDenied, DataError, StorageError, UsageError
from dicom_etl.core.settings.load import load_settings
from dicom_etl.outputs.dicom_file import recorded_file


def manifest_of(*files: ExportedFile, result: ExportedFile) -> Manifest:
    return Manifest(
        manifest_format=1, statement="SELECT 1", lake_id="an-id", run_id=3, run_finished_at="2026-01-31T08:00:00Z",
        versions={"instance": 4, "series": 5, "study": 6}, exported_at="2026-01-31T09:00:00Z",
        columns=[Column("n", "bigint")], row_count=1, rows_digest="0", result=result, files=list(files), software={},
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An export of one row and two files."""
    made = tmp_path / "cohort"
    (made / "files").mkdir(parents=True)
    contents = {"rows.csv": b"n\n1\n", "files/1.dcm": b"one", "files/2.dcm": b"two"}
    for name, content in contents.items():
        (made / name).write_bytes(content)
    result, *files = [copied(io.BytesIO(content), name) for name, content in contents.items()]
    (made / "manifest.json").write_bytes(manifest_of(*files, result=result).encoded())
    return made


def test_an_export_is_equal_as_long_as_nobody_touches_it(folder: Path) -> None:
    found = check_export(None, folder)
    assert (found.equal, found.differs) == (["rows.csv", "files/1.dcm", "files/2.dcm"], False)
    assert (found.versions, found.rows) == ("not reachable", "not compared")
    assert (found.statement, found.manifest_sha256) == ("SELECT 1", read_manifest(folder).sha256())


def test_what_differs_is_named(folder: Path) -> None:
    """A file of equal length with another byte, one that is gone, one that was added."""
    (folder / "files/1.dcm").write_bytes(b"onE")
    (folder / "files/2.dcm").unlink()
    (folder / "files/3.dcm").touch()
    found = check_export(None, folder)
    assert (found.equal, found.changed, found.missing) == (["rows.csv"], ["files/1.dcm"], ["files/2.dcm"])
    assert (found.unexpected, found.differs) == (["files/3.dcm"], True)


def test_a_person_sees_how_many_of_how_many_files_are_equal(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of the manifest, what is equal of them, and what is not; a file that was added is none of them."""
    monkeypatch.setenv("DICOM_ETL_CONFIG", os.devnull)
    words = ["export", "--verify", str(folder), "--set", "lake.root=/nonexistent/lake"]
    cli.main(words, standalone_mode=False)
    assert "files  3 of 3 files equal" in capsys.readouterr().out.splitlines()
    (folder / "files/1.dcm").write_bytes(b"onE")
    (folder / "files/3.dcm").touch()
    with pytest.raises(DataError, match="is not what it was"):
        cli.main(words, standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:5] == ["files  2 of 3 files equal", "changed  files/1.dcm", "unexpected  files/3.dcm"]


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('"manifestFormat": 1', '"manifestFormat": 2', "was written by a newer version"),
        ('"files/1.dcm"', '"../1.dcm"', "names a file outside its folder"),
        ('"files/1.dcm"', '"/etc/passwd"', "names a file outside its folder"),
        ('"runId": 3', '"runId": "3"', "is not one of dicom-etl export"),
        ("{", "[", "is not one of dicom-etl export"),
    ],
)
def test_a_strange_manifest_is_refused(folder: Path, old: str, new: str, text: str) -> None:
    path = folder / "manifest.json"
    before = path.read_text()
    assert old in before
    path.write_text(before.replace(old, new, 1))
    with pytest.raises(DataError, match=text):
        read_manifest(folder)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no manifest\.json that can be read"):
        check_export(None, tmp_path)


def digest(*rows: list[object]) -> tuple[int, str]:
    found = RowsDigest()
    for row in rows:
        found.add([row])
    return found.count, found.hexdigest()


def test_the_digest_of_rows_knows_values_and_not_their_order() -> None:
    """Two rows in either order are equal; one of them twice, a null for "", or a value of another type is not."""
    one, other = ["a", 1, None], ["b", 2, "x"]
    assert digest(one, other) == digest(other, one) == (2, digest(one, other)[1])
    different = [digest(one, other), digest(one, one), digest(one), digest(["a", "1", None]), digest(["a", 1, ""])]
    assert len(set(different)) == 5
    assert digest(["a"]) == (1, "0eb5b8d6f81bc677da8a08567cc4fa9a06a57e9ec8da85ed73a7f62727996002")


def test_rows_are_written_as_query_prints_them() -> None:
    """CSV: a header, "" for null, times with Z, nested values as JSON. Parquet: the values themselves."""
    moment = datetime(2026, 1, 31, 8, tzinfo=UTC)
    values = {
        "a": ["x", None], "n": [1, 2], "at": [moment, None], "day": [date(2026, 1, 31), None], "tags": [["p"], []],
        "cost": [Decimal("1.50"), None],
    }  # fmt: skip
    batch = pa.RecordBatch.from_pydict(values)
    text, binary = io.BytesIO(), io.BytesIO()
    with writer("csv", text, batch.schema) as csv, writer("parquet", binary, batch.schema) as parquet:
        csv.write(batch, listed(batch))
        parquet.write(batch, listed(batch))
    assert text.getvalue().decode().splitlines() == [
        "a,n,at,day,tags,cost",
        'x,1,2026-01-31T08:00:00Z,2026-01-31,"[""p""]",1.50',
        ",2,,,[],",
    ]
    assert pq.read_table(binary).to_pylist() == batch.to_pylist()


def test_files_are_copied_with_their_digests_or_not_at_all(tmp_path: Path) -> None:
    """Under their recorded paths, for their owner only; of those that are gone the number is said."""
    root, to = tmp_path / "lake", tmp_path / "export"
    (root / "AHDS/a").mkdir(parents=True)
    (root / "AHDS/a/1_1.dcm").write_bytes(b"one")
    to.mkdir()
    settings = load_settings(None, [f"files.root={root}"], {}, tmp_path)
    found = copy_files({"AHDS/a/1_1.dcm"}, settings, to)
    assert [(one.path, one.size_bytes, one.sha256[:8]) for one in found] == [("files/AHDS/a/1_1.dcm", 3, "7692c3ad")]
    assert (to / "files/AHDS/a/1_1.dcm").stat().st_mode & 0o777 == 0o600
    assert (to / "files/AHDS").stat().st_mode & 0o777 == 0o700
    with pytest.raises(DataError, match=r"^1 of 2 files are not there"):
        copy_files({"AHDS/a/1_1.dcm", "AHDS/a/2_2.dcm"}, settings, tmp_path / "other")
    with pytest.raises(DataError, match=r"leads out of files\.root"):
        copy_files({"../1_1.dcm"}, settings, to)
    assert json.loads(manifest_of(*found, result=found[0]).encoded())["files"][0]["sizeBytes"] == 3


ROWS = pa.RecordBatch.from_pydict({"name": ["Smith\nJohn", 'a "b"', "", None]})


def exported(folder: Path, rows_format: RowsFormat, kept: int = 4) -> Path:
    """An export that says it has all of ROWS; its file has the first ``kept``, with size and SHA-256 to match."""
    folder.mkdir()
    name, digest, rows = f"rows.{rows_format}", RowsDigest(), ROWS.slice(0, kept)
    digest.add(listed(ROWS))
    with (folder / name).open("wb") as sink, writer(rows_format, sink, ROWS.schema) as written:
        written.write(rows, listed(rows))
    with (folder / name).open("rb") as file:
        manifest = manifest_of(result=copied(file, name))
    edited = json.loads(manifest.encoded()) | {"rowCount": digest.count, "rowsDigest": digest.hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(edited))
    return folder


@pytest.mark.parametrize("rows_format", ["parquet", "csv"])
def test_a_row_that_was_taken_out_is_seen_although_the_hash_was_corrected(
    tmp_path: Path, rows_format: RowsFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows themselves are counted, of Parquet digested; by the SHA-256 alone, the broken twin, it passes."""
    whole, cut = exported(tmp_path / "whole", rows_format), exported(tmp_path / "cut", rows_format, kept=3)
    assert check_export(None, whole).differs is False
    assert check_export(None, cut).changed == [f"rows.{rows_format}"]
    assert manifest_sha256(whole) != manifest_sha256(cut)
    monkeypatch.setattr(check, "_as_counted", lambda *_: True)
    assert check_export(None, cut).differs is False


def test_a_value_that_was_changed_is_seen_in_parquet(tmp_path: Path) -> None:
    folder = exported(tmp_path / "cohort", "parquet")
    path = folder / "rows.parquet"
    pq.write_table(pa.table({"name": ["Smith\nJohn", 'a "c"', "", None]}), path)
    manifest = json.loads((folder / "manifest.json").read_text())
    with path.open("rb") as file:
        now = copied(file, path.name)
    manifest["result"] |= {"sizeBytes": now.size_bytes, "sha256": now.sha256}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert check_export(None, folder).changed == ["rows.parquet"]


def test_a_link_in_the_place_of_the_files_is_not_followed_in_silence(folder: Path, tmp_path: Path) -> None:
    (folder / "files").rename(tmp_path / "elsewhere")
    (folder / "files").symlink_to(tmp_path / "elsewhere")
    assert check_export(None, folder).unexpected == ["files"]


def fill(folder: Path, *names: str, end: BaseException | None = None) -> Path:
    """Where these files were made, before they were to appear in ``folder``."""
    with appearing(folder) as new:
        for name in names:
            (new / name).parent.mkdir(exist_ok=True)
            (new / name).touch()
        if end is not None:
            raise end
    return new


@pytest.mark.parametrize("there", [False, True])
def test_an_export_appears_when_it_is_whole(tmp_path: Path, there: bool) -> None:
    """Also in a folder that is there, whose parent is another disk or not writable; a failure leaves nothing."""
    folder = tmp_path / "cohort"
    if there:
        folder.mkdir(mode=0o755)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        fill(folder, "rows.csv", end=KeyboardInterrupt())
    assert sorted(tmp_path.rglob("*")) == before
    assert fill(folder, "files/1.dcm", "manifest.json", "rows.csv").parent == (folder if there else tmp_path)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    assert names == ["files", "files/1.dcm", "manifest.json", "rows.csv"]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in tmp_path.iterdir()] == ["cohort"]


def test_a_folder_that_cannot_be_filled_stays_empty(tmp_path: Path) -> None:
    """The manifest comes last: until then the folder is no export."""
    folder = tmp_path / "cohort"
    (folder / "manifest.json").mkdir(parents=True)  # a file cannot take its name
    with pytest.raises(StorageError):
        fill(folder, "rows.csv", "manifest.json")
    assert [path.name for path in folder.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize("text", ["file:///x", "abfss://c@a.dfs.core.windows.net/x"])
def test_an_export_is_written_to_a_folder_and_not_to_an_address(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--to: name a folder of this machine by its path"):
        target(text)


@pytest.mark.parametrize(
    "columns", [[], [("filePath", "bigint")], [("filePath", "string"), ("filePath", "string")], [("FILE", "string")]]
)
def test_the_column_that_names_the_files_is_text(columns: list[tuple[str, str]]) -> None:
    refuse_without_paths([("n", "int"), ("filePath", "string")])
    with pytest.raises(UsageError, match="must give the column filePath once and as text"):
        refuse_without_paths(columns)


def test_nothing_more_is_copied_once_a_file_is_missing(tmp_path: Path) -> None:
    """All that are missing are counted; what comes after the first one is only looked for."""
    root, to = tmp_path / "lake", tmp_path / "export"
    root.mkdir()
    to.mkdir()
    for name in ("a", "c"):
        (root / name).write_bytes(b"x")
    settings = load_settings(None, [f"files.root={root}", "dicom.connections=1"], {}, tmp_path)
    with pytest.raises(DataError, match=r"^2 of 4 files are not there"):
        copy_files({"a", "b", "c", "d"}, settings, to)
    assert [path.name for path in (to / "files").iterdir()] == ["a"]


def test_a_file_that_may_not_be_read_is_not_taken_for_a_missing_one(tmp_path: Path) -> None:
    settings = load_settings(None, [f"files.root={tmp_path}"], {}, tmp_path)

    def refused(_path: str, _mode: str) -> Any:
        raise PermissionError(13, "no", "name^of^a^patient")

    with pytest.raises(AccessDenied, match=r"^this identity may not read files\.root: [^^]*$"):
        recorded_file("a", settings, lambda root: (SimpleNamespace(open=refused), root))  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("path", ["a//b", "./a", "a/./b", "a/", "", "."])
def test_a_second_name_of_a_file_is_refused(path: str, tmp_path: Path) -> None:
    settings = load_settings(None, [f"files.root={tmp_path}"], {}, tmp_path)
    with pytest.raises(DataError, match="is not followed"):
        copy_files({path}, settings, tmp_path)


def test_rows_are_read_in_small_batches_and_written_in_large_groups() -> None:
    """A row may have a header of 100 kB: 2000 of them are 200 MB, 65 536 are more than a machine has."""
    many = pa.RecordBatch.from_pydict({"n": list(range(5000))})
    sink = io.BytesIO()
    with writer("parquet", sink, many.schema) as parquet:
        for start in range(0, 5000, 1000):
            parquet.write(many.slice(start, 1000), [])
    assert pq.ParquetFile(sink).metadata.num_row_groups == 1
    assert [batch.num_rows for batch in read_batches(sink)] == [0, 2000, 2000, 1000]
    large, sink = pa.RecordBatch.from_pydict({"text": ["x" * 100_000] * 400}), io.BytesIO()
    with writer("parquet", sink, large.schema) as parquet:
        for _ in range(4):
            parquet.write(large, [])
    assert pq.ParquetFile(sink).metadata.num_row_groups == 2


@pytest.mark.parametrize("verifies", [False, True])
def test_the_rows_in_clear_go_after_the_jvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verifies: bool) -> None:
    """A signal comes while Spark writes; it goes on until the tables are closed, and nothing of it is left."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    spills: list[list[Path]] = []

    @contextmanager
    def tables(*_: Any, **__: Any) -> Iterator[Any]:
        try:
            yield SimpleNamespace(answer=interrupted, snapshot=known)
        finally:
            spills.append(list(tmp_path.rglob("dicom-etl-*")))
            (spills[-1][0] / "rows-x").mkdir()  # as the JVM does, whose folder was there

    def interrupted(_sql: str) -> Any:
        raise KeyboardInterrupt

    known = SimpleNamespace(runs=list, lake=SimpleNamespace(paths=None))
    where = check if verifies else export
    monkeypatch.setattr(where, "open_tables", tables)
    monkeypatch.setattr(where, "existing_lake", lambda *_, **__: known)
    monkeypatch.setattr(export, "last_run", lambda _runs: SimpleNamespace(run_id=1))
    settings = load_settings(None, [], {}, tmp_path)
    asked, manifest = ExportRequest("SELECT 1", str(tmp_path / "cohort")), manifest_of(result=ExportedFile("", 0, ""))
    work = partial(check._same_rows, settings, manifest, None) if verifies else partial(export.export, settings, asked)
    with pytest.raises(KeyboardInterrupt):
        work()
    assert [len(found) for found in spills] == [1]
    assert [path.name for path in tmp_path.rglob("*")] == ["temporary"]
