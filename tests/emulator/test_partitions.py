"""Data partitions, on and off. An emulator of its own: the feature is an option.

design/service-protocol.md: Partitions.
"""

from __future__ import annotations

from dataclasses import replace

import pytest


@pytest.fixture
def api(make_emulator):
    """A service with data partitions."""
    return make_emulator(partitions=True, file_paths=True)[1]


def in_partition(api, name):
    return replace(api, partition=name)


def test_partitions_are_made_by_storing(api, dicom):
    """Two stores into new names list both; an unknown one is refused by others than STOW."""
    assert [in_partition(api, name).store(dicom()).status_code for name in ("a", "b.1-2_3")] == [200, 200]
    listed = api.get("/partitions").json()
    assert [one["partitionName"] for one in listed] == ["Microsoft.Default", "a", "b.1-2_3"]
    assert [one["partitionKey"] for one in listed] == [1, 2, 3]
    assert all(one["createdDate"].endswith("+00:00") for one in listed)
    assert in_partition(api, "c").get("/studies", headers={"accept": "*/*"}).status_code == 400


def test_the_same_uids_in_two_partitions_are_independent(api, dicom):
    """Deleting in one partition leaves the other; each row carries its partition and path."""
    file = dicom()
    a, b = in_partition(api, "a"), in_partition(api, "b")
    assert [one.store(file).status_code for one in (a, b)] == [200, 200]
    assert a.delete(f"/studies/{file.study}").status_code == 204
    accept = {"accept": "*/*"}
    assert [one.get(f"{file.path}/metadata", headers=accept).status_code for one in (a, b)] == [404, 200]
    rows = api.rows(file.study)
    assert [(row["partitionName"], row["action"], row["state"]) for row in rows] == [
        ("a", "Create", "Deleted"), ("b", "Create", "Current"), ("a", "Delete", "Deleted"),
    ]  # fmt: skip
    assert rows[1]["filePath"] == "AHDS/emulator/dicom/dicom/b/692_2.dcm"


def test_a_search_stays_in_its_partition(api, dicom):
    """A study of partition a is not found in b."""
    file = dicom()
    a, b = in_partition(api, "a"), in_partition(api, "b")
    assert a.store(file).status_code == 200
    assert b.store(dicom()).status_code == 200
    query = {"StudyInstanceUID": file.study}
    assert a.get("/studies", params=query, headers={"accept": "*/*"}).status_code == 200
    assert b.get("/studies", params=query, headers={"accept": "*/*"}).status_code == 204


def test_urls_carry_the_partition(api, dicom):
    """RetrieveURL has the partition's segment."""
    file = dicom()
    answer = in_partition(api, "a").store(file)
    url = answer.json()["00081199"]["Value"][0]["00081190"]["Value"][0]
    assert url == f"{api.root}/v2/partitions/a{file.path}"


def test_bulk_update_is_below_the_partition(api, dicom):
    """Only the partition's study is updated; the operation is at the root."""
    file = dicom()
    a, b = in_partition(api, "a"), in_partition(api, "b")
    assert [one.store(file).status_code for one in (a, b)] == [200, 200]
    answer = b.bulk_update([file.study], {"00081030": {"vr": "LO", "Value": ["x"]}})
    assert api.finished(answer)["results"]["instanceUpdated"] == 1
    assert [(row["partitionName"], row["action"]) for row in api.rows(file.study)] == [
        ("a", "Create"), ("b", "Create"), ("b", "Update"),
    ]  # fmt: skip


def test_the_segment_is_needed_when_partitions_are_on(api, dicom):
    """400 without the segment, and for a name with other characters."""
    file = dicom()
    assert api.store(file).status_code == 400
    assert api.get(file.path, headers={"accept": "*/*"}).status_code == 400
    assert api.delete(file.path).status_code == 400
    assert in_partition(api, "a b").store(file).status_code == 400
    assert in_partition(api, "x" * 65).store(file).status_code == 400


def test_the_segment_is_refused_when_partitions_are_off(make_emulator, dicom):
    """400 for a segment, and for the list of partitions."""
    _, api = make_emulator()
    assert in_partition(api, "a").store(dicom()).status_code == 400
    assert api.get("/partitions").status_code == 400
