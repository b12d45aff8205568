"""The words that say why a resource does not have something of the tables, each with its meaning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Reason(StrEnum):
    """One word for each; a count of them is all that is told, never a value."""

    NO_PATIENT_ID = "no-patient-id"
    ISSUER = "issuer"
    MODALITY = "modality"
    MODALITY_NOT_IN_R4 = "modality-not-in-r4"
    NUMBER = "number"
    UID = "uid"
    SOP_CLASS = "sop-class"
    TIME_WITHOUT_DATE = "time-without-date"
    TIME_WITHOUT_MINUTES = "time-without-minutes"
    TIME_WITHOUT_ZONE = "time-without-zone"
    OFFSET = "offset"
    LEAP_SECOND = "leap-second"
    LATERALITY = "laterality"
    LATERALITY_MIXED = "laterality-mixed"
    SEX = "sex"
    NAME = "name"
    CODE_WITHOUT_SYSTEM = "code-without-system"
    CHARACTERS = "characters"
    INSTANCES = "instances"
    DOSE_HEADER = "dose-header"
    DOSE_TITLE = "dose-title"
    DOSE_ITEM = "dose-item"
    DOSE_EVENT = "dose-event"
    DOSE_REPORT = "dose-report"
    DOSE_NUMBER = "dose-number"
    DOSE_UNIT = "dose-unit"
    DOSE_VALUE = "dose-value"
    DOSE_UID = "dose-uid"


LeftOut = Counter[str]

REASON_TEXTS: Final[Mapping[Reason, str]] = MappingProxyType(
    {
        Reason.NO_PATIENT_ID: "the study has no PatientID: its subject is the name alone, or `Unknown`",
        Reason.ISSUER: "IssuerOfPatientID is not in `fhir.issuers`: `fhir.default_system` or no system stands for it",
        Reason.MODALITY: "Modality is no DICOM code (`CR\\DX`, lower case): `OT` stands for it",
        Reason.MODALITY_NOT_IN_R4: "R4's list of 2019 lacks the modality: `OT` with the code as display "
        "(`fhir.strict_modality`)",
        Reason.NUMBER: "a number is below 0 or above 2147483647: no number",
        Reason.UID: "a UID that is no FHIR id: the study has no identifier, the series or the instance is not written",
        Reason.SOP_CLASS: "SOPClassUID is absent or no UID: an extension says `unknown`",
        Reason.TIME_WITHOUT_DATE: "a time without a date: nothing",
        Reason.TIME_WITHOUT_MINUTES: "a time that has hours alone: the date",
        Reason.TIME_WITHOUT_ZONE: "neither header nor `fhir.timezone` tells the zone: the date",
        Reason.OFFSET: "TimezoneOffsetFromUTC is no offset from -1200 to +1400: `fhir.timezone` counts",
        Reason.LEAP_SECOND: "second 60: second 59",
        Reason.LATERALITY: "a laterality other than R, L, B, U: none",
        Reason.LATERALITY_MIXED: "the images of a series are of different sides: none",
        Reason.SEX: "a PatientSex other than M, F, O: no gender",
        Reason.NAME: "a name has more than five components: the first five",
        Reason.CODE_WITHOUT_SYSTEM: "a code whose scheme has no URI: its meaning, or the code, as text",
        Reason.CHARACTERS: "control characters that FHIR does not take: the text without them",
        Reason.INSTANCES: "the study is larger than 1.5 MB (`fhir.instances`): the series without their instances",
        Reason.DOSE_HEADER: "the header of a dose report is no JSON, or has no content tree: no Observation",
        Reason.DOSE_TITLE: "a document of a dose report's SOP class is no dose report: no Observation",
        Reason.DOSE_ITEM: "a content item of a dose report is none, or more than 32 deep: the others",
        Reason.DOSE_EVENT: "an irradiation or administration has neither a UID nor a value: no Observation",
        Reason.DOSE_REPORT: "a dose report has neither totals nor events: no Observation",
        Reason.DOSE_NUMBER: "a value is no number, negative, or a count that is not whole: no component",
        Reason.DOSE_UNIT: "a number has no unit: no component",
        Reason.DOSE_VALUE: "a code or text is empty: no component",
        Reason.DOSE_UID: "an event's UID is no UID: no identifier",
    }
)
