"""Codes: the FHIR systems of DICOM's coding schemes, and the few codes that DICOM values are mapped to."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from dicom_etl.outputs.fhir.facts import Json
from dicom_etl.outputs.fhir.reasons import LeftOut, Reason
from dicom_etl.outputs.fhir.values import code, text

DCM: Final = "http://dicom.nema.org/resources/ontology/DCM"
SCT: Final = "http://snomed.info/sct"
URI: Final = "urn:ietf:rfc:3986"
PARTICIPATION: Final = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
CONNECTION: Final = "http://terminology.hl7.org/CodeSystem/endpoint-connection-type"
_IDENTIFIER: Final = "http://terminology.hl7.org/CodeSystem/v2-0203"
_SRT: Final = "http://snomed.info/srt"

# PS3.16 Table 8-1. SNOMED RT keeps its own system: its codes are not those of SNOMED CT.
SYSTEMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "DCM": DCM,
        "SCT": SCT,
        "SRT": _SRT,
        "99SDM": _SRT,
        "SNM3": _SRT,
        "LN": "http://loinc.org",
        "UCUM": "http://unitsofmeasure.org",
        "RADLEX": "http://www.radlex.org",
        "UMLS": "http://terminology.hl7.org/CodeSystem/umls",
        "MDC": "urn:iso:std:iso:11073:10101",
        "FMA": "http://sig.biostr.washington.edu/projects/fm/AboutFM.html",
    }
)
# PS3.3 C.7.1.1 / R4 administrative-gender.
GENDERS: Final[Mapping[str, str]] = MappingProxyType({"M": "male", "F": "female", "O": "other"})
# PS3.3 C.7.3.1, C.7.6.1 / PS3.16 CID 244.
LATERALITIES: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "R": ("24028007", "Right"),
        "L": ("7771000", "Left"),
        "B": ("51440002", "Bilateral"),
        "U": ("66459002", "Unilateral"),
    }
)


def coding(system: str, value: str, display: str | None = None) -> Json:
    """A FHIR Coding."""
    return {"system": system, "code": value} | ({"display": display} if display else {})


def identifier_type(value: str) -> Json:
    """``Identifier.type``: a code of HL7's table 0203, such as ``MR`` or ``ACSN``."""
    return {"coding": [coding(_IDENTIFIER, value)]}


def concept(value: str | None, designator: str | None, meaning: str | None, left_out: LeftOut) -> Json | None:
    """A CodeableConcept of one item of a code sequence (PS3.3 8.8); None when it has neither code nor meaning.

    Its text is the meaning. A code of a private or unknown scheme has no system and says nothing: it is the text where
    there is no meaning.
    """
    display, found, system = text(meaning, left_out), code(value), SYSTEMS.get(designator or "")
    if found is not None and system is None:
        left_out[Reason.CODE_WITHOUT_SYSTEM] += 1
    shown = display or found
    if shown is None:
        return None
    codings = {"coding": [coding(system, found, display)]} if found is not None and system is not None else {}
    return {**codings, "text": shown}


def laterality(value: str, left_out: LeftOut) -> Json | None:
    """A side as a SNOMED CT code; None for what is no side."""
    found = LATERALITIES.get(value)
    if found is None:
        left_out[Reason.LATERALITY] += 1
        return None
    return coding(SCT, *found)
