"""``change`` opens alike in deltalake, Polars and pyarrow."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from dicom_etl.core.entry import Entry
from dicom_etl.core.timerange import parse_instant
from dicom_etl.lake.change_schema import CHANGE_PROPERTIES, change_schema
from dicom_etl.lake.delta.folder import local_folder
from dicom_etl.lake.delta.table import create_table
from dicom_etl.landing.commit import commit_change
from dicom_etl.landing.landing import Landing

READ_AT = datetime(2026, 3, 1, 8, 0, 0, 5, tzinfo=UTC)
FIRST = '{"00080020":{"vr":"DA","Value":["19431231"]},"00100010":{"vr":"PN","Value":[{"Alphabetic":"M\\u00fcller"}]}}'
WHEN = "2022-11-25T08:44:13.0243479+00:00"


def _entry(sequence: int, metadata: str | None, **changes: Any) -> Entry:
    fields: dict[str, Any] = {
        "sequence": sequence,
        "timestamp": WHEN,
        "ticks": parse_instant(WHEN),
        "study_instance_uid": "1.2 ",
        "series_instance_uid": "1.2.3",
        "sop_instance_uid": f"1.2.3.{sequence}",
        "action": "create",
        "state": "current",
        "file_path": f"a/{sequence}.dcm",
    }
    raw = {} if metadata is None else {"metadata": msgspec.Raw(metadata.encode())}
    return Entry(**(fields | raw | changes))


def _row(sequence: int, **changes: Any) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(change_schema().names)
    row |= {
        "runId": 3,
        "readAt": READ_AT,
        "sequence": sequence,
        "timestamp": datetime(2022, 11, 25, 8, 44, 13, 24347, tzinfo=UTC),
        "timestampTicks": 16693658530243479,
        "partitionName": "Microsoft.Default",
        "studyInstanceUid": "1.2",
        "seriesInstanceUid": "1.2.3",
        "sopInstanceUid": f"1.2.3.{sequence}",
        "action": "Create",
        "state": "Current",
        "filePath": f"a/{sequence}.dcm",
    }
    return row | changes


EXPECTED = [
    _row(1, studyDate=date(1943, 12, 31), patientName="Müller", metadata=FIRST),
    _row(2, action="Delete", state="Deleted", filePath=None, partitionName="p"),
    _row(3, metadata="{}"),
    _row(
        4,
        patientId="1.0",
        studyDate=date(1, 1, 1),
        metadata=json.dumps(
            {"00100020": {"vr": "LO", "Value": [1.0]}, "00080020": {"vr": "DA", "Value": ["00010101"]}}
        ),
    ),
]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("private") / "change")
    table = create_table(path, change_schema(), name="change", properties=CHANGE_PROPERTIES, private=True)
    folder = local_folder(path, private=True)
    with Landing(folder, run_id=3, read_at=READ_AT, rows_per_group=1, rows_per_file=2) as landing:
        landing.add(
            [
                _entry(1, FIRST),
                _entry(2, None, action="DELETE", state="DELETED", file_path=None, partition_name="p"),
                _entry(3, "{}"),
                _entry(4, EXPECTED[3]["metadata"]),
            ]
        )
        landed = landing.finish(parse_instant("2023-01-01T00:00:00Z"))
    assert len(landed.files) == 2
    commit_change(table, landed, app_id="x/change", run_id=3, details={"runId": "3"})
    return path


def _deltalake(path: str) -> list[dict[str, Any]]:
    local = SubTreeFileSystem(path, LocalFileSystem())
    return list(DeltaTable(path).to_pyarrow_dataset(filesystem=local).to_table().to_pylist())


def _polars(path: str) -> list[dict[str, Any]]:
    return pl.scan_delta(path).collect().to_dicts()


def _pyarrow(path: str) -> list[dict[str, Any]]:
    return [row for file in Path(path).glob("*.parquet") for row in pq.read_table(file).to_pylist()]


@pytest.mark.parametrize("read", [_deltalake, _polars, _pyarrow])
def test_readers_see_the_same_rows(path: str, read: Callable[[str], list[dict[str, Any]]]) -> None:
    """Every reader gives the same four rows, all columns, to the microsecond."""
    assert sorted(read(path), key=lambda row: row["sequence"]) == EXPECTED


def test_polars_prunes_by_run(path: str) -> None:
    """A reader that filters by run gets that run's rows, and only those."""
    assert pl.scan_delta(path).filter(pl.col("runId") == 3).collect().height == 4
    assert pl.scan_delta(path).filter(pl.col("runId") > 3).collect().height == 0


def test_the_table_asks_little_of_its_readers(path: str) -> None:
    """Reader version 1, no features: Spark, Fabric, delta-rs, Polars and DuckDB all read it."""
    protocol = DeltaTable(path).protocol()
    assert (protocol.min_reader_version, protocol.reader_features) == (1, None)
    types = {field.name: str(field.type) for field in DeltaTable(path).schema().fields}
    assert types["timestamp"] == types["readAt"] == 'PrimitiveType("timestamp")'
    assert types["studyDate"] == 'PrimitiveType("date")'
    assert set(types.values()) == {
        'PrimitiveType("long")',
        'PrimitiveType("timestamp")',
        'PrimitiveType("string")',
        'PrimitiveType("date")',
    }
