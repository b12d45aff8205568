"""The table of facts about attributes, against pydicom's dictionary and the columns that readers rely on."""

from __future__ import annotations

import pytest
from pydicom.datadict import dictionary_keyword, dictionary_VR, tag_for_keyword

from dicom_etl.core.attributes import (
    ATTRIBUTES,
    INSTANCE_KEY,
    SERIES_ATTRIBUTES,
    SERIES_KEY,
    STUDY_ATTRIBUTES,
    STUDY_KEY,
    Attribute,
)


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda attribute: attribute.keyword)
def test_facts_are_those_of_the_dictionary(attribute: Attribute) -> None:
    """Keyword, tag and VR belong together (PS3.6)."""
    assert attribute.tag == f"{tag_for_keyword(attribute.keyword):08X}"
    assert dictionary_keyword(int(attribute.tag, 16)) == attribute.keyword
    assert dictionary_VR(int(attribute.tag, 16)) == attribute.vr
    assert attribute.is_date == (attribute.vr == "DA")


def test_columns_are_those_of_the_template() -> None:
    """In its order (design/service-protocol.md: Data Factory template)."""
    template = [
        "studyDate",
        "studyDescription",
        "issuerOfPatientId",
        "patientId",
        "patientName",
        "modality",
        "sopClassUid",
    ]
    assert [a.column for a in ATTRIBUTES][:7] == template
    assert len({a.column for a in ATTRIBUTES}) == len({a.tag for a in ATTRIBUTES}) == len(ATTRIBUTES)
    assert [a.column for a in SERIES_ATTRIBUTES][:6] == template[:6]
    assert [a.column for a in STUDY_ATTRIBUTES][:5] == template[:5]


def test_a_table_carries_the_attributes_of_its_level_and_above() -> None:
    """A study attribute stands in all three tables, an instance attribute in one."""
    assert {a.level for a in STUDY_ATTRIBUTES} == {"study"}
    assert {a.level for a in SERIES_ATTRIBUTES} == {"study", "series"}
    assert {a.level for a in ATTRIBUTES} == {"study", "series", "instance"}
    assert set(STUDY_ATTRIBUTES) < set(SERIES_ATTRIBUTES) < set(ATTRIBUTES)


def test_keys_are_nested() -> None:
    """Partition first."""
    assert INSTANCE_KEY == ("partitionName", "studyInstanceUid", "seriesInstanceUid", "sopInstanceUid")
    assert (INSTANCE_KEY[:3], INSTANCE_KEY[:2]) == (SERIES_KEY, STUDY_KEY)
