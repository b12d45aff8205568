"""Names of columns: those of the tables we have, distinct for the whole dictionary, and guarded."""

from __future__ import annotations

import re

import pytest
from pydicom._dicom_dict import DicomDictionary

from dicom_etl.core.attributes import ATTRIBUTES
from dicom_etl.core.errors import UsageError
from dicom_etl.outputs.columns.naming import camel, check_name, column_name
from dicom_etl.outputs.columns.tagpath import tag_path

NAMES = {
    "SliceThickness": "sliceThickness",
    "FrameOfReferenceUID": "frameOfReferenceUid",
    "KVP": "kvp",
    "StudyID": "studyId",
    "CTDIvol": "ctdIvol",
    "PixelSpacing[1]": "pixelSpacing_1",
    "PixelSpacing[*]": "pixelSpacing_all",
    "PatientName:phonetic": "patientName_phonetic",
    "SliceThickness:text": "sliceThickness",
    "RequestAttributesSequence[0].RequestedProcedureID": "requestAttributesSequence_requestedProcedureId",
    "RequestAttributesSequence[2].RequestedProcedureID": "requestAttributesSequence_2_requestedProcedureId",
    "RequestAttributesSequence[*].RequestedProcedureID": "requestAttributesSequence_all_requestedProcedureId",
    "0019,xx0C@SIEMENS MR HEADER:double": "siemensMrHeader_0019_0c",
    "0043,xx27@GEMS_PARM_01": "gemsParm01_0043_27",
    "0009,xx01@1 Ä": "private1_0009_01",
    "6000,0010": "tag_60000010",
    "0018,9998:long": "tag_00189998",
}


@pytest.mark.parametrize(("text", "name"), NAMES.items())
def test_a_path_is_named(text: str, name: str) -> None:
    assert column_name(tag_path(text)) == name


def test_the_seven_attributes_are_named_as_they_are() -> None:
    assert len(ATTRIBUTES) == 7
    assert [camel(attribute.keyword) for attribute in ATTRIBUTES] == [attribute.column for attribute in ATTRIBUTES]


def test_names_of_the_whole_dictionary_are_safe_and_distinct() -> None:
    """Whatever the case, since Spark, Delta and T-SQL do not tell cases apart."""
    names = [camel(entry[4]) for entry in DicomDictionary.values() if entry[4]]
    assert len(names) > 5000
    assert len({name.lower() for name in names}) == len(names)
    assert [name for name in names if not re.fullmatch(r"[a-z][A-Za-z0-9]{0,127}", name)] == []


@pytest.mark.parametrize(
    "name", ["sequence", "HEADERSTATE", "studyInstanceUid", "kvp_values", "1a", "a b", "ä", "", "a.b", "a" * 129]
)
def test_a_name_that_no_column_may_have_is_refused(name: str) -> None:
    """The broken twins: reserved whatever the case, kept for counts, or not safe everywhere."""
    with pytest.raises(UsageError, match=r"^column "):
        check_name(name)


def test_a_good_name_is_taken_as_it_is() -> None:
    assert check_name("bValue_2") == "bValue_2"


def test_a_path_too_long_for_a_name_asks_for_one() -> None:
    inner = "RequestAttributesSequence[1].ScheduledProtocolCodeSequence[2].ProtocolContextSequence[3]"
    with pytest.raises(UsageError, match="name="):
        column_name(tag_path(f"{inner}.ConceptNameCodeSequence[4].ContextGroupExtensionCreatorUID"))
