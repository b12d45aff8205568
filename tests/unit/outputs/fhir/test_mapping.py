"""The mapping table, row by row: its examples, and what each row writes of odd values, by literal expectations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydicom.datadict import tag_for_keyword

from dicom_etl.core.attributes import ATTRIBUTES
from dicom_etl.outputs.columns.sets import IMAGING
from dicom_etl.outputs.fhir.facts import MappingOptions
from dicom_etl.outputs.fhir.mapping import RULES
from dicom_etl.outputs.fhir.reasons import LeftOut
from dicom_etl.outputs.fhir.rule import Context, Rule
from support.fhir_facts import ENDPOINT, OPTIONS, SUBJECT, one_instance

WRITTEN = [rule for rule in RULES if rule.make is not None]
LEFT_OUT = [rule for rule in RULES if rule.make is None]
STRICT = replace(OPTIONS, strict_modality=True)
BERLIN = replace(OPTIONS, zone=ZoneInfo("Europe/Berlin"))
DEFAULT_SYSTEM = replace(OPTIONS, default_system="urn:site")
DCM = "http://dicom.nema.org/resources/ontology/DCM"
V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"
MR = {"coding": [{"system": V2_0203, "code": "MR"}]}
ACSN = {"type": {"coding": [{"system": V2_0203, "code": "ACSN"}]}, "value": "A17"}
META = {"source": "https://hospital.example.org", "tag": [{"system": "urn:dicom-etl:lake", "code": "8d3f2c6a"}]}
CODE, SCHEME, MEANING = (
    f"ProcedureCodeSequence[0].{part}" for part in ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
)
DAY = date(2026, 3, 29)
UNKNOWN = {"extension": [{"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}]}


def key(rule: Rule) -> str:
    """What names a row: resource, element, and where several rows write it the first tag."""
    same = [other for other in WRITTEN if (other.resource, other.path) == (rule.resource, rule.path)]
    return f"{rule.resource}.{rule.path}" + (f" {rule.tags[0]}" if len(same) > 1 else "")


def made(rule: Rule, given: Mapping[str, Any], options: MappingOptions = OPTIONS) -> tuple[Any, dict[str, int]]:
    """What a row writes of a study with one instance, and what it counts as left out."""
    study = one_instance({tag: value for tag, value in given.items() if tag != "partitionName"})
    levels: dict[str, Any] = {"": study, "series": study.series[0], "series.instance": study.series[0].instances[0]}
    facts = given.get("partitionName", study.partition) if rule.resource == "Endpoint" else levels[rule.level]
    context = Context(options, LeftOut(), dict(SUBJECT), (ENDPOINT,))
    assert rule.make is not None
    value = rule.make(facts, context)
    return value, {str(reason): count for reason, count in context.left_out.items() if count}


# Row: values by tag, what is written, what is counted, settings.
Case = tuple[dict[str, Any], Any, dict[str, int], MappingOptions]


def case(given: dict[str, Any], value: Any, options: MappingOptions = OPTIONS, **left_out: int) -> Case:
    return given, value, {word.replace("_", "-"): count for word, count in left_out.items()}, options


def named(system: str, code: str, display: str | None = None) -> dict[str, str]:
    return {"system": system, "code": code} | ({"display": display} if display else {})


CASES: dict[str, list[Case]] = {
    "ImagingStudy.id": [
        case({"StudyInstanceUID": "1.2.3"}, "6e2a8a589f1e0f6b14c7ecfd5ae2d626c0ee3dd64857435b0297024ad7445268"),
    ],
    "ImagingStudy.meta": [case({}, META)],
    "ImagingStudy.identifier StudyInstanceUID": [
        case({"StudyInstanceUID": "1.2.3\0"}, [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}]),
        case({"StudyInstanceUID": "1 2\x1f"}, None, uid=1),
    ],
    "ImagingStudy.identifier AccessionNumber": [
        case({}, None),
        case({"AccessionNumber": "A\x0017"}, [ACSN], characters=1),
        case({"AccessionNumber": "\x1b"}, None, characters=1),
    ],
    "ImagingStudy.status": [case({}, "available")],
    "ImagingStudy.subject": [
        case({"PatientID": "P7", "IssuerOfPatientID": "HOSP"}, SUBJECT),
        case({"PatientID": "P7", "IssuerOfPatientID": "OTHER"}, SUBJECT, issuer=1),
        case({"PatientName": "Roe^Jo"}, SUBJECT, no_patient_id=1),
    ],
    "ImagingStudy.basedOn": [
        case({}, None),
        case({"AccessionNumber": "A\x0017"}, [{"type": "ServiceRequest", "identifier": ACSN}]),
    ],
    "ImagingStudy.endpoint": [case({}, [{"reference": "Endpoint/90ab"}])],
    "ImagingStudy.modality": [
        case({}, [named(DCM, "OT")]),
        case({"Modality": "CR\\DX"}, [named(DCM, "OT")]),
        case({"Modality": "ANN"}, [named(DCM, "ANN")]),
        case({"Modality": "ANN"}, [named(DCM, "OT")], STRICT),
    ],
    "ImagingStudy.started": [
        case({}, None),
        case({"StudyDate": DAY}, "2026-03-29"),
        case({"StudyTime": "10:15"}, None, time_without_date=1),
        case({"StudyDate": DAY, "StudyTime": "10:15"}, "2026-03-29", time_without_zone=1),
        case({"StudyDate": DAY, "StudyTime": "10:15"}, "2026-03-29T10:15:00+02:00", BERLIN),
        case({"StudyDate": DAY, "StudyTime": "10"}, "2026-03-29", BERLIN, time_without_minutes=1),
        case(
            {"StudyDate": DAY, "StudyTime": "10:15", "TimezoneOffsetFromUTC": "UTC"},
            "2026-03-29T10:15:00+02:00", BERLIN, offset=1,
        ),
    ],
    "ImagingStudy.referrer": [case({}, None), case({"ReferringPhysicianName": "^^^^"}, None)],
    "ImagingStudy.interpreter": [
        case({}, None),
        case({"NameOfPhysiciansReadingStudy": "Roe^Jo^^^MD^x"}, [{"display": "Jo Roe MD"}], name=1),
    ],
    "ImagingStudy.numberOfSeries": [case({}, 1)],
    "ImagingStudy.numberOfInstances": [case({"NumberOfStudyRelatedInstances": 9}, 1)],
    "ImagingStudy.procedureCode": [
        case({}, None),
        case({MEANING: "CT Chest"}, [{"text": "CT Chest"}]),
        case({CODE: "X1", SCHEME: "99HOSP", MEANING: "CT Chest"}, [{"text": "CT Chest"}], code_without_system=1),
        case({CODE: "X1"}, [{"text": "X1"}], code_without_system=1),
        case(
            {CODE: "P5-09051", SCHEME: "SRT"},
            [{"coding": [named("http://snomed.info/srt", "P5-09051")], "text": "P5-09051"}],
        ),
    ],
    "ImagingStudy.description": [
        case({}, None),
        case({"StudyDescription": "CT\x07 Thorax\n"}, "CT Thorax", characters=1),
        case({"StudyDescription": "\u00a0"}, None),
    ],
    "ImagingStudy.series.uid": [
        case({"SeriesInstanceUID": "1.2.3 "}, "1.2.3"),
        case({"SeriesInstanceUID": "1.2/3"}, None, uid=1),
        case({"SeriesInstanceUID": "1" * 65}, None, uid=1),
    ],
    "ImagingStudy.series.number": [
        case({}, None),
        case({"SeriesNumber": 0}, 0),
        case({"SeriesNumber": 2147483647}, 2147483647),
        case({"SeriesNumber": -1}, None, number=1),
        case({"SeriesNumber": 2147483648}, None, number=1),
    ],
    "ImagingStudy.series.modality": [
        case({}, named(DCM, "OT")),
        case({"Modality": "CR\\DX"}, named(DCM, "OT"), modality=1),
        case({"Modality": "ct"}, named(DCM, "OT"), modality=1),
        case({"Modality": "A" * 17}, named(DCM, "OT"), modality=1),
        case({"Modality": "ANN"}, named(DCM, "ANN")),
        case({"Modality": "ANN"}, named(DCM, "OT", "ANN"), STRICT, modality_not_in_r4=1),
        case({"Modality": "MR"}, named(DCM, "MR"), STRICT),
    ],
    "ImagingStudy.series.description": [case({}, None)],
    "ImagingStudy.series.numberOfInstances": [case({}, 1)],
    "ImagingStudy.series.bodySite": [
        case({}, None),
        case({"BodyPartExamined": "chest abdomen"}, named("http://snomed.info/sct", "416550000", "Chest and Abdomen")),
        case({"BodyPartExamined": "APPENDIX"}, named("http://snomed.info/sct", "66754008")),
        case({"BodyPartExamined": "FETALARM"}, {"display": "FETALARM"}),
    ],
    "ImagingStudy.series.laterality": [
        case({}, None),
        case({"ImageLaterality": "B"}, named("http://snomed.info/sct", "51440002", "Bilateral")),
        case(
            {"Laterality": "L", "ImageLaterality": "R"}, named("http://snomed.info/sct", "7771000", "Left"),
        ),
        case({"ImageLaterality": "U"}, named("http://snomed.info/sct", "66459002", "Unilateral")),
        case({"Laterality": "X"}, None, laterality=1),
    ],
    "ImagingStudy.series.started": [
        case({"SeriesDate": DAY, "SeriesTime": "10:15:60.75"}, "2026-03-29T10:15:59+02:00", BERLIN, leap_second=1),
        case({"SeriesDate": DAY, "SeriesTime": "10:15:00.0"}, "2026-03-29", time_without_zone=1),
    ],
    "ImagingStudy.series.performer PerformingPhysicianName": [case({}, None)],
    "ImagingStudy.series.performer OperatorsName": [case({}, None)],
    "ImagingStudy.series.instance.uid": [case({"SOPInstanceUID": "x_1"}, None, uid=1)],
    "ImagingStudy.series.instance.sopClass": [
        case({}, UNKNOWN, sop_class=1),
        case({"SOPClassUID": "CT Image"}, UNKNOWN, sop_class=1),
    ],
    "ImagingStudy.series.instance.number": [case({}, None), case({"InstanceNumber": -5}, None, number=1)],
    "ImagingStudy.series.instance.title": [
        case({}, None),
        case({"ConceptNameCodeSequence[0].CodeMeaning": "Report", "ContentLabel": "X"}, "Report"),
        case({"DocumentTitle": "Letter", "ConceptNameCodeSequence[0].CodeMeaning": "Report"}, "Letter"),
        case({"DocumentTitle": "\x00", "ContentLabel": "X"}, "X", characters=1),
    ],
    "Patient.id": [
        case({}, None),
        case({"PatientID": "P7"}, "4b203776cbf363117a7180a784339a1a480b7db1e423934f832d721fb27d006c"),
    ],
    "Patient.meta": [case({}, META)],
    "Patient.identifier": [
        case({}, None),
        case({"PatientID": "P7"}, [{"type": MR, "value": "P7"}]),
        case({"PatientID": "P7", "IssuerOfPatientID": "OTHER"}, [{"type": MR, "value": "P7"}]),
        case({"PatientID": "P7"}, [{"type": MR, "system": "urn:site", "value": "P7"}], DEFAULT_SYSTEM),
        case(
            {"PatientID": "P7", "IssuerOfPatientID": "HOSP"},
            [{"type": MR, "system": "urn:oid:1.2.3", "value": "P7"}], DEFAULT_SYSTEM,
        ),
    ],
    "Patient.name": [
        case({}, None),
        case({"PatientName": "Roe"}, [{"family": "Roe"}]),
        case({"PatientName": "^Jo=x=y"}, [{"given": ["Jo"]}]),
        case({"PatientName": "^^^^"}, None),
    ],
    "Patient.gender": [
        case({}, None), case({"PatientSex": "M"}, "male"), case({"PatientSex": "O"}, "other"),
        case({"PatientSex": "X"}, None, sex=1),
    ],
    "Patient.birthDate": [case({}, None), case({"PatientBirthDate": date(900, 1, 2)}, "0900-01-02")],
    "Endpoint.id": [case({"partitionName": "a"}, "8083a3a3bdd79eb1f3c87f2bab5d6ab183be7e31aff43d34fba2ff27d82dfd1d")],
    "Endpoint.meta": [case({}, META)],
    "Endpoint.status": [case({}, "active")],
    "Endpoint.connectionType": [
        case({}, named("http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "dicom-wado-rs")),
    ],
    "Endpoint.payloadType": [case({}, [{"coding": [named(DCM, "113014", "Study")]}])],
    "Endpoint.payloadMimeType": [case({}, ["application/dicom"])],
    "Endpoint.address": [
        case({"partitionName": "Microsoft.Default"}, "https://hospital.example.org/v2"),
        case({"partitionName": "ä/b"}, "https://hospital.example.org/v2/partitions/%C3%A4%2Fb"),
    ],
}  # fmt: skip


def test_every_row_that_writes_has_cases() -> None:
    """A new row of the table asks for literal expectations here."""
    assert len(WRITTEN) == 43
    assert [key(rule) for rule in WRITTEN] == list(CASES)


@pytest.mark.parametrize("rule", WRITTEN, ids=key)
def test_a_row_writes_its_example(rule: Rule) -> None:
    """The example of the documentation, and nothing is counted as left out."""
    assert rule.example is not None
    assert made(rule, rule.example.given) == (rule.example.value, {})


@pytest.mark.parametrize("rule", WRITTEN, ids=key)
def test_a_row_writes_what_is_expected_of_odd_values(rule: Rule) -> None:
    for given, value, left_out, options in CASES[key(rule)]:
        assert made(rule, given, options) == (value, left_out), given


@pytest.mark.parametrize("rule", LEFT_OUT, ids=lambda rule: f"{rule.resource}.{rule.path}")
def test_a_row_that_writes_nothing_says_why(rule: Rule) -> None:
    assert rule.example is None
    assert rule.writes.startswith("left out: ")


def test_the_table_has_the_rows_of_the_reference() -> None:
    """Those that are left out, too; each with its source, in one sentence."""
    assert len(RULES) == len(WRITTEN) + len(LEFT_OUT)
    assert [f"{rule.resource}.{rule.path}" for rule in LEFT_OUT] == [
        "ImagingStudy.identifier", "ImagingStudy.encounter", "ImagingStudy.location", "ImagingStudy.reasonCode",
        "ImagingStudy.note", "ImagingStudy.series.specimen", "Patient.identifier", "Patient.name",
    ]  # fmt: skip
    assert all(re.search(r"\bR4 ", rule.source) for rule in RULES)
    assert all(rule.writes and not rule.writes.endswith(".") for rule in RULES)


def test_a_row_reads_tags_that_the_tables_have() -> None:
    """Those of `instance` and of the set `imaging`; what is left out may name others of the dictionary."""
    columns = {attribute.keyword for attribute in ATTRIBUTES} | {built.tag for built in IMAGING}
    uids = {"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"}
    read = {tag for rule in WRITTEN for tag in rule.tags}
    assert read - columns == uids
    assert all(tag_for_keyword(tag) for rule in LEFT_OUT for tag in rule.tags)
    fhir = {built.tag for built in IMAGING if "fhir" in built.uses}
    assert fhir - read == set()
