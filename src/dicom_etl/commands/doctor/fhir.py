"""Checks of the FHIR server that the settings name: its version and what it can, and the role to read and to write."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from functools import partial

import httpx
import msgspec

from dicom_etl.commands.doctor.check import CheckResult, run_check
from dicom_etl.core.settings.model import Fhir
from dicom_etl.outputs.fhir.bundle import Entry
from dicom_etl.outputs.fhir.capability import check_capability
from dicom_etl.outputs.fhir.server import FhirServer
from dicom_etl.remote.identity import fhir_tokens

ROLE = "FHIR Data Contributor"
# A doctor asks once; who waits for minutes is the execution.
_TIMEOUT_SECONDS = 15.0
_RETRY_SECONDS = 5.0


def fhir_findings(fhir: Fhir, transport: httpx.BaseTransport | None = None) -> Iterator[CheckResult]:
    """What is to be said of the FHIR server; nothing where the settings name none."""
    if not fhir.base_url:
        return
    quick = msgspec.structs.replace(
        fhir,
        timeout_seconds=min(fhir.timeout_seconds, _TIMEOUT_SECONDS),
        retry_seconds=min(fhir.retry_seconds, _RETRY_SECONDS),
    )
    found = run_check("fhir", partial(_capability, quick, transport))
    yield found
    if found.state == "problem":
        yield CheckResult("fhir role", "warning", "not checked: see fhir")
        return
    yield run_check("fhir role", partial(_role, quick, transport))


def _server(fhir: Fhir, transport: httpx.BaseTransport | None) -> FhirServer:
    return FhirServer(fhir, fhir_tokens(fhir), transport=transport)


def _capability(fhir: Fhir, transport: httpx.BaseTransport | None) -> CheckResult:
    with _server(fhir, transport) as server:
        capability = check_capability(server)
    if capability.missing:
        return CheckResult("fhir", "warning", "; ".join(capability.missing))
    return CheckResult("fhir", "ok", f"FHIR {capability.fhir_version}, takes ids of ours, deletes and batches")


def _role(fhir: Fhir, transport: httpx.BaseTransport | None) -> CheckResult:
    """By the deletion of a resource that nobody has: it changes nothing, and needs the right to write."""
    with _server(fhir, transport) as server:
        (outcome,) = server.batch([Entry("DELETE", "ImagingStudy", f"dicom-etl-doctor-{uuid.uuid4()}", None)])
    if outcome.status in (401, 403):
        return CheckResult("fhir role", "problem", f"may not write; assign the role {ROLE} to this identity", 77)
    return CheckResult("fhir role", "ok", "may write")
