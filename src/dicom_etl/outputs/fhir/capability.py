"""Whether a server can do what the output needs, by its CapabilityStatement (FHIR R4, capabilitystatement.html)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dicom_etl.core.errors import ConfigurationError
from dicom_etl.outputs.fhir.answers import objects
from dicom_etl.outputs.fhir.facts import Json
from dicom_etl.outputs.fhir.server import FhirServer
from dicom_etl.remote.http.client import KeepsFailing
from dicom_etl.remote.http.response import NOT_JSON
from dicom_etl.remote.http.retry import RetryPolicy

_VERSION = re.compile(r"(\d{1,2}\.\d{1,2})\.\d{1,2}(-[A-Za-z0-9.-]{1,30})?")
# R4 and R4B: equal in the resources that are written.
_WRITTEN = ("4.0", "4.3")
_RELEASES = {"1.0": "DSTU2", "3.0": "STU3", "5.0": "R5", "6.0": "R6"}
_KINDS = ("ImagingStudy", "Endpoint", "Patient")
_NEEDED = ("update", "delete")
# A wrong address is said soon: a page that something else shows there stays one.
_FAILURES = 3


@dataclass(frozen=True, slots=True)
class Capability:
    """What a server says of itself: its version of FHIR, such as 4.0.1, and what the output would miss, one line each.

    A server that does not list what it can do is not said to miss it.
    """

    fhir_version: str
    missing: tuple[str, ...]


def check_capability(server: FhirServer) -> Capability:
    """What the server's /metadata says.

    Raises ConfigurationError when no FHIR server answers there, and when it speaks neither R4 nor R4B.
    """
    statement = _statement(server)
    version = str(statement.get("fhirVersion", ""))
    parts = _VERSION.fullmatch(version)
    if statement.get("resourceType") not in ("CapabilityStatement", "Conformance") or parts is None:
        raise _no_server(server)
    if parts[1] not in _WRITTEN:
        release = _RELEASES.get(parts[1])
        spoken = f"FHIR {release} ({version})" if release else f"FHIR {version}"
        raise ConfigurationError(
            f"fhir.base_url: {server.client.host} speaks {spoken}; dicom-etl writes R4: set fhir.base_url to an R4 "
            "server"
        )
    return Capability(version, tuple(_missing(statement)))


def _statement(server: FhirServer) -> Json:
    try:
        return server.get("/metadata", RetryPolicy(failing_attempts=_FAILURES))
    except KeepsFailing as error:
        if getattr(error.__cause__, "reason", None) == NOT_JSON:
            raise _no_server(server) from error
        return server.get("/metadata")  # an address that is right, of a server that may be back soon


def _no_server(server: FhirServer) -> ConfigurationError:
    return ConfigurationError(
        f"fhir.base_url: no FHIR server answers at this address of {server.client.host}: set the address that "
        "its capability statement (/metadata) lies under"
    )


def _missing(statement: Json) -> Iterator[str]:
    rests = statement.get("rest")
    served = [one for one in objects(rests) if one.get("mode") == "server"]
    if isinstance(rests, list) and not served:
        yield "it does not say that it is a server (rest.mode)"
    for rest in served[:1]:
        # HAPI lists transactions only, and takes both at the same address.
        if _lacks(rest.get("interaction"), "batch") and _lacks(rest.get("interaction"), "transaction"):
            yield "it takes no batch bundles"
        yield from _missing_of_resources(rest.get("resource"))


def _missing_of_resources(resources: Any) -> Iterator[str]:
    if not isinstance(resources, list):
        return
    by_kind = {one.get("type"): one for one in objects(resources)}
    for kind in _KINDS:
        resource = by_kind.get(kind)
        if resource is None:
            yield f"{kind}: it has no such resource"
            continue
        for code in _NEEDED:
            if _lacks(resource.get("interaction"), code):
                yield f"{kind}: it allows no {code}"
        if resource.get("updateCreate") is False:
            yield f"{kind}: it does not let a client choose the id (updateCreate)"


def _lacks(interactions: Any, code: str) -> bool:
    """Whether there is a list, and it lacks the interaction."""
    return isinstance(interactions, list) and code not in [one.get("code") for one in objects(interactions)]
