"""The table of dose concepts against pydicom's dictionary of codes, and each row in a report."""

from __future__ import annotations

import pytest
from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping

from dicom_etl.outputs.fhir.components import components
from dicom_etl.outputs.fhir.content_tree import content_tree
from dicom_etl.outputs.fhir.dose_rules import DOSE_RULES, EVENT_RULES, DoseRule
from dicom_etl.outputs.fhir.reasons import LeftOut
from support.dose_reports import X_RAY, coded, container, num, report

# Where pydicom has another text: the name of TID 10005, and DICOM's names beside SNOMED's own.
OTHER_NAMES = {
    "111637": "Accumulated Average Glandular Dose (mammo)",
    "363589002": "Associated procedure (attribute)",
    "349358000": "Radiopharmaceuticals (product)",
    "89457008": "Radioactive isotope (substance)",
    "304283002": "Half-life of radiopharmaceutical (qualifier value)",
    "410675002": "Route of administration (attribute)",
}


def pydicom_names(scheme: str) -> dict[str, str]:
    return {code: name for codes in concepts[scheme].values() for code, (name, _) in codes.items()}


def test_every_concept_is_pydicom_s() -> None:
    names = {scheme: pydicom_names(scheme) for scheme in ("DCM", "SCT")}
    written = {rule.code: names[rule.scheme].get(rule.code) for rule in DOSE_RULES}
    assert len(written) == len(DOSE_RULES) == 40
    assert {code: name for code, name in written.items() if name not in rule_names(code)} == OTHER_NAMES
    events = {rule.code: rule.name for rule in EVENT_RULES}
    assert len(events) == 3
    assert {code: names["DCM"][code] for code in events} == events
    assert {names["DCM"][code] for rule in EVENT_RULES for code in (rule.uid, rule.start)} == {
        "Irradiation Event UID",
        "DateTime Started",
        "Radiopharmaceutical Administration Event UID",
        "Radiopharmaceutical Start DateTime",
    }


def rule_names(code: str) -> list[str]:
    return [rule.name for rule in DOSE_RULES if rule.code == code]


def test_former_codes_are_those_of_pydicom_s_map() -> None:
    """But of the agent: PS3.16 had F-61FDB, of which the map knows nothing."""
    former = {rule.former: rule.code for rule in DOSE_RULES if rule.former}
    assert len(former) == 5
    assert former.pop("F-61FDB") == "349358000"
    assert former == {code: mapping["SRT"][code] for code in former}


@pytest.mark.parametrize("rule", DOSE_RULES, ids=lambda rule: rule.code)
def test_every_row_gives_a_component(rule: DoseRule) -> None:
    """In the unit of its template, which UCUM has."""
    name = f"{rule.scheme} {rule.code} {rule.name}"
    item = coded(name, "DCM 113014 Study") if rule.unit is None else num(name, "3", rule.unit)
    root = content_tree(report(X_RAY, container("DCM 113829 CT Dose", item), instance="1.2.3").to_json())
    assert root is not None
    left_out = LeftOut()
    [component] = components(root, left_out, rule.kind)
    assert component["code"]["coding"][0]["code"] == rule.code
    assert component["code"]["text"] == rule.name
    if rule.value == "quantity":
        assert component["valueQuantity"]["code"] == rule.unit
    elif rule.value == "count":
        assert component["valueInteger"] == 3
    else:
        assert component["valueCodeableConcept"]["coding"][0]["code"] == "113014"
    others = {"total", "event", "administration"} - {rule.kind}
    assert [components(root, left_out, kind) for kind in others] == [[], []]
    assert left_out.total() == 0
