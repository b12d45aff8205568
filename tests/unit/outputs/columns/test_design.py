"""Designs of tables of tags: what they refuse, their digest, and the way through a table property."""

from __future__ import annotations

import pytest

from dicom_etl.core.attributes import ATTRIBUTES
from dicom_etl.core.errors import DataError, UsageError
from dicom_etl.outputs.columns.design import (
    ColumnDesign,
    column_of,
    design_from_json,
    design_of,
    imaging_columns,
    keep_names,
)
from dicom_etl.outputs.columns.levels import default_level
from dicom_etl.outputs.columns.sets import IMAGING, all_tags
from dicom_etl.outputs.columns.tagpath import tag_path


def test_the_set_imaging_is_always_there_and_first() -> None:
    """With none of the seven attributes that `instance` has, and an output that reads each."""
    design = design_of(["KVP"])
    assert [c.name for c in design.columns] == [*(c.name for c in imaging_columns()), "kvp"]
    assert len(IMAGING) == 51
    assert {attribute.tag for attribute in ATTRIBUTES} & {c.path.steps[-1].tag for c in design.columns} == set()
    assert all(built.uses for built in IMAGING)


def test_an_identifying_tag_needs_permission() -> None:
    with pytest.raises(UsageError, match="--identifying"):
        design_of(["PatientAge"])
    assert design_of(["PatientAge"], identifying=True).columns[-1].identifying


def test_a_tag_that_is_wanted_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="KVP is wanted twice"):
        design_of(["KVP", "0018,0060 name=other"])


@pytest.mark.parametrize("other", ["SliceThickness:text", "KVP name=SLICETHICKNESS", "KVP name=sequence"])
def test_a_name_that_is_taken_is_refused(other: str) -> None:
    with pytest.raises(UsageError, match="by name="):
        design_of([other])


def test_a_tag_of_the_set_may_be_given_another_name_and_level() -> None:
    design = design_of(["SliceThickness name=thickness level=series"])
    assert len(design.columns) == 51
    assert next(c.level for c in design.columns if c.name == "thickness") == "series"


@pytest.mark.parametrize("text", ["KVP level=patient", "KVP name=a name=b", "KVP nam=a", "KVP name=a.b"])
def test_a_wrong_option_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        column_of(text)


@pytest.mark.parametrize(
    ("text", "level"),
    [("PatientAge", "study"), ("StudyTime", "study"), ("Modality", "series"), ("SeriesNumber", "series"),
     ("KVP", "instance"), ("RequestAttributesSequence.RequestedProcedureID", "series"),
     ("0019,xx0C@SIEMENS MR HEADER", "instance")],
)  # fmt: skip
def test_the_level_is_that_of_the_module(text: str, level: str) -> None:
    assert default_level(tag_path(text)) == level


def test_the_seven_attributes_have_the_level_that_they_have() -> None:
    levels = {attribute.keyword: attribute.level for attribute in ATTRIBUTES}
    assert {keyword: default_level(tag_path(keyword)) for keyword in levels} == levels


def test_a_table_has_the_columns_of_its_level_and_above() -> None:
    design = design_of(["KVP", "StudyID", "ProtocolName"], identifying=True, imaging=False)
    assert [c.name for c in design.at("instance")] == ["kvp", "studyId", "protocolName"]
    assert [c.name for c in design.at("series")] == ["studyId", "protocolName"]
    assert [c.name for c in design.at("study")] == ["studyId"]


def test_the_digest_changes_with_what_matters_and_is_stable() -> None:
    """The literal value: a change of it makes every lake read its headers again."""
    base = design_of(["KVP"], imaging=False)
    assert base.digest == design_of(["0018,0060"], imaging=False).digest == "e288a5b74ad7174b"
    others = ["KVP:text", "KVP name=b", "KVP level=study", "ExposureTime"]
    assert len({base.digest, *(design_of([one], imaging=False).digest for one in others)}) == 5


def test_a_design_comes_back_from_its_json() -> None:
    design = design_of(["0019,xx0C@SIEMENS MR HEADER:double name=b level=series"], identifying=True)
    assert design_from_json(design.to_json()) == design
    assert len(design.columns) == 52


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[{}]", '[{"name":"kvp","tag":"KVP","type":"long","level":"instance"}]', '[{"name":"a","tag":"Kv"}]'],
)
def test_a_property_that_is_no_design_of_ours_is_refused(text: str) -> None:
    """Another type than ours above all: the column would hold both."""
    with pytest.raises(DataError):
        design_from_json(text)


def test_written_names_stay() -> None:
    """A new rule of names, or name= left out, renames nothing; another name or type for it is refused."""
    written = design_of(["KVP name=kv"], imaging=False)
    assert keep_names(written, design_of(["KVP", "StudyID"], identifying=True, imaging=False)).columns[0].name == "kv"
    for wanted in (["KVP name=other"], ["KVP:text name=kv"]):
        with pytest.raises(UsageError):
            keep_names(written, design_of(wanted, imaging=False))


def test_two_columns_of_one_name_are_no_design() -> None:
    with pytest.raises(UsageError, match="both be column"):
        ColumnDesign((column_of("KVP name=a"), column_of("ExposureTime name=A")))


def test_the_set_all_is_what_headers_have_and_may_be_a_column() -> None:
    """Most frequent first when there are too many; without keys, sequences, binary, private and unknown tags."""
    seen = {"00180060": 5, "00180050": 9, "00101010": 9, "0020000D": 9, "00080060": 9, "00400275": 9, "7FE00010": 9,
            "00191010": 9, "00189998": 9, "00280010": 7, "abc": 1}  # fmt: skip
    assert [path.text for path in all_tags(seen, identifying=False)] == ["SliceThickness", "KVP", "Rows"]
    assert [path.text for path in all_tags(seen, identifying=True)][0:2] == ["PatientAge", "SliceThickness"]
    assert [path.text for path in all_tags(seen, identifying=False, most=2)] == ["SliceThickness", "Rows"]
