"""Rows of the mapping: what an ImagingStudy says of a series."""

from __future__ import annotations

from datetime import date
from typing import Final

from dicom_etl.outputs.fhir.body_part import body_site
from dicom_etl.outputs.fhir.codes import PARTICIPATION, coding, laterality
from dicom_etl.outputs.fhir.facts import Json, SeriesFacts
from dicom_etl.outputs.fhir.modality import modality
from dicom_etl.outputs.fhir.names import shown_name
from dicom_etl.outputs.fhir.reasons import Reason
from dicom_etl.outputs.fhir.rule import Context, Example, Rule, latest
from dicom_etl.outputs.fhir.times import date_time
from dicom_etl.outputs.fhir.values import id_of_uid, text, unsigned


def _uid(series: SeriesFacts, context: Context) -> str | None:
    return id_of_uid(series.uid, context.left_out)


def _number(series: SeriesFacts, context: Context) -> int | None:
    return unsigned(series.values.get("SeriesNumber"), context.left_out)


def _modality(series: SeriesFacts, context: Context) -> Json:
    return modality(series.values.get("Modality"), context.left_out, strict=context.options.strict_modality)


def _description(series: SeriesFacts, context: Context) -> str | None:
    return text(series.values.get("SeriesDescription"), context.left_out)


def _number_of_instances(series: SeriesFacts, _: Context) -> int:
    return len(series.instances)


def _body_site(series: SeriesFacts, context: Context) -> Json | None:
    term = text(series.values.get("BodyPartExamined"), context.left_out)
    return None if term is None else body_site(term)


def _laterality(series: SeriesFacts, context: Context) -> Json | None:
    side = series.values.get("Laterality")
    if side is None:
        # The sides of single images are one of the series only where they agree: a wrong side does harm.
        sides = {found for one in series.instances if (found := one.get("ImageLaterality")) is not None}
        if len(sides) > 1:
            context.left_out[Reason.LATERALITY_MIXED] += 1
            return None
        side = next(iter(sides), None)
    return None if side is None else laterality(side, context.left_out)


def _started(series: SeriesFacts, context: Context) -> str | None:
    offset = latest((series,), "TimezoneOffsetFromUTC")
    day, time = series.values.get("SeriesDate"), series.values.get("SeriesTime")
    return date_time(day, time, offset, context.options.zone, context.left_out)


def _performer(tag: str, function: str, series: SeriesFacts, context: Context) -> list[Json] | None:
    name = shown_name(series.values.get(tag), context.left_out)
    if name is None:
        return None
    return [{"function": {"coding": [coding(PARTICIPATION, function)]}, "actor": {"display": name}}]


def _physician(series: SeriesFacts, context: Context) -> list[Json] | None:
    return _performer("PerformingPhysicianName", "PRF", series, context)


def _operator(series: SeriesFacts, context: Context) -> list[Json] | None:
    return _performer("OperatorsName", "SPRF", series, context)


def _by(code: str, name: str) -> list[Json]:
    return [{
        "function": {"coding": [
            {"system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType", "code": code},
        ]},
        "actor": {"display": name},
    }]  # fmt: skip


RULES: Final = (
    Rule(
        resource="ImagingStudy", path="series.uid", cardinality="1..1", tags=("SeriesInstanceUID",),
        writes="the UID without padding; a series whose UID is no FHIR id is left out",
        source="PS3.3 C.7.3.1; R4 ImagingStudy.series.uid, id",
        example=Example({"SeriesInstanceUID": "1.2.3.4"}, "1.2.3.4"),
        make=_uid,
    ),
    Rule(
        resource="ImagingStudy", path="series.number", cardinality="0..1", tags=("SeriesNumber",),
        writes="the number from 0 to 2147483647",
        source="PS3.3 C.7.3.1; R4 ImagingStudy.series.number, unsignedInt",
        example=Example({"SeriesNumber": 3}, 3),
        make=_number,
    ),
    Rule(
        resource="ImagingStudy", path="series.modality", cardinality="1..1", tags=("Modality",),
        writes="the code; `OT` when there is none, or none that is legal; with `fhir.strict_modality` also for what "
        "R4's list of 2019 lacks, which is the display then",
        source="PS3.3 C.7.3.1.1.1, PS3.5 6.2; R4 ImagingStudy.series.modality",
        r5="CodeableConcept",
        example=Example(
            {"Modality": "CT"}, {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"}
        ),
        make=_modality,
    ),
    Rule(
        resource="ImagingStudy", path="series.description", cardinality="0..1", tags=("SeriesDescription",),
        writes="the text",
        source="PS3.3 C.7.3.1; R4 ImagingStudy.series.description",
        example=Example({"SeriesDescription": "Lung 1.0"}, "Lung 1.0"),
        make=_description,
    ),
    Rule(
        resource="ImagingStudy", path="series.numberOfInstances", cardinality="0..1",
        writes="the living instances, never the header's (0020,1209)",
        source="R4 ImagingStudy.series.numberOfInstances",
        example=Example({}, 1),
        make=_number_of_instances,
    ),
    Rule(
        resource="ImagingStudy", path="series.bodySite", cardinality="0..1", tags=("BodyPartExamined",),
        writes="the SNOMED CT code of the term; an unknown term as display alone",
        source="PS3.3 C.7.3.1; PS3.16 Annex L, CID 4; R4 ImagingStudy.series.bodySite",
        r5="CodeableReference(BodyStructure)",
        example=Example(
            {"BodyPartExamined": "ABDOMEN"},
            {"system": "http://snomed.info/sct", "code": "818981001", "display": "Abdomen"},
        ),
        make=_body_site,
    ),
    Rule(
        resource="ImagingStudy", path="series.laterality", cardinality="0..1", tags=("Laterality", "ImageLaterality"),
        writes="the series' side, else that of its images where they agree",
        source="PS3.3 C.7.3.1, C.7.6.1; PS3.16 CID 244; R4 ImagingStudy.series.laterality",
        r5="CodeableConcept",
        example=Example(
            {"Laterality": "R"}, {"system": "http://snomed.info/sct", "code": "24028007", "display": "Right"}
        ),
        make=_laterality,
    ),
    Rule(
        resource="ImagingStudy", path="series.specimen", cardinality="0..*",
        tags=("ContainerIdentifier", "SpecimenDescriptionSequence"),
        writes="left out: no column has it, and a Specimen is the laboratory's",
        source="PS3.3 C.7.6.22; R4 ImagingStudy.series.specimen",
    ),
    Rule(
        resource="ImagingStudy", path="series.started", cardinality="0..1",
        tags=("SeriesDate", "SeriesTime", "TimezoneOffsetFromUTC"),
        writes="as `started`, with the offset of the series' own instances",
        source="PS3.3 C.7.3.1, C.12.1; R4 ImagingStudy.series.started",
        example=Example(
            {"SeriesDate": date(2026, 3, 29), "SeriesTime": "10:16", "TimezoneOffsetFromUTC": "-0330"},
            "2026-03-29T10:16:00-03:30",
        ),
        make=_started,
    ),
    Rule(
        resource="ImagingStudy", path="series.performer", cardinality="0..*", tags=("PerformingPhysicianName",),
        writes="the first name as display, `PRF`",
        source="PS3.3 C.7.3.1; R4 ImagingStudy.series.performer, v3-ParticipationType",
        example=Example({"PerformingPhysicianName": "Meier^Anna"}, _by("PRF", "Anna Meier")),
        make=_physician,
    ),
    Rule(
        resource="ImagingStudy", path="series.performer", cardinality="0..*", tags=("OperatorsName",),
        writes="the first name as display, `SPRF`: R4's value set has no technician",
        source="PS3.3 C.7.3.1; R4 ImagingStudy.series.performer, v3-ParticipationType",
        example=Example({"OperatorsName": "Doe^Jo"}, _by("SPRF", "Jo Doe")),
        make=_operator,
    ),
)  # fmt: skip
