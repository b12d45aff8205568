"""The DICOM JSON that the service writes: its rules one by one, and pydicom's shipped files against pydicom.

design/service-protocol.md: DICOM JSON.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.valuerep import PersonName

from dicom_emulator.http.jsontext import Number, dumps, loads
from dicom_emulator.routes.stow import store_file
from dicom_emulator.state.service import DicomService

DATA = Path(pydicom.__file__).parent / "data"
CANDIDATES = sorted(path for path in DATA.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc", ".json"))
TEXT_VRS = {"AE", "AS", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}


def stored(content, version=1):
    """What became of a file in a service of its own, and its metadata as text."""
    service = DicomService()
    outcome = store_file(service, content, "Microsoft.Default", version)
    live = service.live_instances()
    return outcome, live[0].metadata.decode("ascii") if live else None


@pytest.fixture
def element(dicom):
    """The JSON text of one element, stored by API v1 (which leaves odd values where they are)."""

    def element(tag, given, **kwargs):
        outcome, metadata = stored(dicom({tag: given}, **kwargs).content)
        assert outcome.failure is None
        return dumps(loads(metadata)[tag]).decode()

    return element


@pytest.mark.parametrize(
    ("tag", "given", "text"),
    [
        ("00080050", None, '{"vr":"SH"}'),
        ("00080008", "ORIGINAL\\\\AXIAL", '{"vr":"CS","Value":["ORIGINAL",null,"AXIAL"]}'),
        ("00081030", "x ", '{"vr":"LO","Value":["x"]}'),
        ("00081030", b"x\0\0\0", '{"vr":"LO","Value":["x\\u0000\\u0000\\u0000"]}'),
        ("00204000", "a\\b", '{"vr":"LT","Value":["a\\\\b"]}'),
        ("00204000", "a\r\nb", '{"vr":"LT","Value":["a\\r\\nb"]}'),
        ("00081155", "1.2.3", '{"vr":"UI","Value":["1.2.3"]}'),
        ("00280009", ("AT", b"\x18\0\x63\x10\xfe\xff\x0a\xe0"), '{"vr":"AT","Value":["00181063","FFFEE00A"]}'),
        ("00200013", "12", '{"vr":"IS","Value":[12]}'),
        ("00200013", " +007 ", '{"vr":"IS","Value":[7]}'),
        ("00200013", "73.8", '{"vr":"IS","Value":["73.8"]}'),
        ("00200013", "2147483648", '{"vr":"IS","Value":["2147483648"]}'),
        ("00200013", "InvalidNumber", '{"vr":"IS","Value":["InvalidNumber"]}'),
        ("00200013", "1\\\\3", '{"vr":"IS","Value":[1,null,3]}'),
        ("00200013", "1\\x\\3", '{"vr":"IS","Value":["1","x","3"]}'),
        ("00101030", "1.0", '{"vr":"DS","Value":[1.0]}'),
        ("00101030", "70.50", '{"vr":"DS","Value":[70.50]}'),
        ("00101030", "+0012.5", '{"vr":"DS","Value":[12.5]}'),
        ("00101030", ".5", '{"vr":"DS","Value":[0.5]}'),
        ("00101030", "-.25", '{"vr":"DS","Value":[-0.25]}'),
        ("00101030", "1E2", '{"vr":"DS","Value":[100]}'),
        ("00101030", "1.5e-3", '{"vr":"DS","Value":[0.0015]}'),
        ("00101030", "1,5", '{"vr":"DS","Value":["1,5"]}'),
        ("00101030", "1.23456789012345678", '{"vr":"DS","Value":["1.23456789012345678"]}'),
        ("00280030", "0.5\\\\0.5", '{"vr":"DS","Value":[0.5,null,0.5]}'),
        ("00280010", 512, '{"vr":"US","Value":[512]}'),
        ("00280106", ("SS", struct.pack("<h", -3)), '{"vr":"SS","Value":[-3]}'),
        ("00189087", ("FD", struct.pack("<dd", 0.1, 1e20)), '{"vr":"FD","Value":[0.1,1E+20]}'),
        ("00720076", ("FL", struct.pack("<ff", 0.1, 2.0)), '{"vr":"FL","Value":[0.1,2]}'),
        ("00720076", ("FL", struct.pack("<f", float("nan"))), '{"vr":"FL","Value":["NaN"]}'),
        ("00081140", [], '{"vr":"SQ"}'),
        ("00081140", [{}], '{"vr":"SQ","Value":[{}]}'),
        ("00100010", "^^", '{"vr":"PN","Value":[{"Alphabetic":"^^"}]}'),
        ("00100010", "A^B==C", '{"vr":"PN","Value":[{"Alphabetic":"A^B","Phonetic":"C"}]}'),
        ("00100010", "=B", '{"vr":"PN","Value":[{"Ideographic":"B"}]}'),
        ("00080090", "A\\\\B", '{"vr":"PN","Value":[{"Alphabetic":"A"},null,{"Alphabetic":"B"}]}'),
    ],
)
def test_an_element_is_written_as_the_service_does(element, tag, given, text):
    """Each rule, down to the digits and escapes (design/service-protocol.md: DICOM JSON)."""
    assert element(tag, given) == text


@pytest.mark.parametrize("vr", ["FD", "FL"])
def test_infinities_fail_the_store(dicom, vr):
    """272 for a number that JSON cannot hold."""
    infinity = struct.pack({"FD": "<d", "FL": "<f"}[vr], float("inf"))
    outcome, _ = stored(dicom({"00720076": (vr, infinity)}).content)
    assert outcome.failure == 272


def test_bulk_data_is_left_out_at_every_level(dicom):
    """OB OD OF OL OV OW UN and group lengths are gone, nested ones too; other elements stay in tag order."""
    bulk = {
        f"00091{number:03X}": (vr, b"\1\2\3\4\5\6\7\0")
        for number, vr in enumerate(["OB", "OD", "OF", "OL", "OV", "OW", "UN"])
    }
    inner = {"00080050": "A"} | bulk
    file = dicom({"00081140": [inner], "00080000": ("UL", b"\0\0\0\0"), "00091100": ("LO", "kept")} | bulk)
    outcome, metadata = stored(file.content)
    assert outcome.failure is None
    dataset = json.loads(metadata)
    assert list(dataset) == sorted(dataset)
    assert dataset["00081140"]["Value"] == [{"00080050": {"vr": "SH", "Value": ["A"]}}]
    assert dataset["00091100"]["Value"] == ["kept"]
    assert {tag for tag in dataset if tag.startswith("0009")} == {"00091100"}
    assert not {"00080000", "00020010"} & dataset.keys()


def test_text_is_escaped_as_system_text_json_does():
    """Quotes, ampersands, plus, angle brackets, backtick, controls and non-ASCII are upper-case escapes."""
    assert dumps("\"&'+<>`/é\u4e2d😀\x7f\x01\n\\") == (
        rb'"\u0022\u0026\u0027\u002B\u003C\u003E\u0060/\u00E9\u4E2D\uD83D\uDE00\u007F\u0001\n\\"'
    )
    assert dumps("\ud800") == rb'"\uFFFD"'
    assert dumps({"a": [1, 1.5, True, None, Number("1.0"), {}, []]}) == b'{"a":[1,1.5,true,null,1.0,{},[]]}'


def test_a_backslash_byte_inside_a_character_does_not_split_the_value(dicom):
    """In GB18030 the second byte of a character may be 5C; the name stays one."""
    content = b"\x81\\^A\\B^C"
    assert content.decode("gb18030") == "\u4e57^A\\B^C"
    outcome, metadata = stored(dicom({"00080005": "GB18030", "00100010": ("PN", content)}).content)
    assert outcome.failure is None
    names = json.loads(metadata)["00100010"]["Value"]
    assert names == [{"Alphabetic": "\u4e57^A"}, {"Alphabetic": "B^C"}]


def test_every_storable_file_of_pydicom_is_stored():
    """156 of pydicom 3.0.2's files are stored, each into a service of its own; the others lack attributes or DICM."""
    outcomes = Counter(stored(path.read_bytes(), version=2)[0].failure for path in CANDIDATES)
    assert outcomes == {None: 156, 43264: 32, 272: 13}


def storable():
    for path in CANDIDATES:
        outcome, metadata = stored(path.read_bytes())
        if outcome.failure is None:
            yield path, metadata


def test_texts_are_those_that_pydicom_decodes():
    """In every storable file each text value of the JSON is what pydicom reads, nested ones too."""
    compared = 0
    for path, metadata in storable():
        dataset = pydicom.dcmread(BytesIO(path.read_bytes()))
        compared += compare(dataset, json.loads(metadata), path.name)
    assert compared > 5000


def test_the_character_set_files_read_right():
    """Names of pydicom's character set files, literally."""
    names = {}
    for path in sorted((DATA / "charset_files").glob("*.dcm")):
        outcome, metadata = stored(path.read_bytes())
        if outcome.failure is None:
            names[path.stem] = json.loads(metadata)["00100010"]["Value"][0]
    assert len(names) == 15
    assert names["chrArab"] == {"Alphabetic": "قباني^لنزار"}
    assert names["chrFren"] == {"Alphabetic": "Buc^Jérôme"}
    assert names["chrGerm"] == {"Alphabetic": "Äneas^Rüdiger"}
    assert names["chrGreek"] == {"Alphabetic": "Διονυσιος"}
    assert names["chrH31"] == {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}
    assert names["chrH32"] == {"Alphabetic": "ﾔﾏﾀﾞ^ﾀﾛｳ", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}
    assert names["chrHbrw"] == {"Alphabetic": "שרון^דבורה"}
    assert names["chrI2"] == {"Alphabetic": "Hong^Gildong", "Ideographic": "洪^吉洞", "Phonetic": "홍^길동"}
    assert names["chrKoreanMulti"] == {"Alphabetic": "김희중"}
    assert names["chrRuss"] == {"Alphabetic": "Люкceмбypг"}  # noqa: RUF001
    assert names["chrX1"] == {"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小東"}
    assert names["chrX2"] == {"Alphabetic": "Wang^XiaoDong", "Ideographic": "王^小东"}


def compare(dataset, found, name):
    """Compares the texts of a pydicom data set with DICOM JSON; returns how many."""
    compared = 0
    for tag in found:
        member, wanted = found[tag], dataset[int(tag, 16)]
        if member["vr"] == "SQ":
            for item, json_item in zip(wanted.value, member.get("Value", []), strict=True):
                compared += compare(item, json_item, name)
        elif member["vr"] in TEXT_VRS and wanted.VR in TEXT_VRS:
            values = wanted.value if isinstance(wanted.value, pydicom.multival.MultiValue) else [wanted.value]
            expected = [plain(value) for value in values]
            actual = [plain(value) for value in member.get("Value", [None])]
            assert actual == expected, (name, tag)
            compared += 1
    return compared


def plain(value):
    """A text without padding at its end, a name as its groups; None when empty."""
    if isinstance(value, PersonName):
        groups = zip(("Alphabetic", "Ideographic", "Phonetic"), str(value).split("="), strict=False)
        value = {label: group.rstrip(" \0") for label, group in groups if group.strip()}
    if isinstance(value, dict):
        return {label: group.rstrip(" \0") for label, group in value.items()} or None
    return str(value).rstrip(" \0") or None if value is not None else None
