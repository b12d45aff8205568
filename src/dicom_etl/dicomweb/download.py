"""Streams what WADO-RS gives, file by file or part by part, into whatever takes it (PS3.18 §10.4).

Nothing of it is held in memory (design/service-protocol.md: WADO-RS, Frames and rendered images).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx

from dicom_etl.dicomweb.multipart import OpenPart, PartReader, media_type
from dicom_etl.dicomweb.resources import instance_route
from dicom_etl.remote.http.client import Cancelled, HttpClient
from dicom_etl.remote.http.request import HttpRequest
from dicom_etl.remote.http.response import HttpResponse
from dicom_etl.remote.http.retry import FailureKind, RetryableError, RetryPolicy

DICOM, BYTES = "application/dicom", "application/octet-stream"
_REFUSALS = (404, 406, 424)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to ask for: the path, the Accept header, the media type of each part, and how many there must be."""

    path: str
    accept: str
    part_type: str
    parts: int = 1


def whole_file(partition: str | None, study: str, series: str, instance: str) -> Wanted:
    """The file of an instance as it is stored."""
    path = instance_route(partition, study, series, instance)
    # Without a transfer syntax the service would transcode to Explicit VR Little Endian.
    return Wanted(path, f"{DICOM}; transfer-syntax=*", DICOM)


def stored_frames(partition: str | None, study: str, series: str, instance: str, numbers: Sequence[int]) -> Wanted:
    """These frames of an instance as they are stored, in this order."""
    path = f"{instance_route(partition, study, series, instance)}/frames/{','.join(map(str, numbers))}"
    return Wanted(path, f'multipart/related; type="{BYTES}"; transfer-syntax=*', BYTES, len(numbers))


def picture(
    partition: str | None, study: str, series: str, instance: str, *, image_type: str, frame: int | None = None
) -> Wanted:
    """A frame of an instance, by default the first, as the service draws it; ``image_type`` such as image/png."""
    of_frame = "" if frame is None else f"/frames/{frame}"
    return Wanted(f"{instance_route(partition, study, series, instance)}{of_frame}/rendered", image_type, image_type)


def download(client: HttpClient, wanted: Wanted, open_part: OpenPart, retry_policy: RetryPolicy) -> int:
    """200 when all parts were given to what ``open_part`` gave; else 404, 406 or 424 without any.

    When an attempt fails in the middle, the next one opens its parts again, from the first. Raises as
    ``HttpClient.send``, and what ``open_part`` and its result raise.
    """
    readers: list[PartReader | None] = []

    def sink(headers: httpx.Headers) -> Callable[[bytes], None]:
        reader, take = _reader(headers.get("content-type", ""), wanted, open_part)
        readers.append(reader)

        def unless_cancelled(data: bytes) -> None:
            if retry_policy.cancelled():
                raise Cancelled
            take(data)

        return unless_cancelled

    def status(response: HttpResponse) -> int:
        reader = readers[-1] if readers and response.status == 200 else None
        if reader is not None and (not reader.ended or reader.parts != wanted.parts):
            raise RetryableError("an answer without all its parts", FailureKind.FAILING)
        return response.status

    request = HttpRequest(
        wanted.path, headers={"Accept": wanted.accept}, expected=frozenset({200, *_REFUSALS}), sink=sink
    )
    return client.send(request, status, retry_policy)


def _reader(
    content_type: str, wanted: Wanted, open_part: OpenPart
) -> tuple[PartReader | None, Callable[[bytes], None]]:
    """What takes the body: a reader of its parts, or the only part itself."""

    def open_checked(number: int, of_part: str) -> Callable[[bytes], None]:
        if number >= wanted.parts or media_type(of_part or wanted.part_type)[0] != wanted.part_type:
            raise RetryableError("an answer of another kind than was asked for", FailureKind.FAILING)
        return open_part(number, of_part)

    kind, parameters = media_type(content_type)
    if kind == "multipart/related" and parameters.get("boundary"):
        reader = PartReader(parameters["boundary"], open_checked)
        return reader, reader.feed
    return None, open_checked(0, content_type or "none/none")
