"""Rows of the mapping: which study an ImagingStudy is, whose, and where its images are."""

from __future__ import annotations

from typing import Any, Final

from dicom_etl.outputs.fhir.codes import identifier_type
from dicom_etl.outputs.fhir.facts import Json, StudyFacts
from dicom_etl.outputs.fhir.ids import meta, study_id
from dicom_etl.outputs.fhir.reasons import LeftOut, Reason
from dicom_etl.outputs.fhir.rule import Context, Example, Rule
from dicom_etl.outputs.fhir.values import id_of_uid, text


def _id(study: StudyFacts, context: Context) -> str:
    return study_id(study.partition, study.uid, context.options)


def _meta(_: Any, context: Context) -> Json:
    return meta(context.options)


def _study_uid(study: StudyFacts, context: Context) -> list[Json] | None:
    uid = id_of_uid(study.uid, context.left_out)
    return None if uid is None else [{"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}]


def _accession(study: StudyFacts, left_out: LeftOut) -> Json | None:
    number = text(study.values.get("AccessionNumber"), left_out)
    return None if number is None else {"type": identifier_type("ACSN"), "value": number}


def _accession_identifier(study: StudyFacts, context: Context) -> list[Json] | None:
    found = _accession(study, context.left_out)
    return None if found is None else [found]


def _order(study: StudyFacts, _: Context) -> list[Json] | None:
    found = _accession(study, LeftOut())  # counted as the study's identifier
    return None if found is None else [{"type": "ServiceRequest", "identifier": found}]


def _status(_: StudyFacts, __: Context) -> str:
    return "available"


def _subject(study: StudyFacts, context: Context) -> Json:
    issuer = study.values.get("IssuerOfPatientID")
    if text(study.values.get("PatientID"), LeftOut()) is None:
        context.left_out[Reason.NO_PATIENT_ID] += 1
    elif issuer is not None and issuer not in context.options.issuers:
        context.left_out[Reason.ISSUER] += 1
    return context.subject


def _endpoints(_: StudyFacts, context: Context) -> list[Json] | None:
    return [{"reference": f"Endpoint/{one}"} for one in context.endpoints] or None


_ACSN: Final = {
    "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}]},
    "value": "A17",
}

RULES: Final = (
    Rule(
        resource="ImagingStudy", path="id", cardinality="0..1", tags=("StudyInstanceUID",),
        writes="HMAC-SHA-256 of the service, the partition and the UID, in hexadecimal",
        source="R4 Resource.id",
        example=Example(
            {"StudyInstanceUID": "1.2.3"}, "6e2a8a589f1e0f6b14c7ecfd5ae2d626c0ee3dd64857435b0297024ad7445268"
        ),
        make=_id,
    ),
    Rule(
        resource="ImagingStudy", path="meta", cardinality="0..1",
        writes="the service's address as source; the lake's id as tag, by which all that is ours is found",
        source="R4 Meta",
        example=Example({}, {
            "source": "https://hospital.example.org", "tag": [{"system": "urn:dicom-etl:lake", "code": "8d3f2c6a"}],
        }),
        make=_meta,
    ),
    Rule(
        resource="ImagingStudy", path="identifier", cardinality="0..*", tags=("StudyInstanceUID",),
        writes="the UID behind `urn:oid:`, of the system `urn:dicom:uid`",
        source="PS3.3 C.7.2.1; R4 ImagingStudy.identifier",
        r5="required where there is a series",
        example=Example(
            {"StudyInstanceUID": "1.2.3"}, [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}]
        ),
        make=_study_uid,
    ),
    Rule(
        resource="ImagingStudy", path="identifier", cardinality="0..*", tags=("AccessionNumber",),
        writes="the number with the type `ACSN`; without a system, since the tables do not have its issuer (0008,0051)",
        source="PS3.3 C.7.2.1; R4 ImagingStudy.identifier, v2-0203",
        r5="moved to basedOn.identifier",
        example=Example({"AccessionNumber": "A17"}, [_ACSN]),
        make=_accession_identifier,
    ),
    Rule(
        resource="ImagingStudy", path="identifier", cardinality="0..*", tags=("StudyID",),
        writes="left out: it is not unique, and often 1",
        source="PS3.3 C.7.2.1; R4 ImagingStudy.identifier",
    ),
    Rule(
        resource="ImagingStudy", path="status", cardinality="1..1",
        writes="`available`: a row of the tables is a living study",
        source="R4 ImagingStudy.status",
        example=Example({}, "available"),
        make=_status,
    ),
    Rule(
        resource="ImagingStudy", path="subject", cardinality="1..1",
        tags=("PatientID", "IssuerOfPatientID", "PatientName"),
        writes="a reference to the Patient, or its identifier alone; without PatientID the name alone",
        source="PS3.3 C.7.1.1; R4 ImagingStudy.subject, Reference",
        example=Example({"PatientID": "P7"}, {"reference": "Patient/4f1d"}),
        make=_subject,
    ),
    Rule(
        resource="ImagingStudy", path="encounter", cardinality="0..1", tags=("AdmissionID",),
        writes="left out: the encounter is the record system's",
        source="PS3.3 C.7.2.2; R4 ImagingStudy.encounter",
    ),
    Rule(
        resource="ImagingStudy", path="basedOn", cardinality="0..*", tags=("AccessionNumber",),
        writes="a logical reference to the ServiceRequest with that accession number",
        source="PS3.3 C.7.2.1; R4 ImagingStudy.basedOn, Reference.identifier",
        r5="the only place of the accession number",
        example=Example({"AccessionNumber": "A17"}, [{"type": "ServiceRequest", "identifier": _ACSN}]),
        make=_order,
    ),
    Rule(
        resource="ImagingStudy", path="endpoint", cardinality="0..*",
        writes="a reference to the Endpoint of the study's partition",
        source="R4 ImagingStudy.endpoint",
        example=Example({}, [{"reference": "Endpoint/90ab"}]),
        make=_endpoints,
    ),
)  # fmt: skip
