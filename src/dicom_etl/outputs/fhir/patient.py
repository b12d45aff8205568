"""Whose study it is: the patient's identifier, a subject that needs no Patient, and a Patient of our own."""

from __future__ import annotations

from dicom_etl.outputs.fhir.facts import Json, MappingOptions, Resource, StudyFacts
from dicom_etl.outputs.fhir.mapping import PATIENT
from dicom_etl.outputs.fhir.names import shown_name
from dicom_etl.outputs.fhir.patient_rules import identifier, patient_id
from dicom_etl.outputs.fhir.reasons import LeftOut
from dicom_etl.outputs.fhir.rule import Context, filled, fillers

__all__ = ["identifier", "logical_subject", "patient", "patient_id"]

_MADE_BY = fillers(PATIENT)


def logical_subject(study: StudyFacts, options: MappingOptions) -> Json:
    """A FHIR Reference to a Patient by its identifier; without PatientID the name, or ``Unknown``, as display.

    ``ImagingStudy.subject`` is required, and R4 lets a Reference be a display alone.
    """
    found = identifier(study, options)
    if found is not None:
        return {"type": "Patient", "identifier": found}
    return {"type": "Patient", "display": shown_name(study.values.get("PatientName"), LeftOut()) or "Unknown"}


def patient(study: StudyFacts, options: MappingOptions) -> Resource:
    """FHIR R4 Patient, a stub of our own: identifier, name, gender, birth date.

    Its id is that of system and number: a number of one issuer is the same person in every partition. A number without
    a system is one person's in its partition and with its issuer's text. Of several studies of a patient the newest is
    to be given. Raises ValueError for a study without PatientID, for which ``identifier`` is None.
    """
    context = Context(options, LeftOut())
    made = filled(_MADE_BY, study, context)
    if made is None:
        raise ValueError("a study without PatientID has no Patient")
    body: Json = {"resourceType": "Patient", **made}
    left_out = {str(reason): context.left_out[reason] for reason in sorted(context.left_out)}
    return Resource("Patient", body["id"], body, left_out)
