"""PS3.15 Table E.1-1 as data, against dicom-anonymizer's where it is installed, and pydicom's dictionary."""

from __future__ import annotations

from collections import Counter

import pytest
from pydicom._dicom_dict import DicomDictionary

from dicom_etl.outputs.columns.profile import OPTIONS, marks_of, profile, why_identifying
from dicom_etl.outputs.columns.tagpath import tag_path


def test_the_table_has_the_rows_of_its_edition() -> None:
    """The counts of the Basic Profile's actions in 2026c, and of each option's in January 2025."""
    assert Counter(mark.action for mark in profile().values()) == {
        "X": 415, "D": 93, "U": 55, "Z": 42, "X/D": 23, "X/Z": 11, "X/Z/D": 8, "Z/D": 6, "X/Z/U*": 2,
    }  # fmt: skip
    options = Counter(f"{name}={how}" for mark in profile().values() for name, how in mark.options.items())
    assert options == {
        "dates=K": 165, "shifted=C": 165, "descriptors=C": 125, "uids=K": 59, "device=K": 46, "device=C": 11,
        "institution=K": 10, "patient=K": 9, "patient=C": 4, "graphics=C": 4, "content=C": 3,
    }  # fmt: skip
    assert {name for mark in profile().values() for name in mark.options} | {"private"} == set(OPTIONS)


def test_pydicom_knows_nearly_all_of_its_tags() -> None:
    """What it does not know is newer than it, of a repeating group, or retired from the dictionary."""
    plain = [tag for tag in profile() if "x" not in tag]
    unknown = [tag for tag in plain if int(tag, 16) not in DicomDictionary]
    assert len(plain) == 652
    assert len(unknown) < 30


def test_it_is_the_table_of_dicom_anonymizer() -> None:
    """An independent copy of the Basic Profile's column."""
    base = "dicomanonymizer.dicom_anonymization_databases.dicomfields_2026c"
    fields = pytest.importorskip(base, reason="dicom-anonymizer is not installed")
    theirs = {f"{tag[0]:04X}{tag[1]:04X}" for tag in fields.ALL_TAGS if len(tag) == 2}
    assert theirs == {tag for tag in profile() if "x" not in tag}


@pytest.mark.parametrize(
    ("text", "identifies"),
    [
        ("PatientID", True),
        ("SliceThickness", False),
        ("RequestAttributesSequence.RequestedProcedureID", True),
        ("ProcedureCodeSequence.CodeValue", False),
        ("6002,4000", True),
        ("5004,0005", True),
        ("6002,0010", False),
        ("0019,xx0C@SIEMENS MR HEADER", True),
    ],
)
def test_a_path_identifies_when_one_of_its_attributes_does(text: str, *, identifies: bool) -> None:
    assert bool(marks_of(tag_path(text))) is identifies


def test_the_options_that_would_keep_it_are_said() -> None:
    assert "Retain Patient Characteristics (113108)" in why_identifying(tag_path("PatientSex"))
    assert "by no option" in why_identifying(tag_path("PatientID"))
    assert "Retain Safe Private (113111)" in why_identifying(tag_path("0019,xx0C@SIEMENS MR HEADER"))
