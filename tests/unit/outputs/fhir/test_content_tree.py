"""The content tree of a header against pydicom's reading of the same reports, and its numbers of items."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from dicom_etl.outputs.fhir.content_tree import DEEPEST, Code, ContentItem, content_tree
from support.dose_reports import angiography, ct, mammography, nuclear

Row = tuple[object, ...]


def row(path: str, relationship: str | None, kind: str | None, *values: object) -> Row:
    return (path, relationship, kind, *values)


def read(item: ContentItem) -> Iterator[Row]:
    code, name = item.code, item.name
    yield row(
        item.path,
        item.relationship,
        item.value_type,
        (name.value, name.scheme, name.meaning) if name else None,
        (code.value, code.scheme, code.meaning) if code else None,
        item.number,
        item.unit.value if item.unit else None,
        item.text,
        item.uid,
        item.date_time,
    )
    for child in item.children:
        yield from read(child)


def pydicom_rows(item: Dataset, path: str = "1") -> Iterator[Row]:
    """The same by pydicom, which neither knows our structs nor the tags by number."""
    measured = item.get("MeasuredValueSequence") or [Dataset()]
    units = measured[0].get("MeasurementUnitsCodeSequence")
    number = measured[0].get("NumericValue")
    yield row(
        path,
        item.get("RelationshipType"),
        item.get("ValueType"),
        pydicom_code(item.get("ConceptNameCodeSequence")),
        pydicom_code(item.get("ConceptCodeSequence")),
        None if number is None else float(number),
        str(units[0].CodeValue) if units else None,
        item.get("TextValue"),
        item.get("UID"),
        item.get("DateTime"),
    )
    for ordinal, child in enumerate(item.get("ContentSequence") or [], 1):
        yield from pydicom_rows(child, f"{path}.{ordinal}")


def pydicom_code(sequence: list[Dataset] | None) -> Row | None:
    return (sequence[0].CodeValue, sequence[0].CodingSchemeDesignator, sequence[0].CodeMeaning) if sequence else None


def from_file(name: str) -> Callable[[], Dataset]:
    return lambda: dcmread(get_testdata_file(name, download=False))


@pytest.mark.parametrize(
    ("build", "items"),
    [
        (ct, 31),
        (angiography, 30),
        (mammography, 13),
        (nuclear, 11),
        (from_file("test-SR.dcm"), 29),
        (from_file("reportsi.dcm"), 9),
    ],
)
def test_the_tree_is_pydicom_s(build: Callable[[], Dataset], items: int) -> None:
    """Each item with its place, names, codes, numbers and texts."""
    dataset = build()
    root = content_tree(dataset.to_json().encode())
    assert root is not None
    expected = list(pydicom_rows(dataset))
    assert len(expected) == items
    assert list(read(root)) == expected
    assert root.skipped == 0


def test_items_that_are_none_keep_their_numbers() -> None:
    """A list, a text and a null in the place of items are skipped and counted, also below."""
    header = json.loads(ct().to_json())
    header["0040A730"]["Value"][1] = ["odd"]
    header["0040A730"]["Value"][3]["0040A730"]["Value"][0] = None
    header["0040A730"]["Value"][4]["0040A730"] = {"vr": "UN", "InlineBinary": "AAAA"}
    root = content_tree(json.dumps(header))
    assert root is not None
    assert [child.path for child in root.children] == ["1.1", "1.3", "1.4", "1.5", "1.6"]
    assert [child.path for child in root.children[2].children] == ["1.4.2"]
    assert (root.skipped, root.children[2].skipped, root.children[3].skipped) == (3, 1, 1)


def test_long_and_numeric_code_values_are_codes() -> None:
    """(0008,0119) and (0008,0120) stand where a value has more than 16 characters (PS3.3 8.8)."""
    names = [
        {"00080119": {"vr": "UC", "Value": ["a-code-of-more-than-16"]}},
        {"00080120": {"vr": "UR", "Value": ["urn:lex:us:federal:1"]}},
        {"00080100": {"vr": "SH", "Value": [113701]}, "00080102": {"vr": "SH", "Value": ["dcm "]}},
        {"00080102": {"vr": "SH", "Value": ["DCM"]}},
    ]
    trees = [content_tree(json.dumps({"0040A043": {"vr": "SQ", "Value": [name]}})) for name in names]
    assert [tree and tree.name for tree in trees] == [
        Code("a-code-of-more-than-16", None, None),
        Code("urn:lex:us:federal:1", None, None),
        Code("113701", "DCM", None),
        None,
    ]


def test_a_double_stands_for_a_decimal_that_is_none() -> None:
    """(0040,A161) has more digits than a DS can hold (PS3.3 C.18.1)."""
    numbers = [{"0040A161": {"vr": "FD", "Value": [0.1234567890123456]}}, {"0040A30A": {"vr": "DS", "Value": ["2"]}}]
    items = [{"0040A300": {"vr": "SQ", "Value": [number]}} for number in numbers]
    root = content_tree(json.dumps({"0040A730": {"vr": "SQ", "Value": items}}))
    assert root is not None
    assert [child.number for child in root.children] == [0.1234567890123456, 2]


def test_depth_is_bounded() -> None:
    item: dict[str, object] = {}
    for _ in range(DEEPEST + 3):
        item = {"0040A730": {"vr": "SQ", "Value": [item, {}]}}
    root = content_tree(json.dumps(item))
    assert root is not None
    depth, at = 1, root
    while at.children:
        depth, at = depth + 1, at.children[0]
    assert (depth, at.path.count("."), root.skipped) == (DEEPEST, DEEPEST - 1, 2)
