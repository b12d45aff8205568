"""Shared fixtures: a service to speak HTTP with, DICOM files written byte by byte, and what a test needs of both.

The service is the local emulator, or the one at DICOM_ETL_TEST_SERVICE (with DICOM_ETL_TEST_TOKEN). Tests that
reach into the emulator use the fixtures `emulator` or `make_emulator` and get the marker `control`; against
another service they are skipped.
"""

from __future__ import annotations

import json
import os
import struct
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom.datadict import dictionary_VR

from dicom_emulator.options import EmulatorOptions
from dicom_emulator.serve import Emulator, serve_in_thread

CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"

_HERE = Path(__file__).parent
_EXTERNAL = os.environ.get("DICOM_ETL_TEST_SERVICE")
_LONG_VRS = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}
_CONTROL_FIXTURES = {"emulator", "make_emulator"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents and _CONTROL_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.control)
            if _EXTERNAL:
                item.add_marker(pytest.mark.skip(reason="needs the emulator's clock, faults or own feed"))


@dataclass(frozen=True)
class DicomBytes:
    """A DICOM file and its three UIDs without padding."""

    content: bytes
    study: str
    series: str
    sop: str

    @property
    def path(self) -> str:
        return f"/studies/{self.study}/series/{self.series}/instances/{self.sop}"


def new_uid() -> str:
    """A UID that nobody has used."""
    return f"2.25.{uuid.uuid4().int}"


def encode(elements: dict[str, Any], implicit: bool = False) -> bytes:
    """Little-endian elements, as given: `{"00100010": "Doe"}` with the dictionary's VR, or `(vr, value)`.

    A value is bytes, a text (UTF-8), an int (US), a list of items, or None (empty).
    """
    pieces = []
    for name, given in sorted(elements.items()):
        tag = int(name, 16)
        vr, value = given if isinstance(given, tuple) else (dictionary_VR(tag).split(" ", 1)[0], given)
        content = _value_bytes(vr, value, implicit)
        head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        if implicit:
            head += struct.pack("<L", len(content))
        elif vr in _LONG_VRS:
            head += vr.encode() + b"\0\0" + struct.pack("<L", len(content))
        else:
            head += vr.encode() + struct.pack("<H", len(content))
        pieces.append(head + content)
    return b"".join(pieces)


def _value_bytes(vr: str, value: Any, implicit: bool) -> bytes:
    if isinstance(value, list):
        items = [encode(item, implicit) for item in value]
        return b"".join(struct.pack("<HHL", 0xFFFE, 0xE000, len(item)) + item for item in items)
    if isinstance(value, int):
        return struct.pack("<H", value)
    content = b"" if value is None else value.encode() if isinstance(value, str) else value
    if len(content) % 2:
        content += b"\0" if vr in ("UI", "OB", "UN") else b" "
    return content


def make_file(
    elements: dict[str, Any] | None = None,
    *,
    study: str | None = None,
    series: str | None = None,
    sop: str | None = None,
    syntax: str = EXPLICIT,
    preamble: bytes = bytes(128),
) -> DicomBytes:
    """A PS3.10 file with the required attributes and those given; an `...` value leaves an attribute out."""
    study, series, sop = study or new_uid(), series or new_uid(), sop or new_uid()
    dataset = {
        "00080016": CT,
        "00080018": sop,
        "00080060": "CT",
        "00100010": "Doe^Jane",
        "00100020": "P1",
        "0020000D": study,
        "0020000E": series,
    }
    dataset |= elements or {}
    dataset = {name: value for name, value in dataset.items() if value is not ...}
    meta = encode({"00020001": b"\0\1", "00020002": CT, "00020003": sop, "00020010": syntax})
    head = preamble + b"DICM" + encode({"00020000": ("UL", struct.pack("<L", len(meta)))}) + meta
    content = head + encode(dataset, implicit=syntax == IMPLICIT)
    return DicomBytes(content, study.rstrip(), series.rstrip(), sop.rstrip())


@dataclass
class Api:
    """The service over HTTP; `root` is its address without version. Answers are not checked here."""

    root: str
    http: httpx.Client
    partition: str | None = None

    def url(self, path: str, version: int = 2) -> str:
        partition = "" if self.partition is None else f"/partitions/{self.partition}"
        return f"{self.root}/v{version}{partition}{path}"

    def get(self, path: str, *, version: int = 2, **kwargs: Any) -> httpx.Response:
        return self.http.get(self.url(path, version), **kwargs)

    def delete(self, path: str, **kwargs: Any) -> httpx.Response:
        return self.http.delete(self.url(path), **kwargs)

    def store(self, *files: DicomBytes | bytes, study: str | None = None, version: int = 2) -> httpx.Response:
        """STOW-RS of files as multipart/related."""
        contents = [file if isinstance(file, bytes) else file.content for file in files]
        boundary = uuid.uuid4().hex
        opening = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = b"".join(opening + content + b"\r\n" for content in contents) + f"--{boundary}--\r\n".encode()
        media_type = f'multipart/related; type="application/dicom"; boundary={boundary}'
        return self.post(body, media_type, study=study, version=version)

    def post(
        self,
        body: bytes,
        media_type: str | None,
        *,
        study: str | None = None,
        version: int = 2,
        accept: str | None = "application/dicom+json",
    ) -> httpx.Response:
        """STOW-RS of a body as it is."""
        path = "/studies" if study is None else f"/studies/{study}"
        request = self.http.build_request("POST", self.url(path, version), content=body)
        del request.headers["accept"]
        if accept is not None:
            request.headers["accept"] = accept
        if media_type is not None:
            request.headers["content-type"] = media_type
        return self.http.send(request)

    def feed(self, version: int = 2, **parameters: Any) -> httpx.Response:
        """A page of the feed, at the service's root whatever the partition."""
        return self.http.get(f"{self.root}/v{version}/changefeed", params=parameters)

    def latest(self, version: int = 2, **parameters: Any) -> httpx.Response:
        return self.http.get(f"{self.root}/v{version}/changefeed/latest", params=parameters)

    def rows(self, study: str, **parameters: Any) -> list[dict[str, Any]]:
        """All rows of a study in the order of the feed, read page by page."""
        found: list[dict[str, Any]] = []
        offset = 0
        while page := self.feed(offset=offset, limit=200, **parameters).json():
            found += [row for row in page if row["studyInstanceUid"].strip() == study]
            offset += len(page)
        return found

    def metadata(self, file: DicomBytes, **kwargs: Any) -> dict[str, Any]:
        """The DICOM JSON of one instance."""
        answer = self.get(file.path + "/metadata", headers={"accept": "application/dicom+json"}, **kwargs)
        assert answer.status_code == 200
        (dataset,) = answer.json()
        assert isinstance(dataset, dict)
        return dataset

    def bulk_update(self, studies: list[str], change: dict[str, Any], version: int = 2) -> httpx.Response:
        body = {"studyInstanceUids": studies, "changeDataset": change}
        return self.http.post(self.url("/studies/$bulkUpdate", version), content=json.dumps(body))

    def finished(self, answer: httpx.Response) -> dict[str, Any]:
        """The operation that a 202 names, polled until it is done."""
        assert answer.status_code == 202
        polled = self.http.get(answer.json()["href"])
        while polled.status_code == 202:
            polled = self.http.get(answer.json()["href"])
        assert polled.status_code == 200
        body = polled.json()
        assert isinstance(body, dict)
        return body


@pytest.fixture(scope="session")
def _service() -> Iterator[tuple[str, Emulator | None]]:
    if _EXTERNAL:
        yield _EXTERNAL.rstrip("/"), None
        return
    with serve_in_thread(EmulatorOptions()) as emulator:
        yield emulator.base_url, emulator


@pytest.fixture(scope="session")
def api(_service: tuple[str, Emulator | None]) -> Iterator[Api]:
    """The service that all tests share; use fresh UIDs."""
    token = os.environ.get("DICOM_ETL_TEST_TOKEN")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(headers=headers, timeout=60) as client:
        yield Api(_service[0], client)


@pytest.fixture(scope="session")
def emulator(_service: tuple[str, Emulator | None]) -> Emulator:
    """The emulator behind `api`."""
    assert _service[1] is not None
    return _service[1]


@pytest.fixture
def make_emulator() -> Iterator[Callable[..., tuple[Emulator, Api]]]:
    """Starts emulators of the test's own, with options; they stop with the test."""
    with ExitStack() as stack:

        def make(**options: Any) -> tuple[Emulator, Api]:
            running = stack.enter_context(serve_in_thread(EmulatorOptions(**options)))
            client = stack.enter_context(httpx.Client(timeout=60))
            return running, Api(running.base_url, client)

        yield make


@pytest.fixture(scope="session")
def dicom() -> Callable[..., DicomBytes]:
    """`make_file`: writes a DICOM file."""
    return make_file


@pytest.fixture
def uid() -> Callable[[], str]:
    """`new_uid`: a UID that nobody has used."""
    return new_uid
