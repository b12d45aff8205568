"""A client that nobody here wrote, the PyPI package dicomweb-client, works with the service over a socket."""

from __future__ import annotations

import os
from io import BytesIO

import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from PIL import Image


@pytest.fixture
def client(api):
    token = os.environ.get("DICOM_ETL_TEST_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else None
    return DICOMwebClient(f"{api.root}/v2", headers=headers)


@pytest.fixture
def study(dicom, uid):
    """Three files of two series, as pydicom reads them."""
    study, series = uid(), uid()
    files = [dicom(study=study, series=series), dicom(study=study, series=series), dicom(study=study)]
    return [pydicom.dcmread(BytesIO(file.content)) for file in files]


def test_it_stores_searches_retrieves_and_deletes(client, study):
    """The whole life of a study by another's client."""
    uid, series = study[0].StudyInstanceUID, study[0].SeriesInstanceUID
    answer = client.store_instances(study)
    assert len(answer.ReferencedSOPSequence) == 3

    (found,) = client.search_for_studies(
        search_filters={"StudyInstanceUID": uid}, fields=["NumberOfStudyRelatedInstances"]
    )
    assert pydicom.Dataset.from_json(found).NumberOfStudyRelatedInstances == 3
    assert len(client.search_for_series(study_instance_uid=uid)) == 2
    assert len(client.search_for_instances(study_instance_uid=uid, get_remaining=True, limit=2)) == 3

    metadata = client.retrieve_study_metadata(uid)
    assert {pydicom.Dataset.from_json(one).SOPInstanceUID for one in metadata} == {one.SOPInstanceUID for one in study}
    assert len(client.retrieve_series_metadata(uid, series)) == 2
    one = client.retrieve_instance_metadata(uid, series, study[0].SOPInstanceUID)
    assert pydicom.Dataset.from_json(one).PatientName == "Doe^Jane"

    assert client.retrieve_instance(uid, series, study[0].SOPInstanceUID) == study[0]
    assert {one.SOPInstanceUID for one in client.retrieve_series(uid, series)} == {
        one.SOPInstanceUID for one in study[:2]
    }
    assert len(client.retrieve_study(uid)) == 3

    client.delete_instance(uid, series, study[0].SOPInstanceUID)
    assert len(client.search_for_instances(study_instance_uid=uid)) == 2
    client.delete_series(uid, series)
    client.delete_study(uid)
    assert client.search_for_studies(search_filters={"StudyInstanceUID": uid}) == []


def test_it_stores_into_a_study(client, study):
    """POST /studies/{study} answers with the study's URL."""
    answer = client.store_instances(study[:1], study_instance_uid=study[0].StudyInstanceUID)
    assert answer.RetrieveURL.endswith(f"/v2/studies/{study[0].StudyInstanceUID}")


def test_real_files_come_back_as_they_were(client, uid):
    """Files of pydicom, stored under fresh UIDs and retrieved in their own transfer syntax."""
    names = ["CT_small.dcm", "MR_small_RLE.dcm", "JPEG2000.dcm", "chrX1.dcm"]
    for name in names:
        dataset = pydicom.dcmread(pydicom.data.get_testdata_file(name, download=False) or charset_file(name))
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = uid(), uid(), uid()
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        client.store_instances([dataset])
        uids = dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID
        back = client.retrieve_instance(*uids, media_types=(("application/dicom", "*"),))
        assert back == dataset
        assert back.file_meta.TransferSyntaxUID == dataset.file_meta.TransferSyntaxUID


def test_it_retrieves_frames_and_pictures(client, uid):
    """Frames decoded and as stored, a picture of the instance and of one frame."""
    dataset = pydicom.dcmread(pydicom.data.get_testdata_file("rtdose_rle.dcm", download=False))
    plain = pydicom.dcmread(pydicom.data.get_testdata_file("rtdose.dcm", download=False))
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = uid(), uid(), uid()
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.PatientID, dataset.SOPClassUID = "P1", plain.SOPClassUID
    client.store_instances([dataset])
    uids = dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID

    size = plain.Rows * plain.Columns * plain.BitsAllocated // 8
    frames = client.retrieve_instance_frames(*uids, frame_numbers=[2, 15])
    assert frames == [plain.PixelData[size : 2 * size], plain.PixelData[14 * size : 15 * size]]
    (stored,) = client.iter_instance_frames(*uids, frame_numbers=[1], media_types=(("application/octet-stream", "*"),))
    assert stored == next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=15))

    png = client.retrieve_instance_rendered(*uids, media_types=("image/png",))
    assert Image.open(BytesIO(png)).size == (plain.Columns, plain.Rows)
    frame = client.retrieve_instance_frames_rendered(*uids, frame_numbers=[1], media_types=("image/png",))
    assert frame == png
    jpeg = client.retrieve_instance_rendered(*uids, media_types=("image/jpeg",), params={"quality": 80})
    assert Image.open(BytesIO(jpeg)).format == "JPEG"


def charset_file(name):
    (path,) = (path for path in pydicom.data.get_charset_files(name) if path.endswith(name))
    return path
