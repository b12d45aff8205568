"""Cross-origin requests, as a viewer's page sends them (design/service-protocol.md: CORS)."""

from __future__ import annotations

import pytest

from dicom_emulator.testing.faults import Fault

VIEWER = "http://127.0.0.1:3000"


@pytest.fixture
def service(make_emulator):
    """A service that wants a token and lets one origin's pages read its answers."""
    emulator, api = make_emulator(tokens={"t": "reader"}, cors_origins=[VIEWER])
    return emulator.service, api


def allowed(answer):
    return answer.headers.get("access-control-allow-origin")


def test_a_preflight_needs_no_token(service):
    """The browser asks before it sends the token; the headers that it names are allowed, and the answer is logged."""
    state, api = service
    headers = {"origin": VIEWER, "access-control-request-method": "GET"}
    headers["access-control-request-headers"] = "authorization,accept"
    answer = api.http.options(api.url("/studies"), headers=headers)
    assert (answer.status_code, allowed(answer)) == (200, VIEWER)
    assert answer.headers["access-control-allow-headers"] == "authorization,accept"
    assert {"GET", "POST", "DELETE"} <= set(answer.headers["access-control-allow-methods"].split(", "))
    assert state.requests.count("OPTIONS /v2/studies", 200) == 1


def test_another_origin_is_not_named(service):
    """Neither in a preflight, which is 400, nor in an answer, which a browser then keeps from the page."""
    _, api = service
    other = {"origin": "http://127.0.0.1:3001", "authorization": "Bearer t"}
    preflight = api.http.options(api.url("/studies"), headers=other | {"access-control-request-method": "GET"})
    assert (preflight.status_code, allowed(preflight)) == (400, None)
    answer = api.get("/studies", headers=other | {"accept": "application/dicom+json"})
    assert (answer.status_code, allowed(answer)) == (204, None)


def test_answers_refusals_and_faults_can_be_read_by_the_page(service):
    """The origin stands in each of them, with Vary; without an Origin nothing is said."""
    state, api = service
    accept = {"accept": "application/dicom+json"}
    mine = accept | {"origin": VIEWER}
    found = api.get("/studies", headers=mine | {"authorization": "Bearer t"})
    assert (found.status_code, allowed(found), found.headers["vary"]) == (204, VIEWER, "Origin")
    refused = api.get("/studies", headers=mine)
    assert (refused.status_code, allowed(refused)) == (401, VIEWER)
    state.faults.add(Fault(status=503, times=1))
    failed = api.get("/studies", headers=mine | {"authorization": "Bearer t"})
    assert (failed.status_code, allowed(failed)) == (503, VIEWER)
    assert allowed(api.get("/studies", headers=accept | {"authorization": "Bearer t"})) is None


def test_control_routes_are_not_for_pages(service):
    """A page of the named origin cannot switch faults on."""
    _, api = service
    headers = {"origin": VIEWER, "access-control-request-method": "POST"}
    answer = api.http.options(f"{api.root}/_emulator/faults", headers=headers)
    assert (answer.status_code, allowed(answer)) == (405, None)


def test_by_default_no_origin_is_named(make_emulator):
    """OPTIONS is no method of a route then."""
    _, api = make_emulator()
    headers = {"origin": VIEWER, "access-control-request-method": "GET"}
    answer = api.http.options(api.url("/studies"), headers=headers)
    assert (answer.status_code, allowed(answer)) == (405, None)
