"""Texts to paths and back, against pydicom's dictionary."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom._dicom_dict import DicomDictionary

from dicom_etl.core.errors import UsageError
from dicom_etl.outputs.columns.dictionary import nearest_keyword
from dicom_etl.outputs.columns.tagpath import tag_path

BINARY = {"OB", "OD", "OF", "OL", "OV", "OW", "OB or OW"}
# Text, canonical text, VR, type.
PATHS = (
    ("SliceThickness", "SliceThickness", "DS", "double"),
    (" (0018,0050) ", "SliceThickness", "DS", "double"),
    ("0018,0050", "SliceThickness", "DS", "double"),
    ("00180050:text", "SliceThickness:text", "DS", "string"),
    ("SliceThickness:double", "SliceThickness", "DS", "double"),
    ("PixelSpacing[1]", "PixelSpacing[1]", "DS", "double"),
    ("PixelSpacing[*]", "PixelSpacing[*]", "DS", "string"),
    ("StudyTime:text", "StudyTime:text", "TM", "string"),
    ("ContentDate", "ContentDate", "DA", "date"),
    ("AcquisitionDateTime", "AcquisitionDateTime", "DT", "string"),
    ("AcquisitionDateTime:timestamp", "AcquisitionDateTime:timestamp", "DT", "timestamp"),
    ("InstanceNumber", "InstanceNumber", "IS", "long"),
    ("SmallestImagePixelValue", "SmallestImagePixelValue", "US or SS", "long"),
    ("PatientName:alphabetic", "PatientName", "PN", "string"),
    ("PatientName:ideographic", "PatientName:ideographic", "PN", "string"),
    ("6002,0010", "6002,0010", "US", "long"),
    ("0018,9998:double", "0018,9998:double", "UN", "double"),
    (
        "RequestAttributesSequence.RequestedProcedureID",
        "RequestAttributesSequence[0].RequestedProcedureID",
        "SH",
        "string",
    ),
    ("0040,0275[*].0040,1001", "RequestAttributesSequence[*].RequestedProcedureID", "SH", "string"),
    ("0019,xx0C@SIEMENS MR HEADER:double", "0019,xx0C@SIEMENS MR HEADER:double", "IS", "double"),
    ("(0019,100c)@SIEMENS MR HEADER", "0019,xx0C@SIEMENS MR HEADER:long", "IS", "long"),
    ('0009,xx01@"A.B:1 [x]"', '0009,xx01@"A.B:1 [x]":text', "UN", "string"),
)
# Text, and what the message must say.
WRONG = (
    ("SliceThicknes", "did you mean SliceThickness"),
    ("slicethickness", "did you mean SliceThickness"),
    ("PixelData", "binary"),
    ("0018,9998", "say its type"),
    ("PixelSpacing:date", "choose from :double, :long, :text"),
    ("PixelSpacing[*]:double", r"\[\*\] joins"),
    ("SliceThickness:", "choose from"),
    ("RequestAttributesSequence", "is a sequence"),
    ("SliceThickness.KVP", "SliceThickness has VR DS"),
    ("0019,100C", "write 0019,xx0C@CREATOR"),
    ("0019,0010@X", r"begin at \(0019,1000\)"),
    ("0018,xx50@X", "group 0018 is even"),
    ("OverlayRows", "60xx"),
    ("0002,0010", "groups 0000 and 0002"),
    ("0008,0000", "lengths of groups"),
    ("FFFE,E000", "no value"),
    ("0018,00", "no tag begins"),
    ("(0018,0050", "no tag begins"),
    ("0018,0050)", "cannot go on"),
    ("", "an empty text"),
)


@pytest.mark.parametrize(("text", "canonical", "vr", "kind"), PATHS)
def test_a_text_becomes_a_path_and_its_canonical_text(text: str, canonical: str, vr: str, kind: str) -> None:
    """The canonical text names the same path."""
    path = tag_path(text)
    assert (path.text, path.vr, path.type) == (canonical, vr, kind)
    assert tag_path(path.text) == path


@pytest.mark.parametrize(("text", "says"), WRONG)
def test_a_wrong_text_is_refused_with_what_to_write(text: str, says: str) -> None:
    """In one line, as a mistake on the command line."""
    with pytest.raises(UsageError, match=says) as raised:
        tag_path(text)
    assert "\n" not in str(raised.value)


def test_every_attribute_of_the_dictionary_is_a_path_or_refused_for_its_vr() -> None:
    """By keyword and by number alike; sequences, binary values and what has no value are refused."""
    taken = 0
    for number, (vr, _, _, _, keyword) in DicomDictionary.items():
        if number >> 16 in (0, 2) or not keyword:
            continue
        if vr in BINARY | {"SQ", "NONE", "OB or OW"}:
            with pytest.raises(UsageError):
                tag_path(keyword)
        elif vr != "UN":
            taken += 1
            by_number = tag_path(f"{number:08X}")
            assert (by_number.text, by_number.vr) == (keyword, vr)
            assert tag_path(keyword) == by_number
    assert taken > 3500


def test_the_nearest_keyword_is_found_whatever_the_case() -> None:
    """Of a slip, of a name of a column, and of nonsense some keyword."""
    assert nearest_keyword("SopInstanceUid") == "SOPInstanceUID"
    assert nearest_keyword("PixelSpacin") == "PixelSpacing"
    assert nearest_keyword("zzzzzz")


@given(
    st.text(max_size=40) | st.from_regex(r"[(]?[0-9A-Fx]{4},?[0-9A-Fx]{4}[)]?(@[A-Z .\"]*)?(\[[0-9*]*\])?(:[a-z]*)?")
)
@settings(max_examples=150, deadline=None)
def test_any_text_is_a_path_or_a_usage_error(text: str) -> None:
    """And what is a path round-trips."""
    try:
        path = tag_path(text)
    except UsageError:
        return
    assert tag_path(path.text) == path
