"""Radiation dose reports as FHIR R4 Observations: one for each irradiation or administration, one for the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from dicom_etl.outputs.fhir.codes import SYSTEMS, concept
from dicom_etl.outputs.fhir.components import components
from dicom_etl.outputs.fhir.content_tree import ContentItem, document
from dicom_etl.outputs.fhir.dicom_datetime import dicom_datetime
from dicom_etl.outputs.fhir.dose_rules import (
    ADMINISTRATION,
    REPORT_START,
    TARGET_REGION,
    TITLES,
    EventRule,
    dcm,
    event_of,
)
from dicom_etl.outputs.fhir.facts import Json, MappingOptions, Resource
from dicom_etl.outputs.fhir.observation import Parts, Report, ReportKey, counts, observation, observation_id
from dicom_etl.outputs.fhir.reasons import LeftOut, Reason
from dicom_etl.outputs.fhir.values import text, urn_of_uid

# X-Ray and Radiopharmaceutical Radiation Dose SR Storage (PS3.4 B.5).
_SOP_CLASSES: Final = frozenset({"1.2.840.10008.5.1.4.1.1.88.67", "1.2.840.10008.5.1.4.1.1.88.68"})
_SUMMARY: Final = {
    "system": SYSTEMS["LN"],
    "code": "73569-6",
    "display": "Radiation exposure and protection information [Description] Document Diagnostic imaging",
}


@dataclass(frozen=True, slots=True)
class DoseResult:
    """A report's resources: the events in the report's order, then the one that refers to them.

    They are to be written in this order, and deleted in the other: a server may check references. ``left_out``
    counts what no resource stands for, beside what each of them counts.
    """

    resources: tuple[Resource, ...]
    left_out: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class _Event:
    item: ContentItem
    rule: EventRule


def is_dose_report(sop_class_uid: str | None) -> bool:
    """Whether the SOP class is one of dose reports."""
    return sop_class_uid in _SOP_CLASSES


def observations(
    header: bytes | str,
    *,
    study: ReportKey,
    subject: Json,
    study_reference: str,
    effective: str | None,
    options: MappingOptions,
) -> DoseResult:
    """The Observations of a dose report (HL7 Radiation Dose Summary 1.0.0; PS3.16 TID 10001, 10011, 10021).

    ``subject`` is a Reference, ``study_reference`` that of the ImagingStudy; ``effective`` a dateTime of the content
    date and time, for what tells no start of its own. Ids are of the report's UID and the content item's path.
    Nothing raises: what cannot be read is left out and counted.
    """
    read = document(header)
    if read is None:
        return DoseResult((), counts(LeftOut({Reason.DOSE_HEADER: 1})))
    if dcm(read.root.name) not in TITLES:
        return DoseResult((), counts(LeftOut({Reason.DOSE_TITLE: 1})))
    report = Report(read, study, subject, study_reference, options)
    events = list(_events(read.root))
    summary = _summary(report, events, effective)
    made = [(event.item, _event(report, event, summary.effective)) for event in events]
    kept = [(item, parts) for item, parts in made if parts.components or parts.identifier]
    summary.members.extend(observation_id(report, item) for item, _ in kept)
    if summary.components or summary.members:
        kept.append((read.root, summary))
    left_out = LeftOut()
    left_out[Reason.DOSE_ITEM] = read.root.skipped
    left_out[Reason.DOSE_EVENT] = len(made) - len(summary.members)
    left_out[Reason.DOSE_REPORT] = int(not kept)
    return DoseResult(tuple(observation(report, item, parts) for item, parts in kept), counts(left_out))


def _events(item: ContentItem) -> Iterator[_Event]:
    """The containers of irradiation and administration below an item, in the order of the report."""
    for child in item.children:
        rule = event_of(child.name)
        if rule and child.value_type in ("CONTAINER", None):
            yield _Event(child, rule)
        yield from _events(child)


def _summary(report: Report, events: Sequence[_Event], effective: str | None) -> Parts:
    """The report's own: totals, and of a single administration what was given."""
    root = report.document.root
    parts = Parts({"coding": [dict(_SUMMARY)]}, urn_of_uid(report.key.instance))
    parts.components += components(root, parts.left_out, "total")
    started = _child(root, REPORT_START)
    administrations = [event for event in events if event.rule.code == ADMINISTRATION]
    if len(administrations) == 1:
        [only] = administrations
        # The administration's own Observation counts what is left out.
        parts.components += components(only.item, LeftOut(), "administration")
        started = started or _child(only.item, only.rule.start)
    parts.effective = _start(report, started, parts) or effective
    return parts


def _event(report: Report, event: _Event, effective: str | None) -> Parts:
    parts = Parts({"coding": event.rule.codings})
    parts.components += components(event.item, parts.left_out, "event", "administration")
    uid = _child(event.item, event.rule.uid)
    if uid and uid.uid:
        parts.identifier = urn_of_uid(uid.uid)
        parts.left_out[Reason.DOSE_UID] += parts.identifier is None
    parts.effective = _start(report, _child(event.item, event.rule.start), parts) or effective
    parts.body_site = _body_site(_child(event.item, TARGET_REGION), parts.left_out)
    return parts


def _body_site(region: ContentItem | None, left_out: LeftOut) -> Json | None:
    """The region irradiated, its side in the text (TID 10003, 10013)."""
    if region is None or region.code is None:
        return None
    found = concept(region.code.value, region.code.scheme, region.code.meaning, left_out)
    return {**found, "text": text(", ".join((found["text"], *region.modifiers)), left_out)} if found else None


def _start(report: Report, item: ContentItem | None, parts: Parts) -> str | None:
    if item is None or item.date_time is None:
        return None
    return dicom_datetime(item.date_time, report.document.utc_offset, report.options.zone, parts.left_out)


def _child(item: ContentItem, code: str) -> ContentItem | None:
    return next((child for child in item.children if dcm(child.name) == code), None)
