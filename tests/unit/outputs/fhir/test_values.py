"""FHIR's primitives from odd DICOM values: texts, times, names, codes."""

from __future__ import annotations

from datetime import date
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts

from dicom_etl.outputs.fhir.codes import LATERALITIES, SYSTEMS
from dicom_etl.outputs.fhir.modality import IN_R4
from dicom_etl.outputs.fhir.names import human_name, shown_name
from dicom_etl.outputs.fhir.reasons import LeftOut, Reason
from dicom_etl.outputs.fhir.times import date_time
from dicom_etl.outputs.fhir.values import code, id_of_uid, text, unsigned, urn_of_uid
from support.fhir_types import problems

BERLIN = ZoneInfo("Europe/Berlin")


def described(value: str) -> list[str]:
    """What is wrong with a text as the description of a study that is else valid."""
    return problems(
        {
            "resourceType": "ImagingStudy",
            "id": "a",
            "status": "available",
            "subject": {"display": "x"},
            "description": value,
        }
    )


@given(st.text(st.characters(codec=None, categories=None), max_size=20))
def test_any_text_becomes_a_fhir_string_or_none(value: str) -> None:
    """Surrogates and control characters among them; what is written encodes as UTF-8."""
    found = text(value, LeftOut())
    assert found is None or (described(found) == [] and found.encode("utf-8"))


@pytest.mark.parametrize("wrong", ["", " ", "a\x00", "\x1b[1m"])
def test_a_wrong_string_is_seen(wrong: str) -> None:
    """The broken twins of the check itself."""
    assert described(wrong) == ["ImagingStudy.description"]


def test_a_text_keeps_its_letters_and_line_breaks() -> None:
    left_out = LeftOut()
    assert text(" Müller\r\n山田 ", left_out) == "Müller\r\n山田"
    assert left_out == {}
    assert text("a\x85b\ud800", left_out) == "ab"
    assert left_out == {Reason.CHARACTERS: 1}


def test_a_code_has_single_spaces_alone() -> None:
    assert [code(value) for value in ("A", "A B", " A", "A  B", "A\tB", None)] == ["A", "A B", "A", None, "A\tB", None]


def test_uids_are_ids_and_uris_where_they_can_be() -> None:
    """Padding is no part of them."""
    left_out = LeftOut()
    assert [id_of_uid(uid, left_out) for uid in ("1.2\0", " 1.2 ", "1_2", "", None)] == ["1.2", "1.2", None, None, None]
    assert left_out == {Reason.UID: 3}
    assert [urn_of_uid(uid) for uid in ("1.2\0", "1..2", "1." * 40 + "1", None)] == ["urn:oid:1.2", None, None, None]


def test_unsigned_numbers_are_those_of_31_bits() -> None:
    left_out = LeftOut()
    assert [unsigned(number, left_out) for number in (0, 2**31 - 1, 2**31, -1, None)] == [
        0,
        2**31 - 1,
        None,
        None,
        None,
    ]
    assert left_out == {Reason.NUMBER: 2}


@pytest.mark.parametrize(
    ("time", "offset", "zone", "written", "counted"),
    [
        ("10:15:30.123456", "+0100", None, "2026-10-25T10:15:30.123456+01:00", {}),
        ("10:15:30.1", "-0330", BERLIN, "2026-10-25T10:15:30.1-03:30", {}),
        ("10:15:30", "+1400", None, "2026-10-25T10:15:30+14:00", {}),
        ("10:15:30", "-0000", None, "2026-10-25T10:15:30+00:00", {}),
        ("10:15:30", "+1401", None, "2026-10-25", {"offset": 1, "time-without-zone": 1}),
        ("10:15:30", "-1300", None, "2026-10-25", {"offset": 1, "time-without-zone": 1}),
        ("10:15:30", "+01:00", None, "2026-10-25", {"offset": 1, "time-without-zone": 1}),
        # Clocks go back at 03:00: the hour from two to three stands twice on them.
        ("01:59:59", None, BERLIN, "2026-10-25T01:59:59+02:00", {}),
        ("02:30", None, BERLIN, "2026-10-25T02:30:00+02:00", {}),
        ("03:00", None, BERLIN, "2026-10-25T03:00:00+01:00", {}),
        ("23:59:60", "+0000", None, "2026-10-25T23:59:59+00:00", {"leap-second": 1}),
        ("23:59:60.5", None, BERLIN, "2026-10-25T23:59:59+01:00", {"leap-second": 1}),
        ("10", "+0100", None, "2026-10-25", {"time-without-minutes": 1}),
        ("10:15", None, None, "2026-10-25", {"time-without-zone": 1}),
        (None, "+0100", BERLIN, "2026-10-25", {}),
    ],
)  # fmt: skip
def test_a_time_has_a_zone_or_is_no_part_of_the_date(
    time: str | None, offset: str | None, zone: ZoneInfo | None, written: str, counted: dict[str, int]
) -> None:
    left_out = LeftOut()
    assert date_time(date(2026, 10, 25), time, offset, zone, left_out) == written
    assert left_out == counted


def test_a_time_in_the_gap_of_spring_has_the_offset_before_it() -> None:
    assert date_time(date(2026, 3, 29), "02:30", None, BERLIN, LeftOut()) == "2026-03-29T02:30:00+01:00"


def test_local_mean_time_has_no_fhir_offset() -> None:
    """Berlin was 53 minutes and 28 seconds before Greenwich until 1893."""
    left_out = LeftOut()
    assert date_time(date(1890, 1, 1), "10:15", None, BERLIN, left_out) == "1890-01-01"
    assert left_out == {Reason.TIME_WITHOUT_ZONE: 1}


def test_a_time_without_a_date_is_nothing() -> None:
    left_out = LeftOut()
    assert date_time(None, "10:15", None, BERLIN, left_out) is None
    assert date_time(None, None, None, BERLIN, left_out) is None
    assert left_out == {Reason.TIME_WITHOUT_DATE: 1}


def test_a_name_has_the_parts_of_its_alphabetic_group() -> None:
    left_out = LeftOut()
    assert human_name("Adams^John Robert Quincy^^Rev.^B.A. M.Div.", left_out) == {
        "family": "Adams", "given": ["John", "Robert", "Quincy"], "prefix": ["Rev."], "suffix": ["B.A.", "M.Div."],
    }  # fmt: skip
    assert human_name("Yamada^Tarou=山田^太郎=やまだ^たろう", left_out) == {"family": "Yamada", "given": ["Tarou"]}
    assert shown_name("Adams^John^Q^Rev.^B.A.", left_out) == "Rev. John Q Adams B.A."
    assert [human_name(value, left_out) for value in (None, "", " ", "^^", "=山田")] == [None] * 5
    assert left_out == {}
    assert shown_name("a^b^c^d^e^f", left_out) == "d b c a e"
    assert left_out == {Reason.NAME: 1}


def test_lateralities_are_those_of_cid_244() -> None:
    """pydicom's copy of PS3.16 is the second source."""
    theirs = {
        code: meaning for name in cid_concepts[244]["SCT"] for code, (meaning, cids) in concepts["SCT"][name].items()
    }
    assert len(theirs) == 4
    assert dict(LATERALITIES.values()) == theirs


def test_the_modalities_of_r4_are_those_of_cid_33_without_the_newer_ones() -> None:
    """The codes that R4's copy of DCM lacks, as a validator of R4 said."""
    newer = {
        "ASMT", "CFM", "CTPROTOCOL", "DMS", "DOC", "EEG", "EMG", "EOG", "FID", "IOL", "M3D", "OPTBSV", "OPTENF", "PA",
        "PLAN", "POS", "RESP", "RWV", "STAIN", "TEXTUREMAP",
    }  # fmt: skip
    theirs = {
        code for name in cid_concepts[33]["DCM"] for code, (_, cids) in concepts["DCM"][name].items() if 33 in cids
    }
    assert (len(theirs), len(newer & theirs)) == (74, 20)
    assert theirs - newer == IN_R4


def test_coding_systems_are_absolute_uris() -> None:
    """A system such as ``DCM`` is an error of every validator."""
    assert {"DCM", "SCT", "SRT", "LN", "UCUM"} <= SYSTEMS.keys()
    assert [name for name, system in SYSTEMS.items() if ":" not in system or " " in system] == []
    assert [name for name in SYSTEMS if len(name) > 16] == []
