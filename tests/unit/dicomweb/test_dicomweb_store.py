"""Storing, searching and retrieving: what each answer of the service becomes."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest

from dicom_etl.core.errors import AccessDenied, ProtocolError, ServiceUnavailable
from dicom_etl.core.settings.model import Dicom
from dicom_etl.dicomweb.connect import connect
from dicom_etl.dicomweb.retrieve import retrieve_instance
from dicom_etl.dicomweb.search import partitions, search
from dicom_etl.dicomweb.store import StoreResult, store
from dicom_etl.remote.http.client import HttpClient

Handler = Callable[[httpx.Request], httpx.Response]


def client_of(handler: Handler) -> HttpClient:
    dicom = Dicom("http://svc.example", 2, "none", "T", 4, 100.0, 300.0)
    return connect(dicom, sleep=lambda _: None, transport=httpx.MockTransport(handler))


def dataset(status: int, body: object, media_type: str = "application/dicom+json") -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.Response(status, headers={"content-type": media_type}, stream=httpx.ByteStream(content))


def stored(**more: object) -> dict[str, object]:
    item = {"00081155": {"vr": "UI", "Value": ["1.2.3"]}, "00741048": {"vr": "SQ"}, **more}
    return {"00081199": {"vr": "SQ", "Value": [item]}}


def failed(code: int, comment: str | None = None) -> dict[str, object]:
    item: dict[str, object] = {"00081197": {"vr": "US", "Value": [code]}}
    if comment is not None:
        item["00741048"] = {"vr": "SQ", "Value": [{"00000902": {"vr": "LO", "Value": [comment]}}]}
    return {"00081198": {"vr": "SQ", "Value": [item]}}


WARNED = stored(
    **{
        "00081196": {"vr": "US", "Value": [1]},
        "00741048": {
            "vr": "SQ",
            "Value": [{"00000902": {"vr": "LO", "Value": ["DICOM100: (0010,0020) - 'DOE 4711' is too long"]}}],
        },
    }
)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, stored(), StoreResult("stored")),
        (
            202,
            WARNED,
            StoreResult(
                "stored with warnings",
                1,
                "attributes that do not pass validation were left out of the metadata",
                ("0010,0020",),
            ),
        ),
        (409, failed(45070), StoreResult("already there", 45070, "the instance is already there")),
        (409, failed(45071), StoreResult("refused", 45071, "the instance is being stored by another request")),
        (409, failed(272), StoreResult("refused", 272, "the service could not process the file")),
        (
            409,
            failed(43264, "DICOM100: (0020,000d) - bad value 4711"),
            StoreResult("refused", 43264, "the file does not pass the service's validation", ("0020,000D",)),
        ),
        (409, failed(99), StoreResult("refused", 99, "a reason that it does not name")),
        (409, b"", StoreResult("refused", None, "the service stored nothing and gave no reason")),
        (413, b"too large", StoreResult("refused", None, "the file is larger than the service takes")),
        (415, b"", StoreResult("refused", None, "the service does not take this content")),
        (204, b"", StoreResult("refused", None, "the service found no file in the request")),
        (400, b"no", StoreResult("refused", None, "the service does not accept the request; check the partition")),
        (202, {}, StoreResult("refused", None, "a reason that it does not name")),
    ],
)
def test_each_answer_to_a_file_is_an_outcome(status: int, body: object, expected: StoreResult) -> None:
    """Stored, with warnings, already there or refused: with the code and our words, never the service's."""
    requests: list[httpx.Request] = []

    def service(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return dataset(status, body)

    with client_of(service) as client:
        outcome = store(client, b"DICM")
    assert outcome == expected
    assert outcome.refused == (expected.kind == "refused")
    (request,) = requests
    assert (request.method, request.url.path, request.content) == ("POST", "/v2/studies", b"DICM")
    assert request.headers["content-type"] == "application/dicom"
    assert request.headers["accept"] == "application/dicom+json"


def test_a_busy_service_is_asked_again_with_the_whole_file() -> None:
    """503 does not lose the file, and a garbled answer is asked for again too."""
    answers = [httpx.Response(503), dataset(200, b"<html>"), dataset(200, stored())]
    bodies: list[bytes] = []

    def service(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        return answers[len(bodies) - 1]

    with client_of(service) as client:
        assert store(client, b"bytes", partition="clinic a").kind == "stored"
    assert bodies == [b"bytes"] * 3


def test_partitions_are_part_of_the_address() -> None:
    """A partition's name stands in the path, quoted."""
    paths: list[bytes] = []

    def service(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path)
        return dataset(200, stored())

    with client_of(service) as client:
        store(client, b"", partition="a/b")
    assert paths == [b"/v2/partitions/a%2Fb/studies"]


@pytest.mark.parametrize(("status", "error"), [(403, AccessDenied), (424, ServiceUnavailable)])
def test_what_no_file_can_help_is_an_error(status: int, error: type[Exception]) -> None:
    """Missing rights and a broken data lake are no outcome of a file."""
    with client_of(lambda _: httpx.Response(status)) as client, pytest.raises(error):
        store(client, b"")


def test_a_search_goes_on_page_by_page_to_the_end() -> None:
    """Pages by limit and offset until one is short; filters and further attributes are sent along."""
    asked: list[dict[str, str]] = []

    def service(request: httpx.Request) -> httpx.Response:
        query = dict(request.url.params)
        asked.append(query)
        low, many = int(query["offset"]), int(query["limit"])
        found = [{"00080018": {"vr": "UI", "Value": [f"1.{n}"]}} for n in range(7)][low : low + many]
        return dataset(200, found)

    with client_of(service) as client:
        found = list(search(client, "instances", filters={"Modality": "CT"}, include=("00100020", "x"), limit=3))
    assert [match["00080018"]["Value"][0] for match in found] == [f"1.{n}" for n in range(7)]
    assert [(query["offset"], query["limit"]) for query in asked] == [("0", "3"), ("3", "3"), ("6", "3")]
    assert {(query["Modality"], query["includefield"]) for query in asked} == {("CT", "00100020,x")}


def test_a_search_without_matches_is_empty() -> None:
    """204 is no match, at first and after a full page."""
    with client_of(lambda _: httpx.Response(204)) as client:
        assert list(search(client, "studies", partition="p")) == []


def test_a_search_page_longer_than_asked_breaks_the_protocol() -> None:
    """Otherwise a service that ignores limit would be read for ever."""
    with client_of(lambda _: dataset(200, [{}, {}])) as client, pytest.raises(ProtocolError):
        list(search(client, "studies", limit=1))


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (dataset(200, [{"partitionKey": 1, "partitionName": "Microsoft.Default"}], "application/json"), True),
        (httpx.Response(400, text="partitions are off"), None),
    ],
)
def test_partitions_are_listed_where_there_are_some(reply: httpx.Response, expected: bool | None) -> None:
    """Names where the feature is on, None where it is off."""
    with client_of(lambda _: reply) as client:
        assert partitions(client) == (["Microsoft.Default"] if expected else None)


def test_an_instance_is_retrieved_as_stored() -> None:
    """The bytes of the file, without transcoding; None when it is gone."""
    requests: list[httpx.Request] = []

    def service(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        if request.url.path.endswith("/1.4"):
            return httpx.Response(404)
        return dataset(200, b"\x00DICM", "application/dicom")

    with client_of(service) as client:
        assert retrieve_instance(client, "1.1", "1.2", "1.3", partition="p") == b"\x00DICM"
        assert retrieve_instance(client, "1.1", "1.2", "1.4") is None
    assert requests[0].url.path == "/v2/partitions/p/studies/1.1/series/1.2/instances/1.3"
    assert requests[0].headers["accept"] == "application/dicom; transfer-syntax=*"
