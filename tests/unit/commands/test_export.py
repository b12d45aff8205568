"""The parts of an export that need no JVM: its manifest, its digest, its check, its files."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dicom_etl.commands.export.check import check_export
from dicom_etl.commands.export.files import copy_files
from dicom_etl.commands.export.manifest import Column, ExportedFile, Manifest, copied, read_manifest
from dicom_etl.commands.export.rows import RowsDigest, listed, writer
from dicom_etl.core.errors import DataError
from dicom_etl.core.settings.load import load_settings


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


def test_what_differs_is_named(folder: Path) -> None:
    """A file of equal length with another byte, one that is gone, one that was added."""
    (folder / "files/1.dcm").write_bytes(b"onE")
    (folder / "files/2.dcm").unlink()
    (folder / "files/3.dcm").touch()
    found = check_export(None, folder)
    assert (found.equal, found.changed, found.missing) == (["rows.csv"], ["files/1.dcm"], ["files/2.dcm"])
    assert (found.unexpected, found.differs) == (["files/3.dcm"], True)


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
