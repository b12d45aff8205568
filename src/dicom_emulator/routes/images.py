"""WADO-RS: single frames, and one frame as a picture (design/service-protocol.md: Frames and rendered images)."""

from __future__ import annotations

import re
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from dicom_emulator.dicom.pixels import (
    EXPLICIT_LITTLE_ENDIAN,
    NoSuchFrame,
    NotDecodable,
    Pixels,
    decoded_frame,
    read_pixels,
    stored_frame,
)
from dicom_emulator.dicom.rendering import ImageFormat, rendered
from dicom_emulator.http.answers import accepted
from dicom_emulator.http.errors import BadRequest, NotAcceptable, NotFound
from dicom_emulator.http.multipart import write_parts
from dicom_emulator.http.parameters import query_of
from dicom_emulator.routes.wado import find_file
from dicom_emulator.state.uids import is_valid_uid

_BYTES, _JPEG_2000 = "application/octet-stream", "image/jp2"
_JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
_FORMATS: dict[str, ImageFormat] = {"image/jpeg": "jpeg", "image/png": "png"}

_BAD_NUMBERS = (
    "The specified frames value is not valid. At least one frame must be present, and all requested frames must have "
    "value greater than 0."
)
_NO_FRAME = "The specified frame cannot be found."
_ONE_FRAME = "The accept header is supported for single frame retrieval, use multi-part accept header instead."
_NO_TRANSCODING = "The specified transcoding is not supported."
_NO_IMAGE = "An error was encountered when attempting to convert the dicom file into an image"
_BAD_QUALITY = "The specified image quality is not valid. It must be an integer from 1 to 100."


def get_frames(request: Request) -> Response:
    """`.../frames/{n,n}`: the frames in the order asked for; decoded, or with `transfer-syntax=*` as they are stored.

    multipart/related, or for one frame as stored also a single application/octet-stream. Raises BadRequest (400),
    NotFound (404) for a frame that is not there, NotAcceptable (406) for a type, or a transcoding that is not offered.
    """
    numbers = _numbers(request.path_params["frames"])
    media_type, syntax, single = _asked(request)
    if single and len(numbers) > 1:
        raise BadRequest(_ONE_FRAME)
    pixels = _pixels(request, numbers)
    shown, take = _way(pixels, media_type, syntax)
    try:
        contents = [take(pixels, number) for number in numbers]
    except NotDecodable:
        raise NotAcceptable(_NO_TRANSCODING) from None
    if single:
        return Response(contents[0], media_type=media_type)
    body, whole_type = write_parts(contents, media_type, f"; transfer-syntax={shown}")
    return Response(body, media_type=whole_type)


def get_rendered(request: Request) -> Response:
    """`.../rendered` and `.../frames/{n}/rendered`: one frame, by default the first, as JPEG or PNG.

    Raises BadRequest (400) for a bad number or quality, NotFound (404) without such a frame, NotAcceptable (406).
    """
    numbers = _numbers(request.path_params.get("frames", "1"))
    if len(numbers) > 1:
        raise BadRequest(_BAD_NUMBERS)
    quality = _quality(query_of(request).get("quality", "100"))
    media_type = _image_type(request)
    pixels = _pixels(request, numbers)
    try:
        image = rendered(pixels, numbers[0], _FORMATS[media_type], quality)
    except NotDecodable:
        raise NotAcceptable(_NO_IMAGE) from None
    return Response(image, media_type=media_type)


def _pixels(request: Request, numbers: list[int]) -> Pixels:
    try:
        pixels = read_pixels(find_file(request))
        pixels.require(numbers)
    except NoSuchFrame:
        raise NotFound(_NO_FRAME) from None
    return pixels


def _numbers(text: str) -> list[int]:
    if not re.fullmatch(r"[0-9]{1,9}(,[0-9]{1,9})*", text):
        raise BadRequest(_BAD_NUMBERS)
    numbers = [int(one) for one in text.split(",")]
    if 0 in numbers:
        raise BadRequest(_BAD_NUMBERS)
    return numbers


def _quality(text: str) -> int:
    if not re.fullmatch(r"\s*\+?[0-9]{1,9}\s*", text) or not 1 <= int(text) <= 100:
        raise BadRequest(_BAD_QUALITY)
    return int(text)


def _image_type(request: Request) -> str:
    """JPEG when nothing is said; the service takes neither several media ranges nor `*/*`."""
    ranges = accepted(request)
    if len(ranges) > 1:
        raise NotAcceptable("The request contains multiple accept headers, which is not supported.")
    media_type = ranges[0][0] if ranges else "image/jpeg"
    if media_type not in _FORMATS:
        raise NotAcceptable
    return media_type


def _asked(request: Request) -> tuple[str, str, bool]:
    """The frames' type and transfer syntax, and whether a single one is asked for without a multipart around it."""
    for media_type, parameters in accepted(request):
        inner = parameters.get("type", _BYTES).lower()
        if inner == "*/*" or media_type == "*/*":
            inner = _BYTES
        default = _JPEG_2000_LOSSLESS if inner == _JPEG_2000 else EXPLICIT_LITTLE_ENDIAN
        syntax = parameters.get("transfer-syntax", default)
        if syntax != "*" and not is_valid_uid(syntax):
            raise BadRequest("The specified Transfer Syntax value is not valid.")
        if media_type in ("multipart/related", "*/*") and inner in (_BYTES, _JPEG_2000):
            return inner, syntax, False
        if media_type == _BYTES and syntax == "*":
            return _BYTES, syntax, True
    raise NotAcceptable


def _way(pixels: Pixels, media_type: str, syntax: str) -> tuple[str, Callable[[Pixels, int], bytes]]:
    """The transfer syntax of the answer, and what gives a frame in it."""
    if media_type == _BYTES and syntax == "*":
        return pixels.syntax, stored_frame
    if media_type == _BYTES and syntax == EXPLICIT_LITTLE_ENDIAN:
        return syntax, decoded_frame
    if media_type == _JPEG_2000 and syntax == pixels.syntax == _JPEG_2000_LOSSLESS:
        return syntax, stored_frame
    raise NotAcceptable(_NO_TRANSCODING)
