"""What a resource must be for the server to take it: the R4 base's structure, types, codes and a few invariants."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dicom_emulator.fhir.definitions import CODES, ELEMENTS, RESOURCES, TARGETS, Element
from dicom_emulator.fhir.primitives import PRIMITIVES, is_absolute, is_allowed, is_id

Json = dict[str, Any]
Exists = Callable[[str, str], bool]
_OF_EVERY_RESOURCE = {
    "resourceType": Element("code", True, False, "resourceType"),
    "id": Element("id", False, False, "id"),
    "meta": Element("Meta", False, False, "meta"),
    "implicitRules": Element("uri", False, False, "implicitRules"),
    "language": Element("code", False, False, "language"),
    "text": Element("Narrative", False, False, "text"),
}
_LITERAL = re.compile(r"([A-Z][A-Za-z]+)/([A-Za-z0-9\-.]{1,64})(/_history/[A-Za-z0-9\-.]{1,64})?")
_SYSTEM_TYPES = ("Coding", "Identifier", "Quantity")


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a resource is refused: an IssueType code, the element, and what stands there."""

    code: str
    where: str
    value: object = None


def problems(resource: Json, exists: Exists) -> list[Problem]:
    """All that is wrong with a resource; empty when the server takes it. ``exists`` knows the other resources.

    Kinds without a definition here are looked at for what holds for all: no empty text, list or object.
    """
    kind = resource.get("resourceType")
    if not isinstance(kind, str):
        return [Problem("structure", "resourceType", kind)]
    found = list(_empty(resource, kind))
    if kind in RESOURCES:
        found += _object(kind, {**_OF_EVERY_RESOURCE, **ELEMENTS[kind]}, resource, kind, exists)
    if kind == "Observation":
        found += _observation(resource)
    return found


def _empty(value: Any, where: str) -> Iterator[Problem]:
    """ele-1: what is there has a value or children. JSON's null is none."""
    if value is None or (isinstance(value, str | list | dict) and not value):
        yield Problem("invariant", where, value)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _empty(inner, f"{where}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from _empty(inner, where)


def _object(
    type_name: str, elements: Mapping[str, Element], value: Any, where: str, exists: Exists
) -> Iterator[Problem]:
    if not isinstance(value, dict):
        yield Problem("structure", where, value)
        return
    for name in value.keys() - elements.keys() - {"extension", "modifierExtension", "id"}:
        if not (name.startswith("_") and name[1:] in elements):
            yield Problem("structure", f"{where}.{name}", name)
    for name, element in elements.items():
        if element.required and name not in value:
            yield Problem("required", f"{where}.{name}")
        if name in value:
            yield from _element(type_name, name, element, value[name], f"{where}.{name}", exists)
    chosen = [element.choice for name, element in elements.items() if name in value]
    yield from (Problem("structure", f"{where}.{name}[x]") for name in set(chosen) if chosen.count(name) > 1)
    for extension in value.get("extension", ()):
        yield from _extension(extension, f"{where}.extension")
    yield from _own_rules(type_name, value, where, exists)


def _element(owner: str, name: str, element: Element, value: Any, where: str, exists: Exists) -> Iterator[Problem]:
    if element.many != isinstance(value, list):
        yield Problem("structure", where, value)
        return
    for one in value if element.many else [value]:
        if element.type not in PRIMITIVES:
            yield from _object(element.type, ELEMENTS[element.type], one, where, exists)
            if element.type == "Reference":
                yield from _target(TARGETS.get((owner, name)), one, where)
        elif not is_allowed(element.type, one):
            yield Problem("value", where, one)
        elif one not in CODES.get((owner, name), {one}):
            yield Problem("code-invalid", where, one)


def _own_rules(type_name: str, value: Json, where: str, exists: Exists) -> Iterator[Problem]:
    if type_name in _SYSTEM_TYPES and "system" in value and not is_absolute(value["system"]):
        # HAPI's validator: Coding.system must be an absolute reference.
        yield Problem("value", f"{where}.system", value["system"])
    if type_name == "Reference" and isinstance(reference := value.get("reference"), str):
        literal = _LITERAL.fullmatch(reference)
        if literal and not exists(literal[1], literal[2]):
            yield Problem("not-found", where, reference)
        elif not literal and not is_absolute(reference):
            yield Problem("value", where, reference)


def _target(kinds: frozenset[str] | None, reference: Any, where: str) -> Iterator[Problem]:
    if kinds is None or not isinstance(reference, dict):
        return
    literal = _LITERAL.fullmatch(str(reference.get("reference", "")))
    for kind in (literal[1] if literal else None, reference.get("type")):
        if kind is not None and kind not in kinds:
            yield Problem("structure", where, kind)


def _extension(value: Any, where: str) -> Iterator[Problem]:
    """ext-1: either a value or further extensions; and a url."""
    if not isinstance(value, dict) or not is_allowed("uri", value.get("url")):
        yield Problem("structure", where, value)
        return
    values = [name for name in value if name.startswith("value")]
    if len(values) + ("extension" in value) != 1:
        yield Problem("invariant", where)


def _observation(resource: Json) -> Iterator[Problem]:
    """obs-6: a reason for no value, or a value; obs-7: a component with the code of the whole takes its value."""
    has_value = any(name.startswith("value") for name in resource)
    if has_value and "dataAbsentReason" in resource:
        yield Problem("invariant", "Observation.dataAbsentReason")
    components = [one for one in resource.get("component", ()) if isinstance(one, dict)]
    if has_value and any(one.get("code") == resource.get("code") for one in components):
        yield Problem("invariant", "Observation.component.code")


def misplaced(resource: Json, kind: str, resource_id: str) -> list[Problem]:
    """What is wrong with where a resource is put: its kind and id are those of the address."""
    if not is_id(resource_id):
        return [Problem("value", f"{kind}.id", resource_id)]
    found = [("resourceType", kind), ("id", resource_id)]
    return [
        Problem("invalid", f"{kind}.{name}", resource.get(name)) for name, is_ in found if resource.get(name) != is_
    ]
