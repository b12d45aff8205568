"""The FHIR server of the emulator as tests use it: settings that lead to it, resources, and a name that it quotes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import local
from typing import Any

from dicom_emulator.fhir.options import FhirOptions
from dicom_emulator.fhir.serve import FhirEmulator, serve_fhir
from dicom_etl.core.settings.load import load_settings
from dicom_etl.core.settings.model import Fhir
from dicom_etl.outputs.fhir.bundle import Entry

CANARY = "CANARY^PATIENT"
TOKEN = "token-of-the-tests"
DCM = "http://dicom.nema.org/resources/ontology/DCM"


class Clock:
    """Time that passes only by sleeping, for each thread by itself; ``sleeps`` are those of all."""

    def __init__(self) -> None:
        # A thread that sleeps does not make another's answer late, as no real time passes.
        self._thread = local()
        self.sleeps: list[float] = []

    def sleep(self, seconds: float) -> None:
        self._thread.now = self.monotonic() + seconds
        self.sleeps.append(seconds)

    def monotonic(self) -> float:
        return getattr(self._thread, "now", 1000.0)


@contextmanager
def fhir_double(**options: Any) -> Iterator[FhirEmulator]:
    """A server whose every OperationOutcome quotes ``CANARY``; options as FhirOptions has them."""
    with serve_fhir(FhirOptions(quoting=CANARY, **options)) as running:
        yield running


def fhir_settings(base_url: str, *more: str) -> Fhir:
    """The section [fhir] of settings that lead there; ``more`` as texts of --set."""
    texts = [f"fhir.base_url={base_url}", "fhir.connections=2", *more]
    return load_settings(None, texts, {}, Path("/nonexistent")).fhir


def study(resource_id: str, **more: Any) -> dict[str, Any]:
    """An ImagingStudy that R4 allows; values of None are left out."""
    resource = {
        "resourceType": "ImagingStudy",
        "id": resource_id,
        "status": "available",
        "modality": [{"system": DCM, "code": "CT"}],
        "subject": {"display": "somebody"},
        **more,
    }
    return {name: value for name, value in resource.items() if value is not None}


def patient(resource_id: str, *identifiers: tuple[str | None, str], **more: Any) -> dict[str, Any]:
    """A Patient with these identifiers, each a system or None and a value."""
    listed = [{"value": value} | ({"system": system} if system else {}) for system, value in identifiers]
    return {"resourceType": "Patient", "id": resource_id, "identifier": listed, **more}


def put(resource: dict[str, Any], if_match: str | None = None) -> Entry:
    """The entry that puts a resource."""
    body = json.dumps(resource, separators=(",", ":"), sort_keys=True).encode()
    return Entry("PUT", resource["resourceType"], resource["id"], body, if_match)


def deletion(kind: str, resource_id: str) -> Entry:
    return Entry("DELETE", kind, resource_id)


def put_all(double: FhirEmulator, *resources: dict[str, Any]) -> None:
    """Puts resources into the server without a request, so that no log shows them."""
    for resource in resources:
        double.service.store.put(resource["resourceType"], resource["id"], resource, None)
