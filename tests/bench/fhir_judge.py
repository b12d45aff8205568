"""What is wrong in a FHIR server, beside what a DICOM service holds: by FHIR search and by pydicom alone.

Shares no code with what writes the server: neither ours nor DICOMcast's.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from pydicom.dataset import Dataset

from dicom_emulator.state.service import DicomService

Json = dict[str, Any]
DCM = "http://dicom.nema.org/resources/ontology/DCM"
_ZONE = re.compile(r"T.*(Z|[+-]\d\d:\d\d)$")


@dataclass(frozen=True, slots=True)
class Held:
    """A study that the service holds, as its headers tell it; instances as (series, SOP instance UID)."""

    partition: str
    uid: str
    instances: frozenset[tuple[str, str]]
    modalities: frozenset[str]
    patients: frozenset[str]
    has_zone: bool


@dataclass(frozen=True, slots=True)
class Served:
    """What a server has: ImagingStudies, Patients by id, and ids of the studies that its validator refuses."""

    studies: Sequence[Json]
    patients: Mapping[str, Json]
    invalid: frozenset[str]


@dataclass(frozen=True, slots=True)
class Pair:
    """An ImagingStudy and the study that it shows; one of both may be missing."""

    served: Json | None
    held: Held | None
    shares: bool = False  # another study of the same UID has an ImagingStudy


def holdings(service: DicomService) -> list[Held]:
    """The service's living studies, from their headers."""
    headers: dict[tuple[str, str], list[Dataset]] = defaultdict(list)
    for live in service.live_instances():
        header = Dataset.from_json(json.loads(live.metadata))
        headers[live.key.partition, str(header.StudyInstanceUID)].append(header)
    return [
        Held(
            partition,
            uid,
            frozenset((str(one.SeriesInstanceUID), str(one.SOPInstanceUID)) for one in of_study),
            frozenset(one.Modality for one in of_study),
            frozenset(one.PatientID for one in of_study),
            any("TimezoneOffsetFromUTC" in one for one in of_study),
        )
        for (partition, uid), of_study in headers.items()
    ]


def read_server(client: httpx.Client, fhir_url: str) -> Served:
    """All studies and patients by search, and what the server's own validator says of each study."""
    studies = list(_search(client, f"{fhir_url}/ImagingStudy?_count=50"))
    patients = {one["id"]: one for one in _search(client, f"{fhir_url}/Patient?_count=50")}
    refused = [one["id"] for one in studies if _errors(client, fhir_url, one)]
    return Served(studies, patients, frozenset(refused))


def _search(client: httpx.Client, address: str | None) -> Iterator[Json]:
    while address is not None:
        page = client.get(address).raise_for_status().json()
        yield from (entry["resource"] for entry in page.get("entry", []))
        address = next((link["url"] for link in page["link"] if link["relation"] == "next"), None)


def _errors(client: httpx.Client, fhir_url: str, resource: Json) -> bool:
    kind = {"Content-Type": "application/fhir+json"}
    answer = client.post(f"{fhir_url}/{resource['resourceType']}/$validate", content=json.dumps(resource), headers=kind)
    return any(issue["severity"] in ("error", "fatal") for issue in answer.json()["issue"])


def paired(served: Sequence[Json], held: Sequence[Held]) -> list[Pair]:
    """Each ImagingStudy with the study of its UID that shares most instances with it."""
    pairs = []
    for uid in {*map(study_uid, served), *(one.uid for one in held)}:
        resources = [one for one in served if study_uid(one) == uid]
        studies = [one for one in held if one.uid == uid]
        had = bool(resources)
        while resources and studies:
            both = [(resource, study) for resource in resources for study in studies]
            resource, study = max(both, key=lambda both: len(listed(both[0]) & both[1].instances))
            pairs.append(Pair(resource, study))
            resources.remove(resource)
            studies.remove(study)
        pairs += [Pair(resource, None) for resource in resources] + [Pair(None, study, had) for study in studies]
    return pairs


def study_uid(resource: Json) -> str:
    values = [one["value"] for one in resource["identifier"] if one.get("system") == "urn:dicom:uid"]
    return values[0].removeprefix("urn:oid:") if values else ""


def listed(resource: Json) -> frozenset[tuple[str, str]]:
    """The instances that it lists, as (series, SOP instance UID)."""
    return frozenset(
        (series["uid"], one["uid"]) for series in resource.get("series", []) for one in series.get("instance", [])
    )


def modality_is_right(resource: Json, held: Held) -> bool:
    """ImagingStudy.modality has each modality of the study once, with DCM's own address as the system."""
    wanted = {(DCM, code) for code in held.modalities}
    of_series = {_coding(one.get("modality", {})) for one in resource.get("series", [])}
    return {_coding(one) for one in resource.get("modality", [])} == wanted and of_series == wanted


def _coding(coding: Json) -> tuple[str, str]:
    return coding.get("system", ""), coding.get("code", "")


def counts_are_right(resource: Json, held: Held) -> bool:
    """Of the study and of each of its series."""
    by_series: dict[str, int] = defaultdict(int)
    for series, _ in held.instances:
        by_series[series] += 1
    of_study = (resource.get("numberOfSeries"), resource.get("numberOfInstances"))
    of_series = {one["uid"]: one.get("numberOfInstances") for one in resource.get("series", [])}
    return of_study == (len(by_series), len(held.instances)) and of_series == by_series


def patient_is_right(resource: Json, held: Held, patients: Mapping[str, Json]) -> bool:
    """Its subject is, or names, the patient whose number the headers have now."""
    subject = resource["subject"]
    patient = patients.get(subject.get("reference", "").removeprefix("Patient/"), {})
    numbers = {one["value"] for one in [*patient.get("identifier", []), subject.get("identifier") or {"value": ""}]}
    return held.patients <= numbers


def judge(served: Served, held: Sequence[Held], own: Json) -> dict[str, int]:
    """What is wrong, counted; all zero when the server is right. ``own``: a Patient of the hospital as it was."""
    pairs = paired(served.studies, held)
    both = [(pair.served, pair.held) for pair in pairs if pair.served is not None and pair.held is not None]
    gone = [pair.served for pair in pairs if pair.served is not None and pair.held is None]
    after = served.patients.get(own["id"], {})
    return {
        "studies without an ImagingStudy": sum(pair.served is None and not pair.shares for pair in pairs),
        "studies that another partition's ImagingStudy hides": sum(pair.shares for pair in pairs),
        "ImagingStudies of studies that are gone": len(gone),
        "instances listed that are gone": sum(map(len, map(listed, gone)))
        + sum(len(listed(one) - study.instances) for one, study in both),
        "living instances that are not listed": sum(len(pair.held.instances) for pair in pairs if pair.held)
        - sum(len(listed(one) & study.instances) for one, study in both),
        "ImagingStudies whose modality is missing or not DCM's": sum(not modality_is_right(*one) for one in both),
        "ImagingStudies whose counts are missing or wrong": sum(not counts_are_right(*one) for one in both),
        "ImagingStudies of another patient than the headers'": sum(
            not patient_is_right(*one, served.patients) for one in both
        ),
        "ImagingStudies with a time zone that no header tells": sum(
            bool(_ZONE.search(one.get("started", ""))) and not study.has_zone for one, study in both
        ),
        "ImagingStudies that HAPI's validator refuses": len(served.invalid),
        "Patients of the hospital that were overwritten": int(any(after.get(name) != own[name] for name in own)),
    }
