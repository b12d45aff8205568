"""The requests of the vendor's conformance statement and collection of examples, each with its headers and answer.

Stored, retrieved, searched, deleted, drawn, and searched by an extended query tag, in this order (the open server's
v2-conformance-statement.md and Conformance-as-Postman; design/service-protocol.md: Frames and rendered images).
"""

from __future__ import annotations

import uuid
from io import BytesIO

import pydicom
import pytest
from pydicom.data import get_testdata_file

JSON = "application/dicom+json"
STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
STUDY, SERIES, INSTANCE = "/studies/{0}", "/studies/{0}/series/{1}", "/studies/{0}/series/{1}/instances/{2}"
EXPLICIT = "1.2.840.10008.1.2.1"
MULTIPART_FRAMES = 'multipart/related; type="application/octet-stream"'

GET = [
    (STUDY, STORED, 200),
    (STUDY, 'multipart/related; type="application/dicom"', 200),
    (STUDY, f'multipart/related; type="application/dicom"; transfer-syntax={EXPLICIT}', 200),
    (f"{STUDY}/metadata", JSON, 200),
    (SERIES, STORED, 200),
    (f"{SERIES}/metadata", JSON, 200),
    (INSTANCE, "application/dicom; transfer-syntax=*", 200),
    (INSTANCE, STORED, 200),
    (INSTANCE, "application/dicom", 200),
    (INSTANCE, f"application/dicom; transfer-syntax={EXPLICIT}", 200),
    (f"{INSTANCE}/metadata", JSON, 200),
    (f"{INSTANCE}/frames/1", f"{MULTIPART_FRAMES}; transfer-syntax={EXPLICIT}", 200),
    (f"{INSTANCE}/frames/1", f"{MULTIPART_FRAMES}; transfer-syntax=*", 200),
    (f"{INSTANCE}/frames/1", MULTIPART_FRAMES, 200),
    (f"{INSTANCE}/frames/1", "application/octet-stream; transfer-syntax=*", 200),
    (f"{INSTANCE}/frames/1,2", MULTIPART_FRAMES, 404),
    (f"{INSTANCE}/rendered", "image/jpeg", 200),
    (f"{INSTANCE}/rendered?quality=50", "image/jpeg", 200),
    (f"{INSTANCE}/rendered", "image/png", 200),
    (f"{INSTANCE}/frames/1/rendered", "image/jpeg", 200),
    (f"{INSTANCE}/frames/2/rendered", "image/jpeg", 404),
    ("/studies?StudyInstanceUID={0}", JSON, 200),
    ("/series?SeriesInstanceUID={1}", JSON, 200),
    (f"{STUDY}/series?SeriesInstanceUID={{1}}", JSON, 200),
    ("/instances?SOPInstanceUID={2}", JSON, 200),
    (f"{STUDY}/instances?SOPInstanceUID={{2}}", JSON, 200),
    (f"{SERIES}/instances?SOPInstanceUID={{2}}", JSON, 200),
    ("/studies?PatientID={3}&includefield=all&limit=5&offset=0", JSON, 200),
    ("/studies?PatientName=com&fuzzymatching=true&StudyInstanceUID={0}", JSON, 200),
    ("/studies?StudyDate=20040101-20041231&StudyInstanceUID={0}", JSON, 200),
    ("/studies?limit=201", JSON, 400),
    ("/studies?PatientID=nobody-{3}", JSON, 204),
]


@pytest.fixture(scope="module")
def file():
    """A CT slice of pydicom under UIDs and a patient's number of its own."""
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm", download=False))
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        setattr(dataset, name, f"2.25.{uuid.uuid4().int}")
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PatientID = uuid.uuid4().hex[:20]
    content = BytesIO()
    dataset.save_as(content)
    names = (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID, dataset.PatientID)
    return names, content.getvalue()


@pytest.fixture(scope="module")
def stored(api, file):
    """The names of the instance, after it was stored by a single part."""
    names, content = file
    assert api.post(content, "application/dicom").status_code == 200
    return names


@pytest.mark.parametrize(("path", "accept", "status"), GET)
def test_a_get_of_the_vendor_is_answered(api, stored, path, accept, status):
    assert api.get(path.format(*stored), headers={"accept": accept}).status_code == status


def test_the_vendors_deletes(api, dicom):
    """Instance, series and study: 204, and 404 after."""
    file = dicom()
    for path in (file.path, f"/studies/{file.study}/series/{file.series}", f"/studies/{file.study}"):
        assert api.store(file).status_code == 200
        assert [api.delete(path).status_code for _ in range(2)] == [204, 404]


def test_the_vendors_story_of_an_extended_query_tag(make_emulator, dicom):
    """Add, ask the operation, get, list, search, errors, set the query status, delete."""
    _, api = make_emulator()
    file = dicom({"00081090": "Model 1", "00080070": "ACME"})
    assert api.store(file).status_code == 200
    tags = api.url("/extendedquerytags")
    added = api.http.post(tags, json=[{"Path": "00080070", "VR": "LO", "Level": "Instance"}])
    assert api.finished(added)["status"] == "succeeded"
    assert api.http.get(f"{tags}/00080070").json()["status"] == "Ready"
    assert len(api.http.get(tags).json()) == 1
    found = api.get("/instances?Manufacturer=ACME&00081090=Model 1", headers={"accept": JSON})
    assert (found.status_code, len(found.json())) == (200, 1)
    assert api.http.get(f"{tags}/Manufacturer/errors").json() == []
    assert api.http.patch(f"{tags}/00080070", json={"QueryStatus": "Disabled"}).json()["queryStatus"] == "Disabled"
    assert api.get("/instances?Manufacturer=ACME", headers={"accept": JSON}).status_code == 400
    assert api.http.delete(f"{tags}/00080070").status_code == 204
