"""What a server's capability statement must say, and what is said when it does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dicom_emulator.fhir.serve import FhirEmulator
from dicom_emulator.testing.faults import Fault
from dicom_etl.core.errors import ConfigurationError, DicomEtlError, ServiceUnavailable
from dicom_etl.outputs.fhir.capability import Capability, check_capability
from dicom_etl.outputs.fhir.server import FhirServer
from support.fhir_double import CANARY, Clock, fhir_double, fhir_settings


@pytest.fixture
def double() -> Iterator[FhirEmulator]:
    with fhir_double() as running:
        yield running


def checked(double: FhirEmulator, clock: Clock | None = None) -> Capability:
    clock = clock or Clock()
    with FhirServer(fhir_settings(double.base_url), sleep=clock.sleep, monotonic=clock.monotonic) as server:
        return check_capability(server)


def refused(double: FhirEmulator, kind: type[DicomEtlError] = ConfigurationError, clock: Clock | None = None) -> str:
    with pytest.raises(kind) as caught:
        checked(double, clock)
    assert type(caught.value) is kind
    assert CANARY not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("version", ["4.0.1", "4.0.0", "4.3.0", "4.3.0-snapshot1"])
def test_r4_servers_are_fine(double: FhirEmulator, version: str) -> None:
    """R4 and R4B, with nothing missing, by one request."""
    double.service.capability["fhirVersion"] = version
    assert checked(double) == Capability(version, ())
    assert [(one.method, one.path) for one in double.service.requests] == [("GET", "metadata")]


@pytest.mark.parametrize(
    ("version", "spoken"),
    [("5.0.0", "FHIR R5 (5.0.0)"), ("3.0.2", "FHIR STU3 (3.0.2)"), ("1.0.2", "FHIR DSTU2 (1.0.2)"),
     ("4.1.0", "FHIR 4.1.0")],
)  # fmt: skip
def test_another_release_is_named(version: str, spoken: str) -> None:
    """78, with what the server speaks and what to set."""
    with fhir_double(fhir_version=version) as double:
        message = refused(double)
    assert message.startswith("fhir.base_url: 127.0.0.1:")
    assert message.endswith(f"speaks {spoken}; dicom-etl writes R4: set fhir.base_url to an R4 server")


@pytest.mark.parametrize(
    "statement",
    [
        {"resourceType": "Patient", "id": CANARY},
        {"resourceType": "CapabilityStatement"},
        {"resourceType": "CapabilityStatement", "fhirVersion": CANARY},
        {"resourceType": "CapabilityStatement", "fhirVersion": 4},
        {"status": "ok"},
    ],
)
def test_what_is_no_fhir_server_is_said(double: FhirEmulator, statement: dict[str, Any]) -> None:
    """JSON that is no capability statement: 78 at once."""
    double.service.capability.clear()
    double.service.capability.update(statement)
    assert "no FHIR server answers at this address of 127.0.0.1" in refused(double)
    assert len(double.service.requests) == 1


def test_a_page_is_no_fhir_server(double: FhirEmulator) -> None:
    """HTML with 200, each time: 78 within seconds; once only, it is a proxy's and passes."""
    double.service.faults.add(Fault(200, body=f"<html>{CANARY}</html>", content_type="text/html"))
    clock = Clock()
    assert "no FHIR server answers" in refused(double, clock=clock)
    assert (len(double.service.requests), sum(clock.sleeps) < 2) == (3, True)
    double.service.faults.clear()
    double.service.faults.add(Fault(200, body="<html></html>", content_type="text/html", times=1))
    assert checked(double).fhir_version == "4.0.1"


def test_a_server_that_fails_is_no_wrong_address(double: FhirEmulator) -> None:
    """503 each time is 75; 404 is an address without a server."""
    double.service.faults.add(Fault(503))
    clock = Clock()
    assert "status 503" in refused(double, ServiceUnavailable, clock)
    assert sum(clock.sleeps) > 10
    double.service.faults.clear()
    double.service.faults.add(Fault(404))
    assert "there is no FHIR server at this address" in refused(double)


def rest(double: FhirEmulator) -> dict[str, Any]:
    served: dict[str, Any] = double.service.capability["rest"][0]
    return served


def resource(double: FhirEmulator, kind: str) -> dict[str, Any]:
    return next(one for one in rest(double)["resource"] if one["type"] == kind)


def test_what_is_missing_is_listed(double: FhirEmulator) -> None:
    """Batches, client ids, interactions and kinds, one line each."""
    rest(double)["interaction"] = [{"code": "search-system"}]
    resource(double, "ImagingStudy")["updateCreate"] = False
    resource(double, "Patient")["interaction"] = [{"code": "read"}]
    rest(double)["resource"].remove(resource(double, "Endpoint"))
    assert checked(double).missing == (
        "it takes no batch bundles",
        "ImagingStudy: it does not let a client choose the id (updateCreate)",
        "Endpoint: it has no such resource",
        "Patient: it allows no update",
        "Patient: it allows no delete",
    )


def test_a_client_is_no_server(double: FhirEmulator) -> None:
    """rest.mode client."""
    rest(double)["mode"] = "client"
    assert checked(double).missing == ("it does not say that it is a server (rest.mode)",)


def test_a_server_that_takes_transactions_takes_batches(double: FhirEmulator) -> None:
    """HAPI lists no batch."""
    rest(double)["interaction"] = [{"code": "transaction"}, {"code": "search-system"}]
    assert checked(double).missing == ()


@pytest.mark.parametrize("left_out", ["rest", "interaction", "resource", "interactions of resources", "updateCreate"])
def test_what_is_not_listed_is_not_missing(double: FhirEmulator, left_out: str) -> None:
    """Servers list what they like to; only a list that is there and lacks something says no."""
    if left_out == "rest":
        del double.service.capability["rest"]
    elif left_out in ("interaction", "resource"):
        del rest(double)[left_out]
    else:
        for one in rest(double)["resource"]:
            del one["interaction" if left_out.startswith("interaction") else left_out]
    assert checked(double).missing == ()
