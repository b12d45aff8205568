"""The CapabilityStatement that GET metadata answers."""

from __future__ import annotations

from typing import Any

_INTERACTIONS = ("read", "update", "delete", "search-type")


def capability_statement(fhir_version: str) -> dict[str, Any]:
    """What a server of that version can do; tests change it to what others say."""
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": "2026-01-01",
        "kind": "instance",
        "software": {"name": "dicom_emulator"},
        "fhirVersion": fhir_version,
        "format": ["application/fhir+json"],
        "rest": [
            {
                "mode": "server",
                "resource": [
                    {
                        "type": kind,
                        "interaction": [{"code": code} for code in _INTERACTIONS],
                        "versioning": "versioned",
                        "updateCreate": True,
                    }
                    for kind in ("Endpoint", "ImagingStudy", "Observation", "Patient")
                ],
                "interaction": [{"code": "batch"}],
            }
        ],
    }
