"""WADO-RS of frames: as stored, decoded, and what cannot be given.

design/service-protocol.md: Frames and rendered images.
"""

from __future__ import annotations

from email import message_from_bytes
from email.policy import HTTP
from io import BytesIO

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames

STORED = {"accept": 'multipart/related; type="application/octet-stream"; transfer-syntax=*'}
DECODED = {"accept": 'multipart/related; type="application/octet-stream"'}


def parts(answer):
    """Type, transfer syntax and content of each part."""
    assert answer.status_code == 200, answer.text
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    found = message_from_bytes(head + answer.content, policy=HTTP).iter_parts()
    return [
        (one.get_content_type(), one["content-type"].params.get("transfer-syntax"), one.get_payload(decode=True))
        for one in found
    ]


@pytest.fixture
def stored(api, uid):
    """Stores one of pydicom's files under fresh UIDs; its path and its data set."""

    def store(name, **elements):
        dataset = pydicom.dcmread(get_testdata_file(name, download=False))
        dataset.update(elements)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = uid(), uid(), uid()
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        if "PatientID" not in dataset:
            dataset.PatientID = "P1"
        file = BytesIO()
        dataset.save_as(file)
        assert api.post(file.getvalue(), "application/dicom").status_code in (200, 202)
        uids = dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID
        return "/studies/{}/series/{}/instances/{}".format(*uids), dataset

    return store


def test_a_native_frame_is_the_pixel_data_of_the_file(api, stored):
    path, dataset = stored("MR_small.dcm")
    answer = api.get(f"{path}/frames/1", headers=DECODED)
    assert parts(answer) == [("application/octet-stream", "1.2.840.10008.1.2.1", dataset.PixelData)]
    assert answer.headers["content-type"].startswith('multipart/related; type="application/octet-stream"; boundary=')


def test_frames_of_a_multi_frame_file(api, stored):
    """Frames 3 and 1, each from the same bytes that an independent reader finds."""
    path, dataset = stored("rtdose.dcm")
    size = dataset.Rows * dataset.Columns * dataset.BitsAllocated // 8
    assert dataset.NumberOfFrames == 15
    expected = [dataset.PixelData[2 * size : 3 * size], dataset.PixelData[:size]]
    assert [content for _, _, content in parts(api.get(f"{path}/frames/3,1", headers=DECODED))] == expected


def test_compressed_frames_come_as_they_are_stored_when_that_is_asked_for(api, stored):
    """transfer-syntax=* gives the bitstream of the file, and its transfer syntax in the part."""
    path, dataset = stored("SC_rgb_rle_2frame.dcm")
    frames = list(generate_frames(dataset.PixelData, number_of_frames=int(dataset.NumberOfFrames)))
    assert len(frames) == 2
    rle = "1.2.840.10008.1.2.5"
    found = parts(api.get(f"{path}/frames/2,1", headers=STORED))
    assert found == [("application/octet-stream", rle, frames[1]), ("application/octet-stream", rle, frames[0])]


@pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_bigendian.dcm"])
def test_frames_are_decoded_by_default(api, stored, name):
    """Of RLE, JPEG 2000 lossless and big endian the frame is that of the same image stored uncompressed."""
    path, _ = stored(name)
    plain = pydicom.dcmread(get_testdata_file("MR_small.dcm", download=False))
    (found,) = parts(api.get(f"{path}/frames/1", headers=DECODED))
    assert found == ("application/octet-stream", "1.2.840.10008.1.2.1", plain.PixelData)


def test_a_single_frame_comes_without_multipart(api, stored):
    """application/octet-stream with transfer-syntax=*, for one frame only: 400 for two, 406 without the syntax."""
    path, dataset = stored("MR_small.dcm")
    answer = api.get(f"{path}/frames/1", headers={"accept": "application/octet-stream; transfer-syntax=*"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/octet-stream")
    assert answer.content == dataset.PixelData
    two = api.get(f"{path}/frames/1,1", headers={"accept": "application/octet-stream; transfer-syntax=*"})
    assert (two.status_code, two.text) == (
        400, "The accept header is supported for single frame retrieval, use multi-part accept header instead.",
    )  # fmt: skip
    assert api.get(f"{path}/frames/1", headers={"accept": "application/octet-stream"}).status_code == 406


def test_jpeg_2000_frames_come_from_such_files_only(api, stored):
    """image/jp2 of a JPEG 2000 file is its bitstream; of another file 406: the emulator does not encode."""
    accept = {"accept": 'multipart/related; type="image/jp2"'}
    path, dataset = stored("MR_small_jp2klossless.dcm")
    (expected,) = generate_frames(dataset.PixelData, number_of_frames=1)
    assert parts(api.get(f"{path}/frames/1", headers=accept)) == [("image/jp2", "1.2.840.10008.1.2.4.90", expected)]
    path, _ = stored("MR_small.dcm")
    assert api.get(f"{path}/frames/1", headers=accept).status_code == 406


def test_frames_of_single_bits_begin_within_a_byte(api, dicom):
    """Two frames of 12 bits without padding between them: the second one begins with its own first bit."""
    elements = {
        "00280002": 1, "00280004": "MONOCHROME2", "00280008": "2", "00280010": 1, "00280011": 12, "00280100": 1,
        "00280101": 1, "00280102": 0, "00280103": 0, "7FE00010": ("OB", bytes([0b11110000, 0b10101001, 0b11001111, 0])),
    }  # fmt: skip
    file = dicom(elements)
    assert api.store(file).status_code == 200
    contents = [content for _, _, content in parts(api.get(f"{file.path}/frames/1,2", headers=DECODED))]
    assert contents == [bytes([0b11110000, 0b1001]), bytes([0b11111010, 0b1100])]


@pytest.mark.parametrize("numbers", ["0", "1,0", "a", "1,,2", "-1", "1.5", "99999999999"])
def test_a_frame_number_is_positive(api, stored, numbers):
    """400 in the service's words."""
    path, _ = stored("MR_small.dcm")
    answer = api.get(f"{path}/frames/{numbers}", headers=DECODED)
    assert answer.status_code == 400
    assert answer.text.startswith("The specified frames value is not valid. At least one frame must be present")


def test_what_has_no_such_frame_is_not_found(api, dicom, stored, uid):
    """404: a frame beyond the last, a file without pixels, an instance that is not there."""
    path, _ = stored("MR_small.dcm")
    no_pixels = dicom()
    assert api.store(no_pixels).status_code == 200
    texts = {
        f"{path}/frames/2": "The specified frame cannot be found.",
        f"{path}/frames/1,2": "The specified frame cannot be found.",
        f"{no_pixels.path}/frames/1": "The specified frame cannot be found.",
        f"/studies/{uid()}/series/{uid()}/instances/{uid()}/frames/1": "The specified instance cannot be found.",
    }
    for address, text in texts.items():
        answer = api.get(address, headers=DECODED)
        assert (answer.status_code, answer.text) == (404, text), address


def test_a_frame_that_cannot_be_decoded_is_not_acceptable(make_emulator, dicom):
    """Damaged JPEG: 406 when it must be decoded, and its bytes when they are asked for as stored."""
    _, api = make_emulator()
    pixels = b"\xfe\xff\x00\xe0\0\0\0\0" + b"\xfe\xff\x00\xe0\4\0\0\0\xff\xd8\0\1" + b"\xfe\xff\xdd\xe0\0\0\0\0"
    file = dicom(
        {"00280002": 1, "00280004": "MONOCHROME2", "00280010": 8, "00280011": 8, "00280100": 8, "00280101": 8,
         "00280102": 7, "00280103": 0, "7FE00010": ("OB", pixels)},
        syntax="1.2.840.10008.1.2.4.50",
    )  # fmt: skip
    # The encoder of the tests writes defined lengths: encapsulated pixels have none.
    at = file.content.index(b"\xe0\x7f\x10\x00OB")
    content = file.content[: at + 8] + b"\xff\xff\xff\xff" + file.content[at + 12 :]
    assert api.post(content, "application/dicom").status_code == 200
    decoded = api.get(f"{file.path}/frames/1", headers=DECODED)
    assert (decoded.status_code, decoded.text) == (406, "The specified transcoding is not supported.")
    assert parts(api.get(f"{file.path}/frames/1", headers=STORED))[0][2] == b"\xff\xd8\0\1"
    rendered = api.get(f"{file.path}/rendered", headers={"accept": "image/png"})
    assert (rendered.status_code, rendered.text) == (
        406, "An error was encountered when attempting to convert the dicom file into an image",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("*/*", 200),
        ('multipart/related; type="application/octet-stream"; transfer-syntax="*"', 200),
        ('multipart/related; type="*/*"', 200),
        ('multipart/related; type="image/jpeg"', 406),
        ('multipart/related; type="application/octet-stream"; transfer-syntax=1.2.840.10008.1.2.4.50', 406),
        ('multipart/related; type="application/octet-stream"; transfer-syntax=x', 400),
        ("image/png", 406),
    ],
)
def test_what_accept_says_of_frames(api, stored, accept, status):
    """The quotes that OHIF sets, and the default of dicomweb-client, are taken; other types are 406."""
    path, _ = stored("MR_small.dcm")
    assert api.get(f"{path}/frames/1", headers={"accept": accept}).status_code == status
