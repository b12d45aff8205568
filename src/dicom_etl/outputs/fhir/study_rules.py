"""Rows of the mapping: what an ImagingStudy says of the examination."""

from __future__ import annotations

from datetime import date
from typing import Final

from dicom_etl.outputs.fhir.codes import DCM, coding, concept
from dicom_etl.outputs.fhir.facts import Json, StudyFacts
from dicom_etl.outputs.fhir.modality import modality
from dicom_etl.outputs.fhir.names import shown_name
from dicom_etl.outputs.fhir.reasons import LeftOut
from dicom_etl.outputs.fhir.rule import Context, Example, Rule, latest
from dicom_etl.outputs.fhir.times import date_time
from dicom_etl.outputs.fhir.values import text

_PROCEDURE: Final = "ProcedureCodeSequence[0]"


def _modalities(study: StudyFacts, context: Context) -> list[Json]:
    strict, counted = context.options.strict_modality, LeftOut()  # counted where the series is written
    found = {modality(one.values.get("Modality"), counted, strict=strict)["code"] for one in study.series}
    return [coding(DCM, code) for code in sorted(found)]


def _started(study: StudyFacts, context: Context) -> str | None:
    offset = latest(study.series, "TimezoneOffsetFromUTC")
    day, time = study.values.get("StudyDate"), study.values.get("StudyTime")
    return date_time(day, time, offset, context.options.zone, context.left_out)


def _referrer(study: StudyFacts, context: Context) -> Json | None:
    name = shown_name(study.values.get("ReferringPhysicianName"), context.left_out)
    return None if name is None else {"display": name}


def _interpreter(study: StudyFacts, context: Context) -> list[Json] | None:
    name = shown_name(study.values.get("NameOfPhysiciansReadingStudy"), context.left_out)
    return None if name is None else [{"display": name}]


def _number_of_series(study: StudyFacts, _: Context) -> int:
    return len(study.series)


def _number_of_instances(study: StudyFacts, _: Context) -> int:
    return sum(len(one.instances) for one in study.series)


def _procedure(study: StudyFacts, context: Context) -> list[Json] | None:
    parts = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
    value, designator, meaning = (study.values.get(f"{_PROCEDURE}.{part}") for part in parts)
    found = concept(value, designator, meaning, context.left_out)
    return None if found is None else [found]


def _description(study: StudyFacts, context: Context) -> str | None:
    return text(study.values.get("StudyDescription"), context.left_out)


RULES: Final = (
    Rule(
        resource="ImagingStudy", path="modality", cardinality="0..*", tags=("Modality",),
        writes="the codes of the living series, each once, sorted. R4's text names those of CID 29 alone, R5 all, as "
        "ModalitiesInStudy (0008,0061) has them",
        source="PS3.3 C.7.3.1; R4 ImagingStudy.modality",
        r5="CodeableConcept",
        example=Example({"Modality": "CT"}, [
            {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"},
        ]),
        make=_modalities,
    ),
    Rule(
        resource="ImagingStudy", path="started", cardinality="0..1",
        tags=("StudyDate", "StudyTime", "TimezoneOffsetFromUTC"),
        writes="date and time with the header's offset, or that of `fhir.timezone`; else the date",
        source="PS3.3 C.7.2.1, C.12.1; R4 ImagingStudy.started, dateTime",
        example=Example(
            {"StudyDate": date(2026, 3, 29), "StudyTime": "10:15:30.5", "TimezoneOffsetFromUTC": "+0200"},
            "2026-03-29T10:15:30.5+02:00",
        ),
        make=_started,
    ),
    Rule(
        resource="ImagingStudy", path="referrer", cardinality="0..1", tags=("ReferringPhysicianName",),
        writes="the name as display: no Practitioner is made, the record system has them",
        source="PS3.3 C.7.2.1; R4 ImagingStudy.referrer",
        example=Example({"ReferringPhysicianName": "Meier^Anna^^Dr."}, {"display": "Dr. Anna Meier"}),
        make=_referrer,
    ),
    Rule(
        resource="ImagingStudy", path="interpreter", cardinality="0..*", tags=("NameOfPhysiciansReadingStudy",),
        writes="the first name as display",
        source="PS3.3 C.7.2.1; R4 ImagingStudy.interpreter",
        r5="removed",
        example=Example({"NameOfPhysiciansReadingStudy": "Roe^Richard"}, [{"display": "Richard Roe"}]),
        make=_interpreter,
    ),
    Rule(
        resource="ImagingStudy", path="numberOfSeries", cardinality="0..1",
        writes="the living series, never the header's (0020,1206)",
        source="R4 ImagingStudy.numberOfSeries",
        example=Example({}, 1),
        make=_number_of_series,
    ),
    Rule(
        resource="ImagingStudy", path="numberOfInstances", cardinality="0..1",
        writes="the living instances, never the header's (0020,1208)",
        source="R4 ImagingStudy.numberOfInstances",
        example=Example({}, 1),
        make=_number_of_instances,
    ),
    Rule(
        resource="ImagingStudy", path="procedureCode", cardinality="0..*",
        tags=(f"{_PROCEDURE}.CodeValue", f"{_PROCEDURE}.CodingSchemeDesignator", f"{_PROCEDURE}.CodeMeaning"),
        writes="the first item: code and system where the scheme has a URI, and the meaning as text",
        source="PS3.3 C.7.2.1, 8.8; PS3.16 Table 8-1; R4 ImagingStudy.procedureCode",
        r5="procedure, a CodeableReference",
        example=Example(
            {f"{_PROCEDURE}.CodeValue": "24627-2", f"{_PROCEDURE}.CodingSchemeDesignator": "LN",
             f"{_PROCEDURE}.CodeMeaning": "CT Chest"},
            [{"coding": [{"system": "http://loinc.org", "code": "24627-2", "display": "CT Chest"}],
              "text": "CT Chest"}],
        ),
        make=_procedure,
    ),
    Rule(
        resource="ImagingStudy", path="location", cardinality="0..1",
        tags=("InstitutionalDepartmentName", "PerformedStationName"),
        writes="left out: a name is no Location of the record system",
        source="PS3.3 C.7.5.1, C.4.14; R4 ImagingStudy.location",
    ),
    Rule(
        resource="ImagingStudy", path="reasonCode", cardinality="0..*",
        tags=("ReasonForTheRequestedProcedure", "ReasonForRequestedProcedureCodeSequence"),
        writes="left out: no column has it, and free text may identify",
        source="PS3.3 C.4.11; R4 ImagingStudy.reasonCode",
        r5="reason, a CodeableReference",
    ),
    Rule(
        resource="ImagingStudy", path="note", cardinality="0..*",
        writes="left out: DICOM has no such text; the description has an element of its own",
        source="R4 ImagingStudy.note",
    ),
    Rule(
        resource="ImagingStudy", path="description", cardinality="0..1", tags=("StudyDescription",),
        writes="the text",
        source="PS3.3 C.7.2.1; R4 ImagingStudy.description",
        example=Example({"StudyDescription": "CT Thorax"}, "CT Thorax"),
        make=_description,
    ),
)  # fmt: skip
