"""DICOMcast's algorithm on a FHIR server: one feed entry, one transaction, each study read and written whole.

What it does is that of microsoft/dicom-server at eeefbe4d (converter/dicom-cast) in plain Python, defects included:
the modality's system is "DCM" and stands in the study only when the header has ModalitiesInStudy; counts are never set;
name and gender of a Patient that exists are overwritten; a time without offset is told as UTC; partitions are not
looked at; an entry Update ends it, each time it starts. Left out: dose Observations, its tables of errors, retries.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx

from bench.dicomcast_resources import (
    add_instance,
    endpoint_of,
    has_value,
    new_study,
    patient_of,
    remove_instance,
    study_identifier,
)

Json = dict[str, Any]
_ENDPOINT = (
    "name=DICOM%20WADO-RS%20endpoint"
    "&connection-type=http://terminology.hl7.org/CodeSystem/endpoint-connection-type|dicom-wado-rs"
)
PATIENT_ID = "00100020"


@dataclass(frozen=True, slots=True)
class FeedEntry:
    """A row of the change feed with the header that it shows, as DICOM JSON; deletions have none."""

    sequence: int
    action: str
    state: str
    partition: str
    study: str
    series: str
    sop: str
    header: Mapping[str, Any] | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> FeedEntry:
        """From JSON of the feed."""
        uids = (row["studyInstanceUid"], row["seriesInstanceUid"], row["sopInstanceUid"])
        partition = row.get("partitionName", "")
        return cls(row["sequence"], row["action"], row["state"], partition, *uids, row.get("metadata"))


@dataclass(slots=True)
class Traffic:
    """Requests, the bytes of their bodies as they went and came, and the seconds of the whole work."""

    requests: int = 0
    sent: int = 0
    received: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class DicomCast:
    """Its state: where in the feed it stands, what it could not do, and its traffic.

    ``refused`` has the sequences of entries that went into its tables of errors, ``wedged_at`` that of the Update on
    which each start of it ends; None while it goes on. ``dicom_url`` is what its Endpoint says, and `meta.source`.
    """

    client: httpx.Client
    fhir_url: str
    dicom_url: str
    patient_system: str
    synced: int = 0
    wedged_at: int | None = None
    refused: list[int] = field(default_factory=list)
    traffic: Traffic = field(default_factory=Traffic)

    def read(self, entries: Iterable[FeedEntry], *, skip_updates: bool = False) -> None:
        """Apply the entries above ``synced`` in the feed's order, and stop at an Update.

        With ``skip_updates`` an operator moves its state past each Update, which it never reads then.
        """
        began = time.monotonic()
        self.wedged_at = None
        for entry in entries:
            if entry.sequence <= self.synced:
                continue
            if entry.action == "Update" and not skip_updates:
                # It asks for Patient and Endpoint first, each time; in its favour, that is not counted.
                self.wedged_at = entry.sequence
                break
            if entry.action != "Update" and not (entry.action == "Create" and entry.state == "Deleted"):
                self._apply(entry)
            self.synced = entry.sequence
        self.traffic.seconds += time.monotonic() - began

    def _apply(self, entry: FeedEntry) -> None:
        if entry.header is not None and not has_value(entry.header, PATIENT_ID):
            self.refused.append(entry.sequence)
            return
        patient = None if entry.header is None else self._patient(entry.header)
        endpoint = self._endpoint()
        study = self._study(entry, patient, endpoint)
        changes = [one for one in (patient, endpoint, study) if one is not None and "request" in one]
        if changes and not self._transaction(changes):
            self.refused.append(entry.sequence)

    def _patient(self, header: Mapping[str, Any]) -> Json:
        """The Bundle entry of the header's Patient; without ``request`` when nothing of it changes."""
        identifier = {"system": self.patient_system, "value": str(header[PATIENT_ID]["Value"][0])}
        query = _by(identifier)
        existing = self._find("Patient", query)
        return _upsert("Patient", existing, patient_of(header, existing, identifier), query)

    def _endpoint(self) -> Json:
        existing = self._find("Endpoint", _ENDPOINT)
        return _upsert("Endpoint", existing, existing or endpoint_of(self.dicom_url), _ENDPOINT)

    def _study(self, entry: FeedEntry, patient: Json | None, endpoint: Json) -> Json | None:
        identifier = study_identifier(entry.study)
        query = _by(identifier)
        existing = self._find("ImagingStudy", query)
        if entry.action == "Delete":
            return self._without(existing, entry)
        if entry.header is None or patient is None:
            return None
        study = existing or new_study(entry.study, patient["fullUrl"], self.dicom_url)
        return _upsert("ImagingStudy", existing, add_instance(study, entry, endpoint["fullUrl"]), query)

    def _without(self, existing: Json | None, entry: FeedEntry) -> Json | None:
        left = None if existing is None else remove_instance(existing, entry.series, entry.sop)
        if existing is None or left is None:
            return None
        if not left.get("series") and existing["meta"].get("source") == self.dicom_url:
            address = f"ImagingStudy/{existing['id']}"
            return {"fullUrl": address, "request": {"method": "DELETE", "url": address}}
        return _upsert("ImagingStudy", existing, left, "")

    def _find(self, kind: str, query: str) -> Json | None:
        """The one resource that a search finds. Raises ValueError of several: DICOMcast ends then, too."""
        answer = self._ask("GET", f"{self.fhir_url}/{kind}", params=httpx.QueryParams(query))
        found = answer.raise_for_status().json().get("entry", [])
        if len(found) > 1:
            raise ValueError(f"{len(found)} of {kind} where there must be one")
        return found[0]["resource"] if found else None

    def _transaction(self, entries: list[Json]) -> bool:
        """Whether the server took it."""
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
        answer = self._ask("POST", self.fhir_url, json=bundle)
        if answer.status_code >= 500:
            answer.raise_for_status()
        return answer.is_success

    def _ask(self, method: str, url: str, **what: Any) -> httpx.Response:
        # .NET's client asks for no compression by itself.
        headers = {"Accept": "application/fhir+json", "Accept-Encoding": "identity"}
        if "json" in what:
            headers["Content-Type"] = "application/fhir+json"
        answer = self.client.request(method, url, headers=headers, **what)
        self.traffic.requests += 1
        self.traffic.sent += len(answer.request.content)
        self.traffic.received += answer.num_bytes_downloaded
        return answer


def _by(identifier: Json) -> str:
    """The search for a resource by an identifier."""
    return "identifier=" + quote(f"{identifier['system']}|{identifier['value']}", safe=":/|")


def _upsert(kind: str, existing: Json | None, wanted: Json, query: str) -> Json:
    """The entry of a transaction: a conditional create, a PUT of what was read, or without ``request`` nothing."""
    if existing is None:
        request = {"method": "POST", "url": kind, "ifNoneExist": query}
        return {"fullUrl": f"urn:uuid:{uuid4()}", "resource": wanted, "request": request}
    address = f"{kind}/{existing['id']}"
    if wanted == existing:
        return {"fullUrl": address}
    match = f'W/"{existing["meta"]["versionId"]}"'
    return {
        "fullUrl": address, "resource": wanted, "request": {"method": "PUT", "url": address, "ifMatch": match},
    }  # fmt: skip
