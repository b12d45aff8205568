"""Bulk updates that change UIDs: the new key is updated, the old key's rows are not told.

design/service-protocol.md: Change of UIDs.
"""

from __future__ import annotations

import json
from io import BytesIO

import pydicom
import pytest

ACCEPT = {"accept": "*/*"}
FILE = {"accept": "application/dicom; transfer-syntax=*"}
TAGS = {"study": "0020000D", "series": "0020000E", "sop": "00080018"}


def change(**uids):
    return {TAGS[level]: {"vr": "UI", "Value": [uid]} for level, uid in uids.items()}


def ask(api, study, dataset, **filters):
    body = {"studyInstanceUids": [study], "changeDataset": dataset, **filters}
    return api.http.post(api.url("/studies/$bulkUpdate"), content=json.dumps(body))


def shown(rows):
    return [(row["action"], row["state"], row["sopInstanceUid"].strip()) for row in rows]


@pytest.fixture
def study(api, dicom, uid):
    """Three instances of one study, the third in a series of its own."""
    study, series = uid(), uid()
    files = [dicom(study=study, series=series), dicom(study=study, series=series), dicom(study=study)]
    assert api.store(*files).status_code == 200
    return files


def test_a_study_gets_a_new_uid(api, study, uid):
    """Update rows for the new study; the old rows stay Current with the old metadata and path."""
    old, new = study[0].study, uid()
    before = api.rows(old)
    name = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "New^Name"}]}}
    operation = api.finished(ask(api, old, change(study=new) | name))
    assert (operation["status"], operation["results"]["instanceUpdated"]) == ("succeeded", 3)
    assert len(before) == 3
    assert api.rows(old) == before
    rows = api.rows(new)
    assert sorted(shown(rows)) == sorted(("Update", "Current", file.sop) for file in study)
    for row in rows:
        assert row["metadata"]["0020000D"]["Value"] == [new]
        assert row["metadata"]["00100010"]["Value"] == [{"Alphabetic": "New^Name"}]


def test_searches_and_retrieval_know_the_new_uids_only(api, study, uid):
    """QIDO and WADO find nothing by the old UIDs; the file says the new ones, in its meta header too."""
    file, new_study, new_sop = study[2], uid(), uid()
    answer = ask(api, file.study, change(study=new_study, sop=new_sop), seriesInstanceUid=file.series)
    assert api.finished(answer)["results"]["instanceUpdated"] == 1
    found = api.get("/instances", params={"StudyInstanceUID": new_study}, headers=ACCEPT).json()
    assert [one["00080018"]["Value"] for one in found] == [[new_sop]]
    left = api.get("/instances", params={"StudyInstanceUID": file.study}, headers=ACCEPT).json()
    assert sorted(one["00080018"]["Value"][0] for one in left) == sorted(one.sop for one in study[:2])
    assert api.get(f"{file.path}/metadata", headers=ACCEPT).status_code == 404
    assert api.delete(file.path).status_code == 404
    moved = f"/studies/{new_study}/series/{file.series}/instances/{new_sop}"
    dataset = pydicom.dcmread(BytesIO(api.get(moved, headers=FILE).content))
    assert (dataset.StudyInstanceUID, dataset.SOPInstanceUID) == (new_study, new_sop)
    assert dataset.file_meta.MediaStorageSOPInstanceUID == new_sop


def test_a_series_gets_a_new_uid(api, study, uid):
    """With seriesInstanceUid only its instances move, in the same study."""
    new = uid()
    answer = ask(api, study[0].study, change(series=new), seriesInstanceUid=study[0].series)
    assert api.finished(answer)["results"]["instanceUpdated"] == 2
    rows = api.rows(study[0].study)
    assert shown(rows)[:3] == [("Create", "Current", file.sop) for file in study]
    assert {row["seriesInstanceUid"].strip() for row in rows[3:]} == {new}
    assert {row["sopInstanceUid"].strip() for row in rows[3:]} == {file.sop for file in study[:2]}


def test_one_instance_of_a_series_gets_a_new_uid(api, study, uid):
    """With both filters one instance moves; without them two would become one, and the operation fails."""
    new = uid()
    both = {"seriesInstanceUid": study[0].series, "sopInstanceUid": study[0].sop}
    failed = api.finished(ask(api, study[0].study, change(sop=new), seriesInstanceUid=study[0].series))
    assert (failed["status"], failed["results"]["studyFailed"]) == ("failed", 1)
    assert len(api.rows(study[0].study)) == 3
    assert api.finished(ask(api, study[0].study, change(sop=new), **both))["results"]["instanceUpdated"] == 1
    assert shown(api.rows(study[0].study))[3:] == [("Update", "Current", new)]


def test_a_uid_that_is_taken_fails_the_operation(api, study):
    """Nothing is written when the target exists."""
    both = {"seriesInstanceUid": study[0].series, "sopInstanceUid": study[0].sop}
    operation = api.finished(ask(api, study[0].study, change(sop=study[1].sop), **both))
    assert operation["status"] == "failed"
    assert shown(api.rows(study[0].study)) == [("Create", "Current", file.sop) for file in study]


def test_later_events_of_the_new_key_leave_the_old_rows_alone(api, study, uid):
    """Updated, deleted: the old rows go on showing the old metadata; stored again under the old UIDs, they follow."""
    old, new = study[0].study, uid()
    before = api.rows(old)
    assert api.finished(ask(api, old, change(study=new)))["status"] == "succeeded"
    assert api.finished(api.bulk_update([new], {"00100020": {"vr": "LO", "Value": ["P9"]}}))["status"] == "succeeded"
    assert api.delete(f"/studies/{new}").status_code == 204
    assert {(row["action"], row["state"]) for row in api.rows(new)} == {("Update", "Deleted"), ("Delete", "Deleted")}
    assert api.rows(old) == before
    assert api.store(study[0]).status_code == 200
    assert [row["state"] for row in api.rows(old)] == ["Replaced", "Current", "Current", "Current"]


def test_an_updated_instance_keeps_its_original(api, study, uid):
    """The old key's rows show the version before the change; msdicom-request-original gives the first of all."""
    old, new = study[0].study, uid()
    assert api.finished(api.bulk_update([old], {"00100020": {"vr": "LO", "Value": ["P9"]}}))["status"] == "succeeded"
    before = api.rows(old)
    assert [row["state"] for row in before] == ["Replaced"] * 3 + ["Current"] * 3
    assert api.finished(ask(api, old, change(study=new)))["status"] == "succeeded"
    assert api.rows(old) == before
    path = study[0].path.replace(old, new) + "/metadata"
    original = api.get(path, headers=ACCEPT | {"msdicom-request-original": "true"}).json()[0]
    assert (original["00100020"]["Value"], original["0020000D"]["Value"]) == (["P1"], [old])


@pytest.mark.parametrize(
    ("studies", "dataset", "filters"),
    [
        (2, change(study="1.2.3"), {}),
        (1, change(sop="1.2.3"), {}),
        (1, {"00100020": {"vr": "LO", "Value": ["x"]}}, {"sopInstanceUid": "1.2"}),
        (1, change(study="1.2.x"), {}),
        (1, {"0020000D": {"vr": "UI"}}, {}),
        (1, change(study="1.2.3"), {"seriesInstanceUid": "abc"}),
        (1, change(study="1.2.3"), {"seriesInstanceUid": 7}),
    ],
)
def test_a_change_that_is_not_offered_is_refused(api, uid, studies, dataset, filters):
    """400: more than one study, an instance without its series, a UID that is none."""
    body = {"studyInstanceUids": [uid() for _ in range(studies)], "changeDataset": dataset, **filters}
    assert api.http.post(api.url("/studies/$bulkUpdate"), content=json.dumps(body)).status_code == 400
