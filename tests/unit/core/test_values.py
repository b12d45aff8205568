"""The value of one kept attribute: literal cases, and a slow oracle made of the standard library's json."""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dicom_etl.core.attributes import ATTRIBUTES, Attribute
from dicom_etl.core.values import kept_value, stripped
from dicom_etl.landing import extract as kept
from support.examples import examples

BY_COLUMN = {attribute.column: attribute for attribute in ATTRIBUTES}
TEXT = BY_COLUMN["patientId"]
NAME = BY_COLUMN["patientName"]
DATE = BY_COLUMN["studyDate"]

TEXT_CASES = {
    '{"vr":"LO","Value":["abc"]}': "abc",
    '{"vr":"LO","Value":["first","second"]}': "first",
    '{"vr":"LO","Value":[null,"second"]}': None,
    '{"vr":"LO","Value":["","second"]}': None,
    '{"vr":"LO","Value":[]}': None,
    '{"vr":"LO","Value":null}': None,
    '{"vr":"LO","Value":"abc"}': None,
    '{"vr":"LO","Value":{"0":"abc"}}': None,
    '{"vr":"LO","Value":3}': None,
    '{"vr":"LO"}': None,
    "{}": None,
    "null": None,
    '"abc"': None,
    '["abc"]': None,
    "7": None,
    '{"vr":"LO","Value":["  abc \\u0000"]}': "abc",
    '{"vr":"LO","Value":[" \\u0000 \\u0000"]}': None,
    '{"vr":"LO","Value":["a\\u0000b "]}': "a\0b",
    '{"vr":"LO","Value":["\\tabc\\n"]}': "\tabc\n",
    '{"vr":"LO","Value":["\\u00A0abc"]}': "\u00a0abc",
    '{"vr":"LO","Value":["M\\u00fcller \\u0026 S\\u00F6hne"]}': "Müller & Söhne",
    '{"vr":"LO","Value":["\\ud83d\\ude00"]}': "\U0001f600",
    '{"vr":"LO","Value":["Müller"]}': "Müller",
    '{"vr":"LO","Value":["a\\\\b"]}': "a\\b",
    '{"vr":"IS","Value":["12"]}': "12",
    '{"vr":"IS","Value":["InvalidNumber"]}': "InvalidNumber",
    '{"vr":"IS","Value":[12]}': "12",
    '{"vr":"IS","Value":[null,12]}': None,
    '{"vr":"DS","Value":[1.0]}': "1.0",
    '{"vr":"DS","Value":[ 1E5 ,2]}': "1E5",
    '{"vr":"DS","Value":[-0]}': "-0",
    '{"vr":"DS","Value":[0.12345678901234567]}': "0.12345678901234567",
    '{"vr":"UV","Value":[123456789012345678901234567890]}': "123456789012345678901234567890",
    '{"vr":"FD","Value":[1e999]}': "1e999",
    '{"vr":"FL","Value":["NaN"]}': "NaN",
    '{"vr":"FD","Value":["-Infinity",1]}': "-Infinity",
    '{"vr":"LO","Value":[true]}': None,
    '{"vr":"LO","Value":[false]}': None,
    '{"vr":"SQ","Value":[{}]}': None,
    '{"vr":"SQ","Value":[{"00080100":{"vr":"SH","Value":["x"]}}]}': None,
    '{"vr":"LO","Value":[["abc"]]}': None,
    '{"vr":"PN","Value":[{"Alphabetic":"abc"}]}': None,
    '{"vr":"OB","InlineBinary":"YWJj"}': None,
    '{"vr":"OB","BulkDataURI":"http://host/bulk"}': None,
    '{"Value":["no vr"]}': "no vr",
    '{"vr":"ZZ","Value":["odd vr"]}': "odd vr",
    '{"vr":null,"Value":["null vr"]}': "null vr",
    '{"Value":["Value before vr"],"vr":"LO"}': "Value before vr",
    '{"vr":"LO","value":["lower case"]}': None,
}

NAME_CASES = {
    '{"vr":"PN","Value":[{"Alphabetic":"Doe^John"}]}': "Doe^John",
    '{"vr":"PN","Value":[{"Alphabetic":"Doe^John^^^"}]}': "Doe^John^^^",
    '{"vr":"PN","Value":[{"Alphabetic":" Doe^John\\u0000"}]}': "Doe^John",
    '{"vr":"PN","Value":[{"Alphabetic":"Yamada^Tarou","Ideographic":"\\u5c71\\u7530","Phonetic":""}]}': "Yamada^Tarou",
    '{"vr":"PN","Value":[{"Ideographic":"\\u5c71\\u7530^\\u592a\\u90ce"}]}': None,
    '{"vr":"PN","Value":[{"Alphabetic":null,"Phonetic":"x"}]}': None,
    '{"vr":"PN","Value":[{"Alphabetic":""}]}': None,
    '{"vr":"PN","Value":[{"Alphabetic":["Doe"]}]}': None,
    '{"vr":"PN","Value":[{"Alphabetic":{"Alphabetic":"Doe"}}]}': None,
    '{"vr":"PN","Value":[{"Alphabetic":true}]}': None,
    '{"vr":"PN","Value":[{"alphabetic":"Doe"}]}': None,
    '{"vr":"PN","Value":[{}]}': None,
    '{"vr":"PN","Value":[null]}': None,
    '{"vr":"PN","Value":[null,{"Alphabetic":"Second"}]}': None,
    '{"vr":"PN","Value":[["Doe"]]}': None,
    '{"vr":"PN","Value":["Plain^String "]}': "Plain^String",
    '{"vr":"PN","Value":[42]}': "42",
}

DATE_CASES = {
    '{"vr":"DA","Value":["20200922"]}': date(2020, 9, 22),
    '{"vr":"DA","Value":["20200229 "]}': date(2020, 2, 29),
    '{"vr":"DA","Value":["20200922\\u0000"]}': date(2020, 9, 22),
    '{"vr":"DA","Value":["00010101"]}': date(1, 1, 1),
    '{"vr":"DA","Value":["99991231"]}': date(9999, 12, 31),
    '{"vr":"DA","Value":[20200922]}': date(2020, 9, 22),
    '{"vr":"DA","Value":["20210229"]}': None,
    '{"vr":"DA","Value":["00000101"]}': None,
    '{"vr":"DA","Value":["20201301"]}': None,
    '{"vr":"DA","Value":["2020.09.22"]}': None,
    '{"vr":"DA","Value":["2020-09-22"]}': None,
    '{"vr":"DA","Value":["202009"]}': None,
    '{"vr":"DA","Value":["20200922-20200923"]}': None,
    '{"vr":"DA","Value":["+2020922"]}': None,
    '{"vr":"DA","Value":["\\uff12\\uff10\\uff12\\uff10\\uff10\\uff19\\uff12\\uff12"]}': None,
    '{"vr":"DA","Value":["2020 922"]}': None,
    '{"vr":"DA","Value":[2020092.2]}': None,
    '{"vr":"DA","Value":[""]}': None,
    '{"vr":"DA","Value":[null]}': None,
    '{"vr":"DA"}': None,
}


@pytest.mark.parametrize(("element", "expected"), TEXT_CASES.items())
def test_text_value(element: str, expected: str | None) -> None:
    """The first element alone, stripped; numbers verbatim; everything else null."""
    assert kept_value(TEXT, element.encode()) == expected


@pytest.mark.parametrize(("element", "expected"), NAME_CASES.items())
def test_person_name(element: str, expected: str | None) -> None:
    """A person's name is its Alphabetic group; a plain string is taken as it is."""
    assert kept_value(NAME, element.encode()) == expected


@pytest.mark.parametrize(("element", "expected"), DATE_CASES.items())
def test_date(element: str, expected: date | None) -> None:
    """Exactly eight ASCII digits that are a date of the calendar, else null."""
    assert kept_value(DATE, element.encode()) == expected


_ALL_CASES = [
    (a, e, v) for a, cases in ((TEXT, TEXT_CASES), (NAME, NAME_CASES), (DATE, DATE_CASES)) for e, v in cases.items()
]


@pytest.mark.parametrize(("attribute", "element", "expected"), _ALL_CASES)
def test_one_pass_gives_the_same(attribute: Attribute, element: str, expected: str | date | None) -> None:
    """The same values come out of the one pass over a whole document, an odd one beside good ones."""
    good = next(a for a in ATTRIBUTES if a.vr == "CS")
    document = f'{{"00080005":{{"vr":"CS","Value":[1]}},"{attribute.tag}":{element},"{good.tag}":{{"Value":["CT "]}}}}'
    values = {attribute: expected, good: "CT"}
    assert kept.kept_values(document.encode()) == (tuple(values.get(a) for a in ATTRIBUTES), None)


@pytest.mark.parametrize(
    "element", [b'{"Value":["\xff"]}', b'{"Value":["\\ud800"]}', b'{"Value":[', b"", b"[" * 100_000]
)
def test_what_is_no_json_is_null(element: bytes) -> None:
    """Bytes that are no UTF-8, no JSON, or nested without end give null, and no error."""
    assert kept_value(TEXT, element) is None


@pytest.mark.parametrize(
    ("padded", "expected"), [("1.2.3 ", "1.2.3"), ("\0 1.2\0", "1.2"), (" \0", None), ("", None), (None, None)]
)
def test_stripped(padded: str | None, expected: str | None) -> None:
    """Spaces and NULs go at both ends; nothing left is null, never the empty string."""
    assert stripped(padded) == expected


class Number(str):
    """The text of a JSON number."""


def oracle(metadata: bytes, attribute: Attribute) -> str | date | None:
    """Rule by rule, on a parsed document (design/architecture.md: Values of attributes)."""
    document = json.loads(metadata, parse_int=Number, parse_float=Number)
    element = document.get(attribute.tag)
    if not isinstance(element, dict) or not isinstance(element.get("Value"), list) or not element["Value"]:
        return None
    first: Any = element["Value"][0]
    if attribute.vr == "PN" and isinstance(first, dict):
        first = first.get("Alphabetic")
    text = without_padding(first) if isinstance(first, str) else ""
    if attribute.vr != "DA":
        return text or None
    return date_of(text)


def without_padding(text: str) -> str:
    while text and text[0] in " \0":
        text = text[1:]
    while text and text[-1] in " \0":
        text = text[:-1]
    return str(text)


def date_of(text: str) -> date | None:
    if len(text) != 8 or any(digit not in "0123456789" for digit in text):
        return None
    try:
        return datetime.strptime(text, "%Y%m%d").date()  # noqa: DTZ007 a date has no zone
    except ValueError:
        return None


_SPACE = st.sampled_from(["", " ", "\n", "\t ", "\r\n"])
_CHARACTERS = st.characters(exclude_categories=["Cs"])
_STRINGS = st.one_of(
    st.text(_CHARACTERS, max_size=8),
    st.text(" \0ab", max_size=6),
    st.from_regex(r"[0-9]{8}[ \0]?", fullmatch=True),
    st.dates().map(lambda day: day.isoformat().replace("-", "")),
)
_STRING_TEXTS = st.builds(lambda text, ascii_only: json.dumps(text, ensure_ascii=ascii_only), _STRINGS, st.booleans())
_NUMBER_TEXTS = st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
_WORDS = st.sampled_from(["null", "true", "false", "20200922", "{}", "[]"])


def _array(parts: list[str], space: str) -> str:
    return f"[{space}" + f"{space},{space}".join(parts) + f"{space}]"


def _object(members: list[tuple[str, str]], space: str) -> str:
    return f"{{{space}" + f"{space},".join(f"{json.dumps(k)}{space}:{space}{v}" for k, v in members) + f"{space}}}"


def _objects(keys: list[str], values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    members = st.lists(st.tuples(st.sampled_from(keys), values), max_size=3)
    return st.builds(_object, members, _SPACE)


_ANY = st.recursive(
    _STRING_TEXTS | _NUMBER_TEXTS | _WORDS,
    lambda inner: (
        st.builds(_array, st.lists(inner, max_size=3), _SPACE) | _objects(["Value", "vr", "Alphabetic"], inner)
    ),
    max_leaves=6,
)
_NAMES = _objects(["Alphabetic", "Ideographic", "Phonetic"], _STRING_TEXTS | _WORDS)
_VALUES = st.builds(_array, st.lists(_STRING_TEXTS | _NUMBER_TEXTS | _NAMES | _ANY, max_size=3), _SPACE)
_USUAL = st.builds(lambda value, space: _object([("vr", '"LO"'), ("Value", value)], space), _VALUES, _SPACE)
_ELEMENTS = st.one_of(_USUAL, _USUAL, _objects(["vr", "Value"], _VALUES | _ANY), _ANY)
_MEMBERS = st.tuples(*(st.tuples(st.just(attribute.tag), _ELEMENTS) for attribute in ATTRIBUTES))
_MORE = st.lists(st.tuples(st.sampled_from(["00100020", "00080018", "00091001"]), _ELEMENTS), max_size=2)
METADATA = st.builds(lambda kept, more, space: _object([*kept, *more], space), _MEMBERS, _MORE, _SPACE)


@settings(max_examples=examples(500), deadline=None)
@given(METADATA)
@example('{"00100020":{"Value":["a"]},"00100020":{"Value":["b"]}}')
@example('{"00100010":{"Value":[{"Alphabetic":"a"}],"Value":[{"Alphabetic":1.50}]}}')
def test_values_of_any_metadata_are_those_of_the_oracle(metadata: str) -> None:
    """Whatever object the metadata is, each kept attribute has the value that the rules give, read one by one."""
    expected = tuple(oracle(metadata.encode(), attribute) for attribute in ATTRIBUTES)
    assert kept.kept_values(metadata.encode()) == (expected, None)
