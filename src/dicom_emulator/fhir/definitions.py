"""What the R4 base says of the elements of four resources and of the types that they are made of (FHIR R4, 4.0.1).

An element is written ``name:type``, with ``!`` when it must be there, ``*`` for a list and ``+`` for a list that must
be there. ``value[x]:A|B`` stands for one of ``valueA`` and ``valueB``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_CHOICES = "Quantity|CodeableConcept|string|boolean|integer|Range|Ratio|time|dateTime|Period"

_TYPES = {
    "Meta": "versionId:id lastUpdated:instant source:uri profile:canonical* security:Coding* tag:Coding*",
    "Narrative": "status:code! div:xhtml!",
    "Coding": "system:uri version:string code:code display:string userSelected:boolean",
    "CodeableConcept": "coding:Coding* text:string",
    "Identifier": "use:code type:CodeableConcept system:uri value:string period:Period assigner:Reference",
    "Reference": "reference:string type:uri identifier:Identifier display:string",
    "Period": "start:dateTime end:dateTime",
    "Quantity": "value:decimal comparator:code unit:string system:uri code:code",
    "Range": "low:Quantity high:Quantity",
    "Ratio": "numerator:Quantity denominator:Quantity",
    "HumanName": "use:code text:string family:string given:string* prefix:string* suffix:string* period:Period",
    "ContactPoint": "system:code value:string use:code rank:positiveInt period:Period",
    "Address": "use:code type:code text:string line:string* city:string district:string state:string postalCode:string "
    "country:string period:Period",
    "Annotation": "authorReference:Reference authorString:string time:dateTime text:markdown!",
    "ImagingStudy": "identifier:Identifier* status:code! modality:Coding* subject:Reference! encounter:Reference "
    "started:dateTime basedOn:Reference* referrer:Reference interpreter:Reference* endpoint:Reference* "
    "numberOfSeries:unsignedInt numberOfInstances:unsignedInt procedureReference:Reference "
    "procedureCode:CodeableConcept* location:Reference reasonCode:CodeableConcept* reasonReference:Reference* "
    "note:Annotation* description:string series:ImagingStudy.series*",
    "ImagingStudy.series": "uid:id! number:unsignedInt modality:Coding! description:string "
    "numberOfInstances:unsignedInt endpoint:Reference* bodySite:Coding laterality:Coding specimen:Reference* "
    "started:dateTime performer:ImagingStudy.series.performer* instance:ImagingStudy.series.instance*",
    "ImagingStudy.series.performer": "function:CodeableConcept actor:Reference!",
    "ImagingStudy.series.instance": "uid:id! sopClass:Coding! number:unsignedInt title:string",
    "Endpoint": "identifier:Identifier* status:code! connectionType:Coding! name:string managingOrganization:Reference "
    "contact:ContactPoint* period:Period payloadType:CodeableConcept+ payloadMimeType:code* address:url! "
    "header:string*",
    "Patient": "identifier:Identifier* active:boolean name:HumanName* telecom:ContactPoint* gender:code birthDate:date "
    "deceased[x]:boolean|dateTime address:Address* maritalStatus:CodeableConcept multipleBirth[x]:boolean|integer "
    "generalPractitioner:Reference* managingOrganization:Reference link:Patient.link*",
    "Patient.link": "other:Reference! type:code!",
    "Observation": "identifier:Identifier* basedOn:Reference* partOf:Reference* status:code! category:CodeableConcept* "
    "code:CodeableConcept! subject:Reference focus:Reference* encounter:Reference "
    "effective[x]:dateTime|Period|instant issued:instant performer:Reference* value[x]:" + _CHOICES + " "
    "dataAbsentReason:CodeableConcept interpretation:CodeableConcept* note:Annotation* bodySite:CodeableConcept "
    "method:CodeableConcept specimen:Reference device:Reference hasMember:Reference* derivedFrom:Reference* "
    "component:Observation.component*",
    "Observation.component": "code:CodeableConcept! value[x]:" + _CHOICES + " dataAbsentReason:CodeableConcept "
    "interpretation:CodeableConcept*",
}  # fmt: skip
RESOURCES = frozenset({"ImagingStudy", "Endpoint", "Patient", "Observation"})

_OBSERVATION_STATUS = "registered preliminary final amended corrected cancelled entered-in-error unknown"
CODES: Mapping[tuple[str, str], frozenset[str]] = {
    place: frozenset(codes.split())
    for place, codes in {
        ("ImagingStudy", "status"): "registered available cancelled entered-in-error unknown",
        ("Endpoint", "status"): "active suspended error off entered-in-error test",
        ("Observation", "status"): _OBSERVATION_STATUS,
        ("Patient", "gender"): "male female other unknown",
        ("Patient.link", "type"): "replaced-by replaces refer seealso",
        ("Identifier", "use"): "usual official temp secondary old",
        ("HumanName", "use"): "usual official temp nickname anonymous old maiden",
        ("Narrative", "status"): "generated extensions additional empty",
        ("Quantity", "comparator"): "< <= >= >",
    }.items()
}
"""The codes of bindings that are required."""

TARGETS: Mapping[tuple[str, str], frozenset[str]] = {
    place: frozenset(kinds.split())
    for place, kinds in {
        ("ImagingStudy", "subject"): "Patient Device Group",
        ("ImagingStudy", "endpoint"): "Endpoint",
        ("ImagingStudy.series", "endpoint"): "Endpoint",
        ("ImagingStudy", "basedOn"): "CarePlan ServiceRequest Appointment AppointmentResponse Task",
        ("ImagingStudy", "referrer"): "Practitioner PractitionerRole",
        ("ImagingStudy", "interpreter"): "Practitioner PractitionerRole",
        ("Observation", "subject"): "Patient Group Device Location",
        ("Observation", "device"): "Device DeviceMetric",
        ("Observation", "performer"): "Practitioner PractitionerRole Organization CareTeam Patient RelatedPerson",
        ("Observation", "hasMember"): "Observation QuestionnaireResponse MolecularSequence",
        ("Observation", "derivedFrom"): "DocumentReference ImagingStudy Media QuestionnaireResponse Observation "
        "MolecularSequence",
        ("Observation", "partOf"): "MedicationAdministration MedicationDispense MedicationStatement Procedure "
        "Immunization ImagingStudy",
        ("Patient.link", "other"): "Patient RelatedPerson",
    }.items()
}
"""The resources that a reference may lead to."""


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a type; ``choice`` is the name that a ``[x]`` shares with others, else its own."""

    type: str
    required: bool
    many: bool
    choice: str


def _elements(text: str) -> dict[str, Element]:
    found: dict[str, Element] = {}
    for word in text.split():
        name, _, type_name = word.partition(":")
        required, many = type_name.endswith(("!", "+")), type_name.endswith(("*", "+"))
        plain = type_name.rstrip("!+*")
        if name.endswith("[x]"):
            stem = name.removesuffix("[x]")
            found |= {stem + one[0].upper() + one[1:]: Element(one, False, False, stem) for one in plain.split("|")}
        else:
            found[name] = Element(plain, required, many, name)
    return found


ELEMENTS: Mapping[str, Mapping[str, Element]] = {name: _elements(text) for name, text in _TYPES.items()}
