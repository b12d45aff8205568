"""Bulk update and operations over HTTP (design/service-protocol.md: Bulk update, Operations)."""

from __future__ import annotations

from io import BytesIO

import pydicom
import pytest

NAME = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "New^Name"}]}}
ORIGINAL = {"msdicom-request-original": "true"}
FILE = {"accept": "application/dicom; transfer-syntax=*"}


def name_in(dataset):
    return dataset["00100010"]["Value"][0]["Alphabetic"]


@pytest.fixture
def study(api, dicom, uid):
    """Three instances of one study in two series."""
    study, series = uid(), uid()
    files = [dicom(study=study, series=series), dicom(study=study, series=series), dicom(study=study)]
    assert api.store(*files).status_code == 200
    return files


def test_an_update_changes_every_instance_of_a_study(api, study):
    """succeeded with counts 1 and 3; Update rows with one time, older rows Replaced with the new metadata."""
    operation = api.finished(api.bulk_update([study[0].study], NAME))
    assert (operation["type"], operation["status"], operation["percentComplete"]) == ("update", "succeeded", 100)
    assert operation["results"]["studyUpdated"] == 1
    assert operation["results"]["instanceUpdated"] == 3
    rows = api.rows(study[0].study)
    assert [(row["action"], row["state"]) for row in rows] == [("Create", "Replaced")] * 3 + [("Update", "Current")] * 3
    assert {name_in(row["metadata"]) for row in rows} == {"New^Name"}
    assert len({row["timestamp"] for row in rows[3:]}) == 1


def test_the_other_attributes_stay(api, dicom):
    """Only the change dataset's attributes differ, also numbers keep their digits."""
    file = dicom({"00101030": "70.50", "00081140": [{"00081155": "1.2.3"}]})
    assert api.store(file).status_code == 200
    before = api.get(f"{file.path}/metadata", headers={"accept": "*/*"}).text
    assert api.finished(api.bulk_update([file.study], NAME))["status"] == "succeeded"
    after = api.get(f"{file.path}/metadata", headers={"accept": "*/*"}).text
    assert '"Value":[70.50]' in before
    assert after == before.replace("Doe^Jane", "New^Name")


def test_an_attribute_that_was_not_there_is_added_in_its_place(api, dicom):
    """The new attribute stands in tag order; an empty one has no Value."""
    file = dicom()
    assert api.store(file).status_code == 200
    change = {"00100040": {"vr": "CS", "Value": ["F"]}, "00080050": {"vr": "SH"}}
    assert api.finished(api.bulk_update([file.study], change))["status"] == "succeeded"
    metadata = api.metadata(file)
    assert list(metadata) == sorted(metadata)
    assert (metadata["00100040"], metadata["00080050"]) == ({"vr": "CS", "Value": ["F"]}, {"vr": "SH"})


def test_the_file_is_changed_and_signed_by_the_service(api, dicom):
    """The new file has the change and the service as its implementation; all else is as before."""
    file = dicom({"00091001": ("UN", b"\1\2\3\4"), "7FE00010": ("OW", b"\5\6")})
    assert api.store(file).status_code == 200
    assert api.finished(api.bulk_update([file.study], NAME))["status"] == "succeeded"
    updated = pydicom.dcmread(BytesIO(api.get(file.path, headers=FILE).content))
    assert updated.PatientName == "New^Name"
    assert updated.file_meta.ImplementationClassUID == "1.3.6.1.4.1.311.129"
    assert updated.PixelData == b"\5\6"
    assert updated[0x00091001].value == b"\1\2\3\4"
    assert updated.PatientID == "P1"


def test_the_original_is_kept_through_two_updates(api, dicom):
    """msdicom-request-original gives the first version, of file and metadata; without it the last."""
    file = dicom()
    assert api.store(file).status_code == 200
    for name in ("First^Update", "Second^Update"):
        change = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": name}]}}
        assert api.finished(api.bulk_update([file.study], change))["status"] == "succeeded"
    path = f"{file.path}/metadata"
    last, original = (api.get(path, headers={"accept": "*/*"} | more) for more in ({}, ORIGINAL))
    assert name_in(last.json()[0]) == "Second^Update"
    assert name_in(original.json()[0]) == "Doe^Jane"
    assert last.headers["etag"] != original.headers["etag"]
    assert api.get(file.path, headers=FILE | ORIGINAL).content == file.content
    assert [row["action"] for row in api.rows(file.study)] == ["Create", "Update", "Update"]


def test_a_delete_after_an_update_takes_both_versions(api, study):
    """Neither the updated nor the original version is left."""
    assert api.finished(api.bulk_update([study[0].study], NAME))["status"] == "succeeded"
    assert api.delete(f"/studies/{study[0].study}").status_code == 204
    for more in ({}, ORIGINAL):
        assert api.get(study[0].path, headers=FILE | more).status_code == 404


def test_an_unknown_study_is_a_success_of_nothing(api, uid):
    """succeeded with 0 studies and 0 instances."""
    operation = api.finished(api.bulk_update([uid()], NAME))
    assert operation["status"] == "succeeded"
    assert operation["results"]["studyUpdated"] == 0
    assert operation["results"]["instanceUpdated"] == 0


def test_v1_has_no_bulk_update(api, study):
    """404 below /v1."""
    assert api.bulk_update([study[0].study], NAME, version=1).status_code == 404


@pytest.mark.parametrize("studies", [[], ["1.2"] * 51, ["not a uid"], [7]], ids=["none", "too many", "bad", "number"])
def test_bad_studies_are_refused_in_text(api, studies):
    """400 in plain text for none, more than 50, or a bad UID."""
    answer = api.bulk_update(studies, NAME)
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    "change",
    [
        {"00080020": {"vr": "DA", "Value": ["20240101"]}},
        {"00080060": {"vr": "CS", "Value": ["MR"]}},
        {"00100030": {"vr": "DA", "Value": ["yesterday"]}},
        {"00100010": {"vr": "LO", "Value": ["wrong VR"]}},
        {"00100020": {"vr": "LO", "Value": ["x" * 65]}},
    ],
)
def test_a_bad_change_is_refused_in_dicom_json(api, study, change):
    """400 with FailedAttributesSequence for a tag that is not updatable or a value that is not valid."""
    answer = api.bulk_update([study[0].study], change)
    assert answer.status_code == 400
    (item,) = answer.json()["00741048"]["Value"]
    (tag,) = change
    shown = f"({tag[:4]},{tag[4:]})".lower()
    assert item["00000902"]["Value"][0].startswith(f"DICOM100: {shown} - ")
    assert len(api.rows(study[0].study)) == 3


@pytest.mark.parametrize("body", ["", "[]", "{", '{"studyInstanceUids": ["1.2"]}'])
def test_a_body_that_is_no_request_is_refused(api, body):
    """400 for no JSON, no object, no change dataset."""
    assert api.http.post(api.url("/studies/$bulkUpdate"), content=body).status_code == 400


def test_an_unknown_operation_is_not_found(api):
    """404 for an id that was never given."""
    assert api.http.get(f"{api.root}/v2/operations/{'0' * 32}").status_code == 404


def test_an_operation_may_take_its_time(make_emulator, dicom):
    """202 with Location while it runs, and the change comes with the last poll; meanwhile others get 409."""
    _, api = make_emulator(operation_polls=2)
    file = dicom()
    assert api.store(file).status_code == 200
    answer = api.bulk_update([file.study], NAME)
    assert answer.status_code == 202
    assert len(answer.json()["id"]) == 32
    assert api.bulk_update([file.study], NAME).status_code == 409
    href = answer.json()["href"]
    running = [api.http.get(href) for _ in range(2)]
    assert [poll.status_code for poll in running] == [202, 202]
    assert running[0].json()["status"] == "running"
    assert running[0].headers["location"] == href
    assert len(api.rows(file.study)) == 1
    done = api.http.get(href)
    assert (done.status_code, done.json()["status"]) == (200, "succeeded")
    assert len(api.rows(file.study)) == 2
    assert api.http.get(href.replace("/v2/", "/v1/")).json()["status"] == "completed"


def test_a_study_that_cannot_be_written_fails_whole_and_the_others_go_on(make_emulator, dicom):
    """failed with one study updated and one not; the failed study has no Update row."""
    emulator, api = make_emulator()
    good = dicom()
    assert api.store(good).status_code == 200
    bad = ("Microsoft.Default", "1.2.3", "1.2.4", "1.2.5")
    emulator.service.create(bad, {}, file=b"no DICOM")
    operation = api.finished(api.bulk_update(["1.2.3", good.study], NAME))
    assert operation["status"] == "failed"
    results = operation["results"]
    assert (results["studyProcessed"], results["studyUpdated"], results["studyFailed"]) == (2, 1, 1)
    assert results["instanceUpdated"] == 1
    assert len(results["errors"]) == 1
    assert [row["action"] for row in api.feed().json()] == ["Create", "Create", "Update"]
