"""The components of a dose Observation: content items that a rule names, with their values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from dicom_etl.outputs.fhir.codes import concept
from dicom_etl.outputs.fhir.content_tree import ContentItem
from dicom_etl.outputs.fhir.dose_rules import PLANE, DoseRule, Kind, dcm, event_of, rule_of
from dicom_etl.outputs.fhir.facts import Json
from dicom_etl.outputs.fhir.quantity import quantity
from dicom_etl.outputs.fhir.reasons import LeftOut, Reason
from dicom_etl.outputs.fhir.values import text

_LARGEST_INTEGER: Final = 2**31 - 1


def components(item: ContentItem, left_out: LeftOut, *kinds: Kind) -> list[Json]:
    """The components of these kinds below an item, in the order of the report; not those of an event within it.

    What a rule names and has no value that FHIR can hold is counted in ``left_out``.
    """
    found: list[Json] = []
    for named, rule, where in _named(item, ()):
        if rule.kind in kinds:
            value = _value(rule, named, left_out)
            if value:
                found.append({"code": _code(rule, named, where if rule.kind == "total" else (), left_out), **value})
    return found


def _named(item: ContentItem, where: tuple[str, ...]) -> Iterator[tuple[ContentItem, DoseRule, tuple[str, ...]]]:
    """What a rule names below an item, and the plane whose values the containers above have (TID 10002)."""
    planes = [child.code for child in item.children if dcm(child.name) == PLANE and child.code]
    here = (*where, *(plane.meaning for plane in planes if plane.meaning))
    for child in item.children:
        if event_of(child.name):
            continue
        rule = rule_of(child.name)
        if rule:
            yield child, rule, here
        yield from _named(child, here)


def _code(rule: DoseRule, item: ContentItem, where: tuple[str, ...], left_out: LeftOut) -> Json:
    """The rule's code. Plane, side and method are in its text alone: they tell apart totals with one code."""
    modifiers = () if rule.value == "coded" else (*where, *item.modifiers)
    return {"coding": [rule.coding], "text": text(", ".join((rule.name, *modifiers)), left_out)}


def _value(rule: DoseRule, item: ContentItem, left_out: LeftOut) -> Json | None:
    if rule.value == "coded":
        return _coded(item, left_out)
    number = item.number
    if number is None or number < 0:
        left_out[Reason.DOSE_NUMBER] += 1
        return None
    if rule.value == "count":
        if isinstance(number, int) and number <= _LARGEST_INTEGER:
            return {"valueInteger": number}
        left_out[Reason.DOSE_NUMBER] += 1
        return None
    measured = quantity(number, item.unit, rule.unit, left_out) if item.unit else None
    left_out[Reason.DOSE_UNIT] += measured is None
    return {"valueQuantity": measured} if measured else None


def _coded(item: ContentItem, left_out: LeftOut) -> Json | None:
    code = item.code
    if code and (found := concept(code.value, code.scheme, code.meaning, left_out)):
        return {"valueCodeableConcept": found}
    if found_text := text(item.text, left_out):
        return {"valueString": found_text}
    left_out[Reason.DOSE_VALUE] += 1
    return None
