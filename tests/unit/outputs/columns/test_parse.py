"""Headers in every shape that writers give them: literal values and outcomes, in one pass and element by element."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import Any

import pytest

from dicom_etl.core.attributes import ATTRIBUTES
from dicom_etl.landing.extract import kept_values
from dicom_etl.outputs.columns.design import Column, ColumnDesign
from dicom_etl.outputs.columns.parse import HeaderReader, HeaderState, top_level_tags
from dicom_etl.outputs.columns.tagpath import tag_path
from dicom_etl.outputs.columns.vr import LOST, OUTCOME_TEXTS, Outcome

CREATOR = '"00190011":{"vr":"LO","Value":["SIEMENS MR HEADER "]}'
PRIVATE = "0019,xx0C@SIEMENS MR HEADER"
ITEMS = (
    '"00081032":{"vr":"SQ","Value":[{"00080100":{"vr":"SH","Value":["A"]}},{},{"00080100":{"vr":"SH","Value":["C"]}}]}'
)
# Path, the header's elements, value, outcome.
CASES: tuple[tuple[str, str, Any, Outcome], ...] = (
    ("KVP", "", None, Outcome.ABSENT),
    ("KVP", '"00180060":null', None, Outcome.EMPTY),
    ("KVP", '"00180060":{"vr":"DS"}', None, Outcome.EMPTY),
    ("KVP", '"00180060":{"vr":"DS","Value":[]}', None, Outcome.EMPTY),
    ("KVP", '"00180060":{"vr":"DS","Value":null}', None, Outcome.EMPTY),
    ("KVP", '"00180060":{"vr":"DS","Value":[null,1]}', None, Outcome.EMPTY),
    ("KVP", '"00180060":{"vr":"DS","Value":[" "]}', None, Outcome.EMPTY),
    ("KVP", '"00180060":{"vr":"DS","Value":[120]}', 120.0, Outcome.PRESENT),
    ("KVP", '"00180060":{"vr":"DS","Value":[" +1.5E1 "]}', 15.0, Outcome.PRESENT),
    ("KVP", '"00180060":{"vr":"DS","Value":[1.5,2]}', 1.5, Outcome.SEVERAL),
    ("KVP", '"00180060":{"vr":"DS","Value":["1,5"]}', None, Outcome.UNPARSABLE),
    ("KVP", '"00180060":{"vr":"DS","Value":["NaN"]}', None, Outcome.UNPARSABLE),
    ("KVP", '"00180060":{"vr":"DS","Value":["1_0"]}', None, Outcome.UNPARSABLE),
    ("KVP", '"00180060":{"vr":"DS","Value":[1e999]}', None, Outcome.UNPARSABLE),
    ("KVP", '"00180060":{"vr":"DS","Value":[true]}', None, Outcome.UNPARSABLE),
    ("KVP", '"00180060":{"vr":"DS","Value":[{}]}', None, Outcome.UNPARSABLE),
    ("KVP", '"00180060":{"vr":"DS","Value":1}', None, Outcome.UNPARSABLE),
    ("KVP", '"00180060":[1]', None, Outcome.UNPARSABLE),
    ("KVP", '"00180060":{"vr":"LO","Value":["abc"]}', None, Outcome.WRONG_VR),
    ("KVP", '"00180060":{"vr":"LO","Value":["80"]}', 80.0, Outcome.OTHER_VR),
    ("KVP", '"00180060":{"Value":[80]}', 80.0, Outcome.PRESENT),
    ("KVP", '"00180060":{"vr":7,"Value":[80]}', 80.0, Outcome.PRESENT),
    ("KVP", '"00180060":{"vr":"UN","InlineBinary":"MTIw"}', None, Outcome.BINARY),
    ("KVP", '"00180060":{"vr":"DS","BulkDataURI":"http://a/b"}', None, Outcome.BINARY),
    ("KVP", '"00180060":{"vr":"DS","Value":[1]},"00180060":{"vr":"DS","Value":[2]}', 2.0, Outcome.PRESENT),
    ("KVP:text", '"00180060":{"vr":"DS","Value":[120.0]}', "120.0", Outcome.PRESENT),
    ("PixelSpacing[1]", '"00280030":{"vr":"DS","Value":[1,2]}', 2.0, Outcome.PRESENT),
    ("PixelSpacing[2]", '"00280030":{"vr":"DS","Value":[1,2]}', None, Outcome.EMPTY),
    ("PixelSpacing[*]", '"00280030":{"vr":"DS","Value":[1.0,null,"2"]}', "1.0\\\\2", Outcome.PRESENT),
    ("PixelSpacing[*]", '"00280030":{"vr":"DS","Value":[1,true]}', None, Outcome.UNPARSABLE),
    ("PixelSpacing[*]", '"00280030":{"vr":"DS","Value":[null,""]}', None, Outcome.EMPTY),
    ("ImageType[*]", '"00080008":{"vr":"CS","Value":["A"," B",null]}', "A\\B\\", Outcome.PRESENT),
    ("InstanceNumber", '"00200013":{"vr":"IS","Value":["73.8"]}', None, Outcome.UNPARSABLE),
    ("InstanceNumber", '"00200013":{"vr":"IS","Value":[" 007 "]}', 7, Outcome.PRESENT),
    ("InstanceNumber", '"00200013":{"vr":"IS","Value":[3.0]}', 3, Outcome.PRESENT),
    ("InstanceNumber", '"00200013":{"vr":"IS","Value":["InvalidNumber"]}', None, Outcome.UNPARSABLE),
    ("InstanceNumber", '"00200013":{"vr":"IS","Value":[9223372036854775807]}', 2**63 - 1, Outcome.PRESENT),
    ("InstanceNumber", '"00200013":{"vr":"IS","Value":[9223372036854775808]}', None, Outcome.UNPARSABLE),
    (
        "InstanceNumber:text",
        '"00200013":{"vr":"UV","Value":[18446744073709551615]}',
        "18446744073709551615",
        Outcome.OTHER_VR,
    ),
    ("SmallestImagePixelValue", '"00280106":{"vr":"SS","Value":[-5]}', -5, Outcome.PRESENT),
    ("0018,9315", '"00189315":{"vr":"CS","Value":["x\\u0000"]}', "x", Outcome.PRESENT),
    ("ExposureInmAs", '"00189332":{"vr":"FD","Value":["-Infinity"]}', -math.inf, Outcome.PRESENT),
    ("ContentDate", '"00080023":{"vr":"DA","Value":["20200229"]}', date(2020, 2, 29), Outcome.PRESENT),
    ("ContentDate", '"00080023":{"vr":"DA","Value":[20200229]}', date(2020, 2, 29), Outcome.PRESENT),
    ("ContentDate", '"00080023":{"vr":"DA","Value":["2020.02.29"]}', None, Outcome.UNPARSABLE),
    ("StudyTime", '"00080030":{"vr":"TM","Value":["101530.25"]}', "10:15:30.25", Outcome.PRESENT),
    ("StudyTime", '"00080030":{"vr":"TM","Value":["10"]}', "10", Outcome.PRESENT),
    ("StudyTime", '"00080030":{"vr":"TM","Value":["10:15:30"]}', "10:15:30", Outcome.PRESENT),
    ("StudyTime", '"00080030":{"vr":"TM","Value":["2515"]}', None, Outcome.UNPARSABLE),
    ("StudyTime:text", '"00080030":{"vr":"TM","Value":["2515"]}', "2515", Outcome.PRESENT),
    (
        "AcquisitionDateTime:timestamp",
        '"0008002A":{"vr":"DT","Value":["20200101003000.5+0100"]}',
        datetime(2019, 12, 31, 23, 30, 0, 500000, UTC),
        Outcome.PRESENT,
    ),
    ("AcquisitionDateTime:timestamp", '"0008002A":{"vr":"DT","Value":["20200101003000"]}', None, Outcome.UNPARSABLE),
    (
        "AcquisitionDateTime:date",
        '"0008002A":{"vr":"DT","Value":["20200101003000"]}',
        date(2020, 1, 1),
        Outcome.PRESENT,
    ),
    ("PatientName", '"00100010":{"vr":"PN","Value":["A^B=C"]}', "A^B=C", Outcome.PRESENT),
    ("PatientName:ideographic", '"00100010":{"vr":"PN","Value":["A^B=C"]}', "C", Outcome.PRESENT),
    (
        "PatientName:ideographic",
        '"00100010":{"vr":"PN","Value":[{"Alphabetic":"A","Ideographic":"B "}]}',
        "B",
        Outcome.PRESENT,
    ),
    ("PatientName:phonetic", '"00100010":{"vr":"PN","Value":[{"Alphabetic":"A","Phonetic":""}]}', None, Outcome.EMPTY),
    ("PatientName", '"00100010":{"vr":"PN","Value":[{"Alphabetic":["A"]}]}', None, Outcome.UNPARSABLE),
    ("ProcedureCodeSequence.CodeValue", ITEMS, "A", Outcome.SEVERAL),
    ("ProcedureCodeSequence[1].CodeValue", ITEMS, None, Outcome.ABSENT),
    ("ProcedureCodeSequence[2].CodeValue", ITEMS, "C", Outcome.PRESENT),
    ("ProcedureCodeSequence[3].CodeValue", ITEMS, None, Outcome.EMPTY),
    ("ProcedureCodeSequence[*].CodeValue", ITEMS, "A\\\\C", Outcome.PRESENT),
    ("ProcedureCodeSequence.CodeValue", '"00081032":{"vr":"SQ"}', None, Outcome.EMPTY),
    ("ProcedureCodeSequence.CodeValue", '"00081032":{"vr":"LO","Value":["x"]}', None, Outcome.WRONG_VR),
    ("ProcedureCodeSequence.CodeValue", '"00081032":{"vr":"SQ","Value":["x"]}', None, Outcome.UNPARSABLE),
    (
        PRIVATE,
        f'{CREATOR},"0019110C":{{"vr":"IS","Value":[1000]}},"0019100C":{{"vr":"IS","Value":[1]}}',
        1000,
        Outcome.PRESENT,
    ),
    (PRIVATE, '"0019100C":{"vr":"IS","Value":[1]}', None, Outcome.ABSENT),
    (PRIVATE, f'{CREATOR},"0019110C":{{"vr":"UN","InlineBinary":"AA=="}}', None, Outcome.BINARY),
    (
        PRIVATE,
        f'"00190010":{{"vr":"LO","Value":[3]}},{CREATOR},"0019110C":{{"vr":"IS","Value":[2]}}',
        2,
        Outcome.PRESENT,
    ),
)
# An element that makes the one pass fail, and one that is read beside the odd one whatever happens.
ODD = '"00080005":{"vr":"CS","Value":[1]}'
GOOD = '"00080060":{"vr":"CS","Value":["CT "]}'
EMBEDDED = ("SpecificCharacterSet", "Modality")


def design(*texts: str) -> ColumnDesign:
    return ColumnDesign(tuple(Column(f"c{n}", tag_path(text), "instance") for n, text in enumerate(texts)))


def header(*elements: str) -> str:
    return "{" + ",".join(element for element in elements if element) + "}"


@pytest.mark.parametrize(("text", "elements", "value", "outcome"), CASES)
def test_a_value_and_its_outcome(text: str, elements: str, value: Any, outcome: Outcome) -> None:
    """The same in one pass and element by element; an odd one leaves the one beside it alone."""
    reader = HeaderReader(design(text, *EMBEDDED))
    quick, slow = reader.read(header(elements, GOOD)), reader.read(header(ODD, elements, GOOD).encode())
    assert (quick.values[0], quick.outcomes[0]) == (slow.values[0], slow.outcomes[0]) == (value, outcome)
    assert type(quick.values[0]) is type(slow.values[0]) is type(value)
    assert (quick.values[2], slow.values[1:]) == ("CT", ("1", "CT"))
    assert (value is None) == (outcome in LOST)


def test_every_outcome_is_met_and_described() -> None:
    assert {outcome for *_, outcome in CASES} == set(Outcome) == set(OUTCOME_TEXTS)


@pytest.mark.parametrize(
    ("metadata", "state"),
    [("", "missing"), (None, "missing"), (b"null", "missing"), ("{}", "ok"), ("[]", "unreadable"), ("{", "unreadable"),
     ("7", "unreadable"), (b'{"00080060":{"vr":"CS","Value":["\xff"]}}', "unreadable"), ("[" * 100_000, "unreadable"),
     ('{"00080060":NaN}', "unreadable")],
)  # fmt: skip
def test_a_header_without_values_has_a_state(metadata: str | bytes | None, state: str) -> None:
    parsed = HeaderReader(design("Modality", "KVP")).read(metadata)
    assert parsed == ((None, None), (Outcome.ABSENT, Outcome.ABSENT), HeaderState(state))


ODD_ELEMENTS = (
    "null", "7", '"abc"', "{}", '{"vr":"LO","Value":["  abc \\u0000"]}', '{"vr":"LO","Value":[null,"b"]}',
    '{"vr":"IS","Value":[1.50]}', '{"vr":"LO","Value":[true]}', '{"Value":["20200922"]}', '{"Value":[20200922]}',
    '{"vr":"PN","Value":[{"Alphabetic":"Doe^John "}]}', '{"vr":"PN","Value":[{"Alphabetic":""}]}',
    '{"vr":"PN","Value":[{"Ideographic":"x"}]}', '{"vr":"PN","Value":[42]}', '{"vr":"OB","InlineBinary":"YWJj"}',
    '{"vr":"LO","Value":["M\\u00fcller"]}', '{"vr":"LO","Value":"abc"}', '{"vr":"SQ","Value":[{}]}',
)  # fmt: skip


@pytest.mark.parametrize("element", ODD_ELEMENTS)
def test_the_seven_attributes_are_read_as_the_landing_reads_them(element: str) -> None:
    """Each odd element as each attribute."""
    reader = HeaderReader(design(*(attribute.keyword for attribute in ATTRIBUTES)))
    for attribute in ATTRIBUTES:
        metadata = header(f'"{attribute.tag}":{element}')
        assert reader.read(metadata).values == kept_values(metadata.encode())[0]


def test_a_tag_that_is_wanted_in_two_ways_is_read_in_both() -> None:
    reader = HeaderReader(design("KVP", "KVP:text", "PatientName", "PatientName:phonetic"))
    parsed = reader.read(
        '{"00100010":{"vr":"PN","Value":[{"Alphabetic":"A","Phonetic":"P"}]},"00180060":{"Value":[1.0]}}'
    )
    assert parsed.values == (1.0, "1.0", "A", "P")


def test_the_tags_of_a_header_are_its_own_keys() -> None:
    assert top_level_tags(header(ITEMS, GOOD)) == ("00081032", "00080060")
    assert top_level_tags("[") == top_level_tags(b"") == ()
