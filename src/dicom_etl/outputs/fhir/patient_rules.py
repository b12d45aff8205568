"""Rows of the mapping: the Patient that we make where the server has none."""

from __future__ import annotations

from datetime import date
from typing import Final

from dicom_etl.outputs.fhir.codes import GENDERS, identifier_type
from dicom_etl.outputs.fhir.facts import Json, MappingOptions, StudyFacts
from dicom_etl.outputs.fhir.ids import meta, resource_id
from dicom_etl.outputs.fhir.names import human_name
from dicom_etl.outputs.fhir.reasons import LeftOut, Reason
from dicom_etl.outputs.fhir.rule import Context, Example, Rule
from dicom_etl.outputs.fhir.values import text


def identifier(study: StudyFacts, options: MappingOptions) -> Json | None:
    """The patient's number (FHIR Identifier, type ``MR``); None without PatientID.

    Its system is the URI that the settings have for IssuerOfPatientID, or the default one where the header names none.
    The number of an issuer that the settings do not name has none: it may be another person's here.
    """
    value = text(study.values.get("PatientID"), LeftOut())
    if value is None:
        return None
    issuer = study.values.get("IssuerOfPatientID")
    system = options.issuers.get(issuer) if issuer else options.default_system
    return {"type": identifier_type("MR"), **({"system": system} if system else {}), "value": value}


def patient_id(study: StudyFacts, options: MappingOptions) -> str | None:
    """The id of our own Patient; None without PatientID.

    With a system the same person in every partition; a number without one is told apart by partition and issuer.
    """
    found = identifier(study, options)
    if found is None:
        return None
    if system := found.get("system"):
        return resource_id(options.key, "Patient", options.source, system, found["value"])
    whose = (study.partition, study.values.get("IssuerOfPatientID") or "")
    return resource_id(options.key, "Patient", options.source, *whose, "", found["value"])


def _id(study: StudyFacts, context: Context) -> str | None:
    return patient_id(study, context.options)


def _meta(_: StudyFacts, context: Context) -> Json:
    return meta(context.options)


def _identifier(study: StudyFacts, context: Context) -> list[Json] | None:
    found = identifier(study, context.options)
    return None if found is None else [found]


def _name(study: StudyFacts, context: Context) -> list[Json] | None:
    name = human_name(study.values.get("PatientName"), context.left_out)
    return None if name is None else [name]


def _gender(study: StudyFacts, context: Context) -> str | None:
    sex = study.values.get("PatientSex")
    if sex is not None and sex not in GENDERS:
        context.left_out[Reason.SEX] += 1
    return GENDERS.get(sex or "")


def _birth_date(study: StudyFacts, _: Context) -> str | None:
    born = study.values.get("PatientBirthDate")
    return None if born is None else str(born.isoformat())


RULES: Final = (
    Rule(
        resource="Patient", path="id", cardinality="1..1", tags=("PatientID", "IssuerOfPatientID"),
        writes="HMAC-SHA-256 of the service, the identifier's system and its value, in hexadecimal; without a system "
        "of the partition and the issuer, too",
        source="R4 Resource.id",
        example=Example(
            {"PatientID": "P7", "IssuerOfPatientID": "HOSP"},
            "dc565774f747bf4de2e9849f2c3b47c0442f74b3d19e8a75a55530f394e875bf",
        ),
        make=_id,
    ),
    Rule(
        resource="Patient", path="meta", cardinality="0..1",
        writes="as that of ImagingStudy",
        source="R4 Meta",
        example=Example({}, {
            "source": "https://hospital.example.org", "tag": [{"system": "urn:dicom-etl:lake", "code": "8d3f2c6a"}],
        }),
        make=_meta,
    ),
    Rule(
        resource="Patient", path="identifier", cardinality="0..*", tags=("PatientID", "IssuerOfPatientID"),
        writes="the number with the type `MR`; as system the URI of the issuer, else `fhir.default_system`, else none",
        source="PS3.3 C.7.1.1; R4 Patient.identifier, v2-0203",
        example=Example({"PatientID": "P7", "IssuerOfPatientID": "HOSP"}, [{
            "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}]},
            "system": "urn:oid:1.2.3", "value": "P7",
        }]),
        make=_identifier,
    ),
    Rule(
        resource="Patient", path="identifier", cardinality="0..*", tags=("IssuerOfPatientIDQualifiersSequence",),
        writes="left out: no column has it",
        source="PS3.3 C.7.1.1; R4 Patient.identifier",
    ),
    Rule(
        resource="Patient", path="name", cardinality="0..*", tags=("PatientName",),
        writes="family, given with middle names, prefix, suffix; names within a component are apart by blanks",
        source="PS3.5 6.2.1; R4 HumanName",
        example=Example({"PatientName": "van Dijk^Anna Maria^Johanna^Dr.^MD"}, [{
            "family": "van Dijk", "given": ["Anna", "Maria", "Johanna"], "prefix": ["Dr."], "suffix": ["MD"],
        }]),
        make=_name,
    ),
    Rule(
        resource="Patient", path="name", cardinality="0..*", tags=("PatientName",),
        writes="left out: the ideographic and the phonetic group, which the tables do not have",
        source="PS3.5 6.2.1; R4 iso21090-EN-representation",
    ),
    Rule(
        resource="Patient", path="gender", cardinality="0..1", tags=("PatientSex",),
        writes="`male` for M, `female` for F, `other` for O",
        source="PS3.3 C.7.1.1; R4 administrative-gender",
        example=Example({"PatientSex": "F"}, "female"),
        make=_gender,
    ),
    Rule(
        resource="Patient", path="birthDate", cardinality="0..1", tags=("PatientBirthDate",),
        writes="the date",
        source="PS3.3 C.7.1.1; R4 Patient.birthDate",
        example=Example({"PatientBirthDate": date(1958, 11, 2)}, "1958-11-02"),
        make=_birth_date,
    ),
)  # fmt: skip
