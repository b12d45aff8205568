"""The demo's FHIR server, and what the demo asks of it over FHIR's own interface."""

from __future__ import annotations

import json
from typing import Any

import httpx

from dicom_etl.commands.demo.plan import DemoFailed

PATIENTS = "https://demo.example.org/patients"
CORRECTED = "CORRECTED-4711"


def found_study(server: str, study: str) -> dict[str, Any] | None:
    """The ImagingStudy with this Study UID, by a search over the server's own interface; None where there is none."""
    params = {"identifier": f"urn:dicom:uid|urn:oid:{study}"}
    # HAPI answers a search as it did a minute ago, unless it is told not to.
    headers = {"Accept": "application/fhir+json", "Cache-Control": "no-cache"}
    answer = httpx.get(f"{server}/ImagingStudy", params=params, headers=headers, timeout=60)
    entries = answer.raise_for_status().json().get("entry", [])
    if len(entries) > 1:
        raise DemoFailed("the FHIR server has a study twice")
    found: dict[str, Any] | None = entries[0]["resource"] if entries else None
    return found


def print_study(server: str, study: str) -> None:
    """Print one ImagingStudy, its instances left out, and whom it is about."""
    found = found_study(server, study)
    if found is None:
        raise DemoFailed("a study is not in the FHIR server")
    series = [{name: value for name, value in one.items() if name != "instance"} for one in found.pop("series", [])]
    print(json.dumps({**found, "series": [*series[:1], *(["..."] if len(series) > 1 else [])]}, indent=2))
    reference = found["subject"].get("reference")
    if reference is not None:
        patient = httpx.get(f"{server}/{reference}", timeout=60).raise_for_status().json()
        print(f"its subject is the Patient with the number {patient['identifier'][0]['value']}", flush=True)


def correct_number(service: str, study: str) -> None:
    """Correct the PatientID of a study by a bulk update of the DICOM service."""
    change = {"00100020": {"vr": "LO", "Value": [CORRECTED]}}
    body = {"studyInstanceUids": [study], "changeDataset": change}
    httpx.post(f"{service}/v2/studies/$bulkUpdate", json=body).raise_for_status()


def show_gone(server: str, study: str) -> None:
    """Show that the FHIR server has no such study any more."""
    if found_study(server, study) is not None:
        raise DemoFailed("a deleted study is still in the FHIR server")
    print("the deleted study is gone from the FHIR server", flush=True)
