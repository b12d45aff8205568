"""The lake folder: names, paths, files that come and go, health-check files (design/service-protocol.md: Data lake)."""

from __future__ import annotations

import re

import pytest

from dicom_emulator.state.lake import file_name

PREFIX = "AHDS/emulator/dicom/dicom/Microsoft.Default/"
CHANGE = {"00081030": {"vr": "LO", "Value": ["x"]}}


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("watermark", "name"),
    [
        (1, "132_1.dcm"), (2, "692_2.dcm"), (3, "274_3.dcm"), (10, "542_10.dcm"), (100, "614_100.dcm"),
        (123456, "311_123456.dcm"), (9876543210, "143_9876543210.dcm"),
    ],
)  # fmt: skip
def test_a_file_is_named_by_its_watermark(watermark, name):
    """The vectors of the file names (design/service-protocol.md: Data lake)."""
    assert file_name(watermark) == name


def test_files_lie_where_filepath_says(make_emulator, dicom, tmp_path):
    """The file at filePath is what was stored; rows and latest carry the path; a Delete has none."""
    _, api = make_emulator(lake=tmp_path)
    file = dicom()
    assert api.store(file).status_code == 200
    (row,) = api.rows(file.study)
    assert row["filePath"] == api.latest().json()["filePath"] == PREFIX + "132_1.dcm"
    assert re.fullmatch(rf"{PREFIX}\d*_\d*\.dcm", row["filePath"])
    assert (tmp_path / row["filePath"]).read_bytes() == file.content
    assert api.delete(file.path).status_code == 204
    created, deleted = api.rows(file.study)
    assert created["filePath"] == row["filePath"]
    assert "filePath" not in deleted
    assert files_in(tmp_path) == []


def test_the_folder_is_named_by_workspace_service_and_partition(make_emulator, dicom, tmp_path):
    """AHDS/{workspace}/dicom/{service}/ and, unless left out, the partition."""
    for folder, options, path in (
        ("a", {"workspace": "ws", "service": "svc"}, "AHDS/ws/dicom/svc/Microsoft.Default/132_1.dcm"),
        ("b", {"partition_folder": False}, "AHDS/emulator/dicom/dicom/132_1.dcm"),
    ):
        _, api = make_emulator(lake=tmp_path / folder, **options)
        assert api.store(dicom()).status_code == 200
        assert files_in(tmp_path / folder) == [path]


def test_updates_write_new_files_and_keep_the_original_only(make_emulator, dicom, tmp_path):
    """After two updates the original and the last file lie there; a deletion takes both."""
    _, api = make_emulator(lake=tmp_path)
    file = dicom()
    assert api.store(file).status_code == 200
    for _ in range(2):
        assert api.finished(api.bulk_update([file.study], CHANGE))["status"] == "succeeded"
    assert files_in(tmp_path) == [PREFIX + "132_1.dcm", PREFIX + "274_3.dcm"]
    assert {row["filePath"] for row in api.rows(file.study)} == {PREFIX + "274_3.dcm"}
    assert api.delete(f"/studies/{file.study}").status_code == 204
    assert files_in(tmp_path) == []


def test_without_a_lake_there_are_no_paths(make_emulator, dicom):
    """No filePath in feed and latest, also after an update."""
    _, api = make_emulator()
    file = dicom()
    assert api.store(file).status_code == 200
    assert api.finished(api.bulk_update([file.study], CHANGE))["status"] == "succeeded"
    rows = [*api.rows(file.study), api.latest().json()]
    assert len(rows) == 3
    assert all("filePath" not in row for row in rows)


def test_a_recreated_instance_gets_another_file(make_emulator, dicom, tmp_path):
    """The old Create row keeps the path of a file that is gone."""
    _, api = make_emulator(lake=tmp_path)
    file = dicom()
    assert api.store(file).status_code == 200
    assert api.delete(file.path).status_code == 204
    assert api.store(file).status_code == 200
    paths = [row.get("filePath") for row in api.rows(file.study)]
    assert paths == [PREFIX + "132_1.dcm", None, PREFIX + "692_2.dcm"]
    assert files_in(tmp_path) == [PREFIX + "692_2.dcm"]


@pytest.mark.parametrize("meddle", [lambda path: path.unlink(), lambda path: path.write_bytes(b"other")])
def test_a_file_that_others_removed_or_changed_is_a_failed_dependency(make_emulator, dicom, tmp_path, meddle):
    """424 for the file; the feed and the metadata do not read the lake and go on."""
    _, api = make_emulator(lake=tmp_path)
    file = dicom()
    assert api.store(file).status_code == 200
    assert api.get(file.path, headers={"accept": "*/*"}).status_code == 200
    meddle(tmp_path / PREFIX / "132_1.dcm")
    assert api.get(file.path, headers={"accept": "*/*"}).status_code == 424
    assert api.metadata(file)["00080018"]["Value"] == [file.sop]
    assert api.rows(file.study)[0]["state"] == "Current"


def test_a_health_check_writes_and_deletes_its_file(make_emulator, tmp_path):
    """Nothing stays of a check, unless it is told to; then below healthCheck/ of the service."""
    _, api = make_emulator(lake=tmp_path)
    assert api.http.get(f"{api.root}/health/check").json()["overallStatus"] == "Healthy"
    assert files_in(tmp_path) == []
    assert api.http.post(f"{api.root}/_emulator/health-files").status_code == 204
    (name,) = files_in(tmp_path)
    assert re.fullmatch(r"AHDS/emulator/dicom/dicom/healthCheck/health[0-9a-f-]{36}\.txt", name)
    assert (tmp_path / name).read_text() == "Test content."
