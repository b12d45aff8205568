"""The FHIR server as a client sees it: what is tried again, what each status means, and where the token goes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from dicom_emulator.fhir.faults import EntryFault
from dicom_emulator.fhir.serve import FhirEmulator
from dicom_emulator.testing.faults import Fault
from dicom_etl.core.errors import (
    AccessDenied,
    ConfigurationError,
    DicomEtlError,
    ProtocolError,
    ServiceUnavailable,
)
from dicom_etl.outputs.fhir import server as server_module
from dicom_etl.outputs.fhir.bundle import Entry
from dicom_etl.outputs.fhir.links import path_below
from dicom_etl.outputs.fhir.responses import BundleRefused
from dicom_etl.outputs.fhir.server import FhirServer
from dicom_etl.remote import identity
from support.fhir_double import CANARY, TOKEN, Clock, deletion, fhir_double, fhir_settings, put, put_all, study

PARAMETERS = {"resourceType": "Parameters", "parameter": [{"name": "inputFormat"}]}


@pytest.fixture(autouse=True)
def _nothing_is_quoted(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No log has the name that the server quotes, nor the token."""
    caplog.set_level(logging.DEBUG)
    yield
    assert CANARY not in caplog.text
    assert TOKEN not in caplog.text


@pytest.fixture
def double() -> Iterator[FhirEmulator]:
    with fhir_double(tokens={TOKEN: "owner"}) as running:
        yield running


def server_of(double: FhirEmulator, *more: str, clock: Clock | None = None, base_url: str = "") -> FhirServer:
    clock = clock or Clock()
    settings = fhir_settings(base_url or double.base_url, *more)
    return FhirServer(settings, lambda _renew: TOKEN, sleep=clock.sleep, monotonic=clock.monotonic)


def scripted(answer: Callable[[httpx.Request], httpx.Response], *more: str) -> FhirServer:
    clock = Clock()
    return FhirServer(
        fhir_settings("https://fhir.example/base/", *more),
        lambda _renew: TOKEN,
        sleep=clock.sleep,
        monotonic=clock.monotonic,
        transport=httpx.MockTransport(answer),
    )


def refused(kind: type[DicomEtlError], call: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    assert CANARY not in str(caught.value)
    assert TOKEN not in str(caught.value)
    return str(caught.value)


# --- batches


def test_a_batch_tells_what_became_of_each_entry(double: FhirEmulator) -> None:
    """Created, refused with its code, deleted though it never was, and read."""
    put_all(double, study("d"))
    entries = [
        put(study("a")), put(study("b", status="fine")), deletion("ImagingStudy", "c"),
        Entry("GET", "ImagingStudy", "d"),
    ]  # fmt: skip
    with server_of(double) as server:
        answered = server.batch(entries)
    assert [(one.status, one.issue) for one in answered] == [
        (201, None),
        (422, "code-invalid"),
        (204, None),
        (200, None),
    ]
    assert answered[0].etag == 'W/"1"'
    assert [one.body and one.body["id"] for one in answered] == [None, None, None, "d"]
    assert set(double.service.resources("ImagingStudy")) == {"a", "d"}


def test_a_batch_is_posted_to_the_base_as_fhir_json() -> None:
    """With our token, no answer of what was put, Azure's parallel processing, and the bodies as they are."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        body = {"resourceType": "Bundle", "type": "batch-response", "entry": [{"response": {"status": "200"}}]}
        return httpx.Response(200, json=body)

    with scripted(answer) as server:
        assert server.batch([Entry("PUT", "ImagingStudy", "a", b'{"id" : "a"}')])[0].status == 200
    (request,) = seen
    assert (request.method, str(request.url)) == ("POST", "https://fhir.example/base")
    assert b'{"id" : "a"}' in request.content
    wanted = ["content-type", "accept", "prefer", "x-bundle-processing-logic", "authorization"]
    assert [request.headers[name] for name in wanted] == [
        "application/fhir+json", "application/fhir+json", "return=minimal", "parallel", f"Bearer {TOKEN}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "fault",
    [
        Fault(503, times=2),
        Fault(500, times=2),
        Fault(408, times=2),
        Fault(429, times=2),
        Fault(cut_body=40, times=2),
        Fault(truncate=40, times=2),
        Fault(reset=True, times=2),
        Fault(200, body="<html>Sign in</html>", content_type="text/html", times=2),
        Fault(200, body="{}", content_type="text/plain", times=2),
        Fault(rewrite=lambda _body: b"<html>", times=2),
    ],
    ids=lambda fault: f"{fault.status}-{fault.content_type}" if not fault.damages else "damaged",
)
def test_what_passes_is_tried_again(double: FhirEmulator, fault: Fault) -> None:
    """A busy server, a body that is cut, another's page: three requests, and the resource is there once."""
    switched = double.service.faults.add(fault)
    with server_of(double) as server:
        assert [one.status for one in server.batch([put(study("a"))])] in ([200], [201])
        assert (switched.hits, server.client.requests, server.client.retries) == (2, 3, 2)
    assert double.service.store.version("ImagingStudy", "a") == 1


def test_an_answer_that_takes_too_long_is_tried_again(double: FhirEmulator) -> None:
    """A timeout of the connection counts as a failure of the server."""

    class Slow(httpx.BaseTransport):
        calls = 0

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            self.calls += 1
            if self.calls == 1:
                raise httpx.ReadTimeout(CANARY)
            with httpx.HTTPTransport() as real:
                answer = real.handle_request(request)
                answer.read()
                return answer

    clock, slow = Clock(), Slow()
    with FhirServer(
        fhir_settings(double.base_url), lambda _renew: TOKEN, sleep=clock.sleep, monotonic=clock.monotonic,
        transport=slow,
    ) as server:  # fmt: skip
        assert [one.status for one in server.batch([put(study("a"))])] == [201]
    assert slow.calls == 2


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_waited_for(double: FhirEmulator, as_date: bool) -> None:
    """In seconds, and as a date of the server's own clock."""
    double.service.clock.freeze("2026-03-01T12:00:00Z")
    double.service.faults.add(Fault(429, retry_after=17, retry_after_as_date=as_date, times=1))
    clock = Clock()
    with server_of(double, clock=clock) as server:
        assert server.batch([put(study("a"))])[0].status == 201
    assert 17 <= sum(clock.sleeps) < 20
    assert [one.status for one in double.service.requests] == [429, 200]


def test_entries_that_are_throttled_close_the_way_for_all(double: FhirEmulator) -> None:
    """Azure says 429 of an entry, and when to come back in the whole answer's header: no request goes out before."""
    double.service.entry_faults.append(EntryFault(429, "throttled", times=1, retry_after=17))
    clock = Clock()
    with server_of(double, clock=clock) as server:
        (answered,) = server.batch([put(study("a"))])
        assert (answered.status, answered.issue, answered.retry_after) == (429, "throttled", 17.0)
        assert clock.sleeps == []
        assert server.read("ImagingStudy", "a") is None
    assert sum(clock.sleeps) == 17


def test_a_server_that_stays_down_is_given_up(double: FhirEmulator) -> None:
    """75 within the bounds of fhir.retry_seconds, with the status and what to do."""
    with server_of(double, "fhir.retry_seconds=60") as server:
        server.get("/metadata")
        double.service.faults.add(Fault(503, body=CANARY))
        message = refused(ServiceUnavailable, lambda: server.batch([put(study("a"))]))
        assert "the FHIR server at 127.0.0.1" in message
        assert "status 503" in message
        assert 3 < server.client.requests <= 20


def test_a_wait_beyond_the_bounds_names_the_setting(double: FhirEmulator) -> None:
    """The server asks for more seconds than fhir.retry_seconds."""
    double.service.faults.add(Fault(429, retry_after=9000))
    with server_of(double) as server:
        message = refused(ServiceUnavailable, lambda: server.batch([put(study("a"))]))
    assert message.endswith("it asks to wait 9000 s; run again later or raise fhir.retry_seconds")


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (401, AccessDenied, "FHIR Data Contributor on the FHIR service"),
        (403, AccessDenied, "FHIR Data Contributor on the FHIR service"),
        (302, ConfigurationError, "fhir.base_url: 127.0.0.1"),
        (404, ConfigurationError, "there is no FHIR server at this address"),
        (405, ConfigurationError, "takes no batch bundles"),
        (415, ProtocolError, "answered status 415, invalid to a POST request"),
        (400, BundleRefused, "status 400, invalid"),
        (413, BundleRefused, "status 413, invalid"),
        (422, BundleRefused, "status 422, invalid"),
    ],
)
def test_each_status_says_what_to_do(double: FhirEmulator, status: int, kind: type[DicomEtlError], said: str) -> None:
    """In words of ours: an OperationOutcome gives its code and nothing else."""
    issue = {"severity": "error", "code": "invalid", "diagnostics": CANARY, "details": {"text": CANARY}}
    body = json.dumps({"resourceType": "OperationOutcome", "issue": [issue]})
    double.service.faults.add(Fault(status, body=body, headers={"location": "http://127.0.0.1:1/"}))
    with server_of(double) as server:
        assert said in refused(kind, lambda: server.batch([put(study("a"))]))


def test_a_token_that_has_ended_is_renewed_once() -> None:
    """The second token is taken; the first was refused with 401."""
    with fhir_double(tokens={"new": "owner"}) as double:
        settings = fhir_settings(double.base_url)
        with FhirServer(settings, lambda renew: "new" if renew else "old") as server:
            assert server.batch([put(study("a"))])[0].status == 201
        assert [one.status for one in double.service.requests] == [401, 200]


def test_without_an_address_nothing_begins() -> None:
    """One line, which names the setting."""
    message = refused(ConfigurationError, lambda: FhirServer(fhir_settings("")))
    assert message.startswith("fhir.base_url: is not set")


# --- reads and searches


def test_a_resource_is_read_by_its_id(double: FhirEmulator) -> None:
    """None for what never was there, and for what is deleted."""
    put_all(double, study("a"), study("b"))
    double.service.store.delete("ImagingStudy", "b", None)
    with server_of(double) as server:
        read = [server.read("ImagingStudy", one) for one in "abc"]
    assert [one and one["id"] for one in read] == ["a", None, None]
    assert [one.status for one in double.service.requests] == [200, 410, 404]


def test_a_search_reads_all_its_pages(double: FhirEmulator) -> None:
    """Each resource once, by the links; a value with reserved characters arrives as it is."""
    tag = {"meta": {"tag": [{"system": "urn:a+b&c", "code": "x y"}]}}
    put_all(double, *[study(f"s{number}", **tag) for number in range(7)], study("other"))
    with server_of(double) as server:
        found = list(server.search("ImagingStudy", [("_tag", "urn:a+b&c|x y"), ("_count", "3")]))
    assert [one["id"] for one in found] == [f"s{number}" for number in range(7)]
    assert [one.path for one in double.service.requests] == ["ImagingStudy"] * 3


def test_only_what_matches_is_found() -> None:
    """Included resources, outcomes and other kinds in a searchset are none of it."""
    entries = [
        {"resource": study("a"), "search": {"mode": "match"}}, {"resource": study("b")},
        {"resource": study("c"), "search": {"mode": "include"}},
        {"resource": {"resourceType": "OperationOutcome", "issue": []}, "search": {"mode": "outcome"}}, {}, 7,
    ]  # fmt: skip
    bundle = {"resourceType": "Bundle", "type": "searchset", "entry": entries}
    with scripted(lambda _request: httpx.Response(200, json=bundle)) as server:
        assert [one["id"] for one in server.search("ImagingStudy", [])] == ["a", "b"]


@pytest.mark.parametrize("body", [[], {"resourceType": "OperationOutcome"}, "text"])
def test_a_search_that_is_no_bundle_is_an_error(body: object) -> None:
    """JSON, but not what was asked for."""
    with scripted(lambda _request: httpx.Response(200, json=body)) as server:
        refused(ProtocolError, lambda: list(server.search("ImagingStudy", [])))


def test_a_search_without_an_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that names itself as the next one."""
    monkeypatch.setattr(server_module, "_MOST_PAGES", 3)
    calls: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        calls.append(str(request.url))
        link = [{"relation": "next", "url": "https://fhir.example/base?page=1"}]
        return httpx.Response(200, json={"resourceType": "Bundle", "link": link})

    with scripted(answer) as server:
        assert "no end" in refused(ProtocolError, lambda: list(server.search("ImagingStudy", [("_count", "1")])))
    assert calls == ["https://fhir.example/base/ImagingStudy?_count=1", *["https://fhir.example/base?page=1"] * 2]


# --- where the token goes


def test_a_link_that_leads_elsewhere_is_not_followed() -> None:
    """Neither a page's nor an operation's: the other server hears nothing, and one line says what to set."""
    with fhir_double() as other, fhir_double(tokens={TOKEN: "owner"}, linked_base=other.base_url) as double:
        put_all(double, study("a"), study("b"))
        with server_of(double) as server:
            searched = refused(ConfigurationError, lambda: list(server.search("ImagingStudy", [("_count", "1")])))
            begun = refused(ConfigurationError, lambda: server.start_async("/$import", PARAMETERS))
        assert searched == begun
        assert searched.startswith("fhir.base_url: the FHIR server's links lead to another address")
        assert [one.status for one in double.service.requests] == [200, 202]
        assert other.service.requests == []


BASE = "https://fhir.example/base"


@pytest.mark.parametrize(
    ("link", "path"),
    [
        ("https://fhir.example/base/Patient?ct=a%2Bb%3D", "/Patient?ct=a%2Bb%3D"),
        ("https://FHIR.example:443/base/Patient", "/Patient"),
        ("https://fhir.example/base?_getpages=1&_getpagesoffset=20", "?_getpages=1&_getpagesoffset=20"),
        ("Patient?ct=1", "/Patient?ct=1"),
        ("/base/_operations/import/4", "/_operations/import/4"),
    ],
)
def test_links_below_the_base_are_followed(link: str, path: str) -> None:
    """Absolute as Azure and HAPI write them, relative as the standard allows; escaped characters stay."""
    assert path_below(BASE, link) == path
    assert path_below(f"{BASE}/", link) == path


@pytest.mark.parametrize(
    "link",
    [
        "http://fhir.example/base/Patient", "https://fhir.example:8443/base/Patient",
        "https://other.example/base/Patient", "https://fhir.example.evil.org/base/Patient",
        "https://fhir.example@evil.org/base/Patient", "https://evil.org\\@fhir.example/base/Patient",
        "https://user@fhir.example/base/Patient", "//evil.org/base/Patient", "https://fhir.example/other/Patient",
        "https://fhir.example/based/Patient", "https://fhir.example/base/../other",
        "https://fhir.example/base/%2e%2E/other", "../other/Patient",
        "https://fhir.example/base/Patient\nHost: evil.org", "https://fhir.example:x/base", "https://[::1/base",
        "ftp://fhir.example/base", "javascript:alert(1)",
    ],
)  # fmt: skip
def test_links_that_leave_the_base_are_refused(link: str) -> None:
    """Another scheme, port, host or path, however it is written; the link itself is not repeated."""
    message = refused(ConfigurationError, lambda: path_below(BASE, link))
    assert "evil" not in message
    assert path_below("https://fhir.example", "https://fhir.example/Patient") == "/Patient"


def test_an_operation_is_begun_and_polled() -> None:
    """The path to ask at, 202 with the seconds to wait, and 200 with its answer."""
    with fhir_double(tokens={TOKEN: "owner"}, operation_polls=1) as double, server_of(double) as server:
        path = server.start_async("/$import", PARAMETERS)
        assert path == "/_operations/import/1"
        running, done, unknown = server.poll(path), server.poll(path), server.poll("/_operations/import/9")
    assert (running.status, running.retry_after, running.body) == (202, 1.0, None)
    assert (done.status, done.body and done.body["output"]) == (200, [])
    assert (unknown.status, unknown.body) == (404, None)


def test_an_operation_needs_a_role_of_its_own(double: FhirEmulator) -> None:
    """403 of $import names the role that it needs."""
    double.service.faults.add(Fault(403))
    with server_of(double) as server:
        message = refused(AccessDenied, lambda: server.start_async("/$import", PARAMETERS))
    assert "assign the role FHIR Data Importer on the FHIR service" in message


def test_an_operation_that_does_not_say_where_is_an_error() -> None:
    """202 without Content-Location."""
    with scripted(lambda _request: httpx.Response(202)) as server:
        refused(ProtocolError, lambda: server.start_async("/$import", PARAMETERS))


def test_the_token_comes_from_the_variable_or_from_azure_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """By fhir.auth: none, the variable of fhir.token_env, or azure-identity with the scope of that very service."""
    address = "https://WS-name.fhir.azurehealthcareapis.com:443/"
    assert identity.fhir_tokens(fhir_settings(address)) is None
    by_variable: Any = identity.fhir_tokens(
        fhir_settings(address, "fhir.auth=token"), {"DICOM_ETL_FHIR_TOKEN": " t \n"}
    )
    assert by_variable(False) == "t"
    with pytest.raises(ConfigurationError, match=r"the variable that fhir\.token_env names is not set"):
        identity.fhir_tokens(fhir_settings(address, "fhir.auth=token"), {"DICOM_ETL_TOKEN": "the DICOM service's"})

    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(
        identity, "azure_tokens", lambda scope, name: asked.append((scope, name)) or (lambda _renew: "a")
    )
    by_azure: Any = identity.fhir_tokens(fhir_settings(address, "fhir.auth=azure"))
    assert by_azure(False) == "a"
    assert asked == [("https://ws-name.fhir.azurehealthcareapis.com/.default", "the FHIR service")]
