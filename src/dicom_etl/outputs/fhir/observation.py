"""A FHIR R4 Observation made of a report: what all of them have in common, and what each has beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from dicom_etl.outputs.fhir.content_tree import ContentItem, Document
from dicom_etl.outputs.fhir.facts import Json, MappingOptions, Resource
from dicom_etl.outputs.fhir.ids import resource_id
from dicom_etl.outputs.fhir.reasons import LeftOut

_CATEGORY: Final = {"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "imaging"}


@dataclass(frozen=True, slots=True)
class ReportKey:
    """Whose report it is: partition, and the instance's UIDs."""

    partition: str
    study: str
    series: str
    instance: str


@dataclass(frozen=True, slots=True)
class Report:
    """A report, with the Reference to its patient and the reference to its ImagingStudy."""

    document: Document
    key: ReportKey
    subject: Json
    study_reference: str
    options: MappingOptions


@dataclass(slots=True)
class Parts:
    """What one Observation has of its own; ``identifier`` is a URN, ``members`` are ids of Observations."""

    code: Json
    identifier: str | None = None
    effective: str | None = None
    body_site: Json | None = None
    members: list[str] = field(default_factory=list)
    components: list[Json] = field(default_factory=list)
    left_out: LeftOut = field(default_factory=LeftOut)


def observation_id(report: Report, item: ContentItem) -> str:
    """The id of what the item becomes: of this report alone, and the same whenever it is computed."""
    key, source = report.options.key, report.options.source
    whose = (report.key.partition, report.key.study, report.key.series, report.key.instance)
    return resource_id(key, "Observation", source, *whose, item.path)


def observation(report: Report, item: ContentItem, parts: Parts) -> Resource:
    """The Observation of an item. FHIR has no empty lists or objects: only what there is stands in it (ele-1)."""
    name = observation_id(report, item)
    optional = {
        "identifier": [{"system": "urn:dicom:uid", "value": parts.identifier}] if parts.identifier else [],
        "effectiveDateTime": parts.effective,
        "bodySite": parts.body_site,
        "hasMember": [{"reference": f"Observation/{member}"} for member in parts.members],
        "component": parts.components,
    }
    tag = {"system": "urn:dicom-etl:lake", "code": report.options.lake}
    body: Json = {
        "resourceType": "Observation",
        "id": name,
        "meta": {"source": report.options.source, "tag": [tag]},
        "status": _status(report.document),
        "category": [{"coding": [dict(_CATEGORY)]}],
        "code": parts.code,
        "subject": dict(report.subject),
        "partOf": [{"reference": report.study_reference}],
        **{element: value for element, value in optional.items() if value},
    }
    return Resource("Observation", name, body, counts(parts.left_out))


def counts(left_out: LeftOut) -> Mapping[str, int]:
    """Those reasons that were met."""
    return {str(reason): count for reason, count in sorted(left_out.items()) if count}


def _status(document: Document) -> str:
    """``final`` for a document that is complete and that a person has verified (PS3.3 C.17.2), else preliminary."""
    done = (document.completion, document.verification) == ("COMPLETE", "VERIFIED")
    return "final" if done else "preliminary"
