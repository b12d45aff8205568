"""A check of R4 resources that needs no package: elements, cardinalities and datatypes of the StructureDefinitions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

# R4 datatypes: the regular expressions of the specification, but no second 60, which the clocks of servers do not have.
# White space is ASCII's, as in XML Schema: a no-break space may stand in a string.
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?(Z|[+-](0[0-9]|1[0-3]):[0-5][0-9]|[+-]14:00)"
_DATE = r"[0-9]{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?)?"
PRIMITIVES = {
    "id": r"[A-Za-z0-9\-.]{1,64}",
    "code": r"[^\s]+(\s[^\s]+)*",
    "string": r"(?=[\s\S]*\S)[ \r\n\t\S]+",
    "uri": r"[a-z][a-z0-9+.-]*:\S+",
    "dateTime": rf"{_DATE}|[0-9]{{4}}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T{_TIME}",
    "date": _DATE,
}
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")
# Element: cardinality and type. A type that begins with a point is a part of the resource.
TYPES: dict[str, dict[str, str]] = {
    "Resource": {"resourceType": "1 code", "id": "1 id", "meta": "? Meta"},
    "Meta": {"source": "? uri", "tag": "* Coding"},
    "Coding": {"system": "? uri", "code": "? code", "display": "? string", "extension": "* Extension"},
    "Extension": {"url": "1 uri", "valueCode": "? code"},
    "CodeableConcept": {"coding": "* Coding", "text": "? string"},
    "Identifier": {"type": "? CodeableConcept", "system": "? uri", "value": "? string"},
    "Reference": {
        "reference": "? string", "type": "? uri-or-name", "identifier": "? Identifier", "display": "? string",
    },
    "HumanName": {"family": "? string", "given": "* string", "prefix": "* string", "suffix": "* string"},
    "ImagingStudy": {
        "identifier": "* Identifier", "status": "1 code", "modality": "* Coding", "subject": "1 Reference",
        "started": "? dateTime", "basedOn": "* Reference", "referrer": "? Reference", "interpreter": "* Reference",
        "endpoint": "* Reference", "numberOfSeries": "? unsignedInt", "numberOfInstances": "? unsignedInt",
        "procedureCode": "* CodeableConcept", "description": "? string", "series": "* .series",
    },
    ".series": {
        "uid": "1 id", "number": "? unsignedInt", "modality": "1 Coding", "description": "? string",
        "numberOfInstances": "? unsignedInt", "bodySite": "? Coding", "laterality": "? Coding", "started": "? dateTime",
        "performer": "* .performer", "instance": "* .instance",
    },
    ".performer": {"function": "? CodeableConcept", "actor": "1 Reference"},
    ".instance": {"uid": "1 id", "sopClass": "1 Coding", "number": "? unsignedInt", "title": "? string"},
    "Patient": {
        "identifier": "* Identifier", "name": "* HumanName", "gender": "? code", "birthDate": "? date",
    },
    "Endpoint": {
        "status": "1 code", "connectionType": "1 Coding", "payloadType": "+ CodeableConcept",
        "payloadMimeType": "* code", "address": "1 uri",
    },
}  # fmt: skip


def problems(resource: dict[str, Any]) -> list[str]:
    """The paths of what R4 does not allow; no values. Empty for a valid resource."""
    kind = resource["resourceType"]
    return sorted(set(_object(resource, {**TYPES["Resource"], **TYPES[kind]}, kind)))


def _object(value: Any, elements: dict[str, str], path: str) -> Iterator[str]:
    if not isinstance(value, dict) or not value:
        yield path
        return
    yield from (f"{path}.{name}" for name in value.keys() - elements.keys())
    for name, element in elements.items():
        cardinality, kind = element.split(" ")
        if name in value:
            yield from _element(value[name], cardinality, kind, f"{path}.{name}")
        elif cardinality in "1+":
            yield f"{path}.{name}"


def _element(value: Any, cardinality: str, kind: str, path: str) -> Iterator[str]:
    if cardinality not in "*+":
        yield from _value(value, kind, path)
    elif not isinstance(value, list) or not value:
        yield path
    else:
        for item in value:
            yield from _value(item, kind, path)


def _value(value: Any, kind: str, path: str) -> Iterator[str]:
    if kind in TYPES:
        yield from _object(value, TYPES[kind], path)
    elif kind == "unsignedInt":
        if type(value) is not int or not 0 <= value < 2**31:
            yield path
    elif kind == "uri-or-name":
        if value not in ("Patient", "ServiceRequest"):
            yield path
    elif not isinstance(value, str) or not re.fullmatch(PRIMITIVES[kind], value, re.ASCII) or _CONTROLS.search(value):
        yield path
