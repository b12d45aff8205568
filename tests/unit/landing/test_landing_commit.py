"""One commit makes a landing part of ``change``; nothing of a patient gets into its log or its footers."""

from __future__ import annotations

import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from dicom_etl.core.attributes import ATTRIBUTES
from dicom_etl.core.entry import Entry
from dicom_etl.core.errors import Superseded
from dicom_etl.lake.change_schema import CHANGE_PROPERTIES, change_schema
from dicom_etl.lake.delta.folder import local_folder
from dicom_etl.lake.delta.table import create_table, open_table, read_rows, txn_version
from dicom_etl.lake.high_water_mark import highest_landed
from dicom_etl.landing.commit import commit_change
from dicom_etl.landing.landing import Landed, Landing

APP = "5f0c/change"
READ_AT = datetime(2026, 3, 1, 8, 0, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> str:
    path = str(tmp_path / "private" / "change")
    create_table(path, change_schema(), name="change", properties=CHANGE_PROPERTIES, private=True)
    return path


def newest(path: str) -> DeltaTable:
    table = open_table(path)
    assert table is not None
    return table


def entry(sequence: int, ticks: int, mark: str = "") -> Entry:
    document = {a.tag: {"vr": a.vr, "Value": [f"{mark}{a.keyword}{sequence}"]} for a in ATTRIBUTES if not a.is_date}
    document["00080020"] = {"vr": "DA", "Value": ["19431231"]}
    return Entry(
        sequence=sequence,
        timestamp="",
        partition_name=f"{mark}partition",
        study_instance_uid=f"{mark}1.2.{sequence}",
        series_instance_uid=f"{mark}1.2.{sequence}.1",
        sop_instance_uid=f"{mark}1.2.{sequence}.1.1",
        action="Create",
        state="Current",
        file_path=f"{mark}path/{sequence}.dcm",
        metadata=msgspec.Raw(json.dumps(document).encode()),
        ticks=ticks,
    )


def land(path: str, run_id: int, *entries: Entry, end: int = 1_000) -> Landed:
    folder = local_folder(path, private=True)
    with Landing(folder, run_id=run_id, read_at=READ_AT, rows_per_group=2, rows_per_file=4) as landing:
        landing.add(entries)
        return landing.finish(end)


def commit(path: str, landed: Landed, run_id: int, table: DeltaTable | None = None) -> int:
    return commit_change(table or newest(path), landed, app_id=APP, run_id=run_id, details={"runId": str(run_id)})


def sequences(path: str) -> list[tuple[int, int]]:
    rows = read_rows(newest(path), ["runId", "sequence"])
    return sorted(zip(rows["runId"].to_pylist(), rows["sequence"].to_pylist(), strict=True))


def test_a_landing_is_visible_at_once_and_as_a_whole(path: str) -> None:
    """Several files, one version; before it a reader sees none of them."""
    landed = land(path, 3, *(entry(n, n) for n in range(10)))
    assert len(landed.files) == 3
    assert sequences(path) == []
    assert commit(path, landed, 3) == 1
    assert sequences(path) == [(3, n) for n in range(10)]
    assert txn_version(newest(path), APP) == 3


def test_a_landing_without_entries_commits_nothing(path: str) -> None:
    """No version, no marker: an empty window leaves ``change`` as it is."""
    assert commit(path, land(path, 3), 3) == 0
    assert newest(path).version() == 0
    assert txn_version(newest(path), APP) == 0


def test_a_superseded_landing_is_refused_and_its_files_removed(path: str) -> None:
    """A run that was overtaken while it read changes nothing and leaves nothing."""
    landed = land(path, 3, entry(1, 1))
    commit(path, land(path, 4, entry(2, 2)), 4)
    before = set(os.listdir(path))
    with pytest.raises(Superseded):
        commit(path, landed, 3)
    assert sequences(path) == [(4, 2)]
    assert before - set(os.listdir(path)) == {landed.files[0].path}


def test_two_runs_keep_their_own_rows(path: str) -> None:
    """The same sequence read by two runs stands there twice: ``change`` is the history of what was read."""
    commit(path, land(path, 3, entry(1, 1), entry(2, 2)), 3)
    commit(path, land(path, 4, entry(2, 2)), 4)
    assert sequences(path) == [(3, 1), (3, 2), (4, 2)]


def test_nothing_of_a_patient_in_log_and_footers(path: str) -> None:
    """A mark in every value is in the rows, and in no log file, checkpoint or Parquet footer."""
    commit(path, land(path, 3, *(entry(n, n, "CANARY") for n in range(10)), end=9), 3)
    newest(path).create_checkpoint()
    found = read_rows(newest(path), change_schema().names).to_pylist()
    assert len(found) == 9
    marked = ["partitionName", "studyInstanceUid", "filePath", "metadata"]
    marked += [a.column for a in ATTRIBUTES if not a.is_date]
    assert all("CANARY" in row[column] for row in found for column in marked)

    logs = [file for file in (Path(path) / "_delta_log").iterdir() if file.is_file()]
    assert len(logs) == 4
    for file in logs:
        content = file.read_bytes()
        if file.suffix == ".parquet":
            content = json.dumps(pq.read_table(file).to_pylist(), default=str).encode()
            assert b"numRecords" in content
        assert b"CANARY" not in content
        assert b"1943" not in content
        assert str(_days_of_1943_12_31()).encode() not in content

    data = list(Path(path).glob("*.parquet"))
    assert len(data) == 3
    for file in data:
        content = file.read_bytes()
        length = int.from_bytes(content[-8:-4], "little")
        footer = content[-8 - length :]
        assert b"runId" in footer
        assert b"CANARY" not in footer


def _days_of_1943_12_31() -> int:
    return (datetime(1943, 12, 31, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days


def test_the_table_of_headers_is_for_its_owner_only(path: str) -> None:
    """All that a run leaves in ``change`` is 0700 and 0600."""
    commit(path, land(path, 3, entry(1, 1)), 3)
    everything = [Path(path).parent, Path(path), *Path(path).rglob("*")]
    assert len(everything) == 6
    modes = {(p.is_dir(), stat.S_IMODE(p.stat().st_mode)) for p in everything}
    assert modes == {(True, 0o700), (False, 0o600)}


def test_highest_of_an_empty_table_is_none(path: str) -> None:
    """Nothing was landed yet."""
    assert highest_landed(newest(path)) is None


def test_highest_is_by_sequence_not_by_time(path: str) -> None:
    """The largest sequence over all runs, with its own time, even when it is not the latest."""
    commit(path, land(path, 3, entry(7, 70), entry(20, 10), entry(8, 80)), 3)
    commit(path, land(path, 4, *(entry(n, 900) for n in range(10, 19))), 4)
    assert highest_landed(newest(path)) == (20, 10)


def test_highest_reads_one_file(path: str) -> None:
    """The bounds in the log name the file; the others may even be gone."""
    commit(path, land(path, 3, entry(7, 70)), 3)
    commit(path, land(path, 4, entry(9, 90)), 4)
    for file in land_files(path, below=9):
        file.unlink()
    assert highest_landed(newest(path)) == (9, 90)


def land_files(path: str, below: int) -> list[Path]:
    found = [
        Path(path) / add["path"] for add in _adds(path) if json.loads(add["stats"])["maxValues"]["sequence"] < below
    ]
    assert found
    return found


def _adds(path: str) -> list[dict[str, str]]:
    logs = sorted((Path(path) / "_delta_log").glob("*.json"))
    lines = [line for log in logs for line in log.read_text().splitlines()]
    return [action["add"] for action in map(json.loads, lines) if "add" in action]


def test_highest_without_bounds_is_found_by_reading(path: str) -> None:
    """A file that somebody rewrote without bounds in the log costs a scan, and no wrong answer."""
    commit(path, land(path, 3, entry(7, 70), entry(9, 5)), 3)
    log = Path(path) / "_delta_log" / f"{1:020d}.json"
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    for action in actions:
        if "add" in action:
            action["add"]["stats"] = '{"numRecords": 2}'
    log.write_text("\n".join(json.dumps(action) for action in actions))
    assert highest_landed(newest(path)) == (9, 5)


def test_highest_of_several_readings_is_the_last_runs(path: str) -> None:
    """A service made anew may give the sequence another time: what the last run read counts."""
    commit(path, land(path, 3, entry(9, 90)), 3)
    commit(path, land(path, 4, entry(9, 50)), 4)
    assert highest_landed(newest(path)) == (9, 50)
