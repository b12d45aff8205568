"""WADO-RS of pictures: windows, colours and photometric interpretations as PS3.3 C.11 has them, JPEG and PNG."""

from __future__ import annotations

import struct
from io import BytesIO

import pytest
from PIL import Image

PNG, JPEG = {"accept": "image/png"}, {"accept": "image/jpeg"}


def grey(values, **elements):
    """Elements of a picture of one row of signed 16-bit values, and what else is given."""
    return {
        "00280002": 1, "00280004": "MONOCHROME2", "00280010": 1, "00280011": len(values), "00280100": 16,
        "00280101": 16, "00280102": 15, "00280103": 1, "7FE00010": ("OW", struct.pack(f"<{len(values)}h", *values)),
    } | {name.removeprefix("x"): value for name, value in elements.items()}  # fmt: skip


@pytest.fixture
def picture(api, dicom):
    """Stores a file of these elements and reads its PNG: the values of its pixels."""

    def read(elements, suffix="/rendered"):
        file = dicom(elements)
        assert api.store(file).status_code == 200
        answer = api.get(file.path + suffix, headers=PNG)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text
        image = Image.open(BytesIO(answer.content))
        assert image.format == "PNG"
        return image.mode, list(image.get_flattened_data())

    return read


def test_without_a_window_the_values_of_the_frame_fill_the_range(picture):
    """Least 0, most 255; a frame of one value is black."""
    assert picture(grey([-100, 0, 100])) == ("L", [0, 128, 255])
    assert picture(grey([7, 7])) == ("L", [0, 0])


def test_the_window_is_in_the_units_of_the_rescaling(picture):
    """Stored 0 to 2000 is -1000 to 1000 HU; window 40/400 is LINEAR (PS3.3 C.11.2.1.2.1): from -159.5 to 239.5."""
    rescaled = {"x00281052": "-1000", "x00281053": "1", "x00281050": "40", "x00281051": "400"}
    assert picture(grey([0, 840, 841, 1040, 1238, 1240, 2000], **rescaled)) == ("L", [0, 0, 1, 128, 254, 255, 255])


def test_the_first_of_several_windows_counts(picture):
    elements = grey([0, 50, 100], x00281050="50.5\\1000", x00281051="101\\1")
    assert picture(elements) == ("L", [0, 128, 255])


@pytest.mark.parametrize(
    ("function", "expected"), [("LINEAR_EXACT", [0, 128, 255]), ("SIGMOID", [30, 128, 225]), ("LINEAR", [0, 129, 255])]
)
def test_the_function_of_the_window(picture, function, expected):
    """Centre 50, width 100, at 0, 50 and 100: PS3.3 C.11.2.1.2 and C.11.2.1.3, computed by hand."""
    elements = grey([0, 50, 100], x00281050="50", x00281051="100", x00281056=function)
    assert picture(elements) == ("L", expected)


@pytest.mark.parametrize("elements", [{"x00280004": "MONOCHROME1"}, {"x20500020": "INVERSE"}])
def test_what_is_to_be_inverted_is(picture, elements):
    """MONOCHROME1, or a presentation LUT of shape INVERSE, shows the least value white."""
    assert picture(grey([0, 50, 100], **elements)) == ("L", [255, 128, 0])


def test_colours(picture):
    """RGB by pixel and by plane."""
    rgb = {
        "00280002": 3, "00280004": "RGB", "00280010": 1, "00280011": 2, "00280100": 8, "00280101": 8, "00280102": 7,
        "00280103": 0,
    }  # fmt: skip
    expected = ("RGB", [(255, 0, 1), (2, 254, 3)])
    assert picture(rgb | {"00280006": 0, "7FE00010": ("OB", bytes([255, 0, 1, 2, 254, 3]))}) == expected
    assert picture(rgb | {"00280006": 1, "7FE00010": ("OB", bytes([255, 2, 0, 254, 1, 3]))}) == expected


def test_one_frame_of_many(api, dicom, picture):
    """The first by default, else the one in the path; two at once are 400, one beyond the last 404."""
    elements = grey([0, 0], x00280008="2", x7FE00010=("OW", struct.pack("<4h", 0, 1, 1, 0)))
    assert picture(elements) == ("L", [0, 255])
    assert picture(elements, "/frames/2/rendered") == ("L", [255, 0])
    file = dicom(elements)
    assert api.store(file).status_code == 200
    statuses = {
        path: api.get(f"{file.path}/frames/{path}/rendered", headers=PNG).status_code for path in ("1,2", "3", "0")
    }
    assert statuses == {"1,2": 400, "3": 404, "0": 400}


def test_jpeg_is_the_default_and_has_a_quality(api, dicom):
    """Without Accept, or for image/jpeg; a worse quality gives fewer bytes, and for PNG it says nothing."""
    file = dicom(grey(list(range(0, 4096, 3))))
    assert api.store(file).status_code == 200
    request = api.http.build_request("GET", api.url(f"{file.path}/rendered"))
    del request.headers["accept"]
    default = api.http.send(request)
    assert (default.status_code, default.headers["content-type"]) == (200, "image/jpeg")
    best, worst = (api.get(f"{file.path}/rendered", params={"quality": q}, headers=JPEG).content for q in (100, 1))
    assert default.content == best
    assert Image.open(BytesIO(worst)).format == "JPEG"
    assert len(worst) < len(best)
    pngs = {api.get(f"{file.path}/rendered", params={"quality": q}, headers=PNG).content for q in (100, 1)}
    assert len(pngs) == 1


@pytest.mark.parametrize("quality", ["0", "101", "-1", "best", "1.5", ""])
def test_a_quality_is_1_to_100(api, dicom, quality):
    file = dicom(grey([0, 1]))
    assert api.store(file).status_code == 200
    assert api.get(f"{file.path}/rendered", params={"quality": quality}, headers=JPEG).status_code == 400


@pytest.mark.parametrize("accept", ["*/*", "image/gif", "application/dicom", "image/png, image/jpeg", "image/*"])
def test_a_picture_is_asked_for_by_one_type(api, dicom, accept):
    """406 for another type, for several, and for `*/*`, which the service does not take either."""
    file = dicom(grey([0, 1]))
    assert api.store(file).status_code == 200
    assert api.get(f"{file.path}/rendered", headers={"accept": accept}).status_code == 406


def test_what_has_no_pixels_has_no_picture(api, dicom):
    file = dicom()
    assert api.store(file).status_code == 200
    answer = api.get(f"{file.path}/rendered", headers=PNG)
    assert (answer.status_code, answer.text) == (404, "The specified frame cannot be found.")
