"""PS3.16 Annex L as data, against pydicom's copy of the codes and meanings."""

from __future__ import annotations

from collections import defaultdict

from pydicom.sr._concepts_dict import concepts

from dicom_etl.outputs.fhir.body_part import body_parts, body_site

SCT = "http://snomed.info/sct"


def meanings() -> dict[str, dict[str, set[int]]]:
    """The context groups of each meaning of each SNOMED CT code in pydicom's dictionary."""
    found: dict[str, dict[str, set[int]]] = defaultdict(dict)
    for codes in concepts["SCT"].values():
        for code, (meaning, groups) in codes.items():
            if groups:
                found[code][meaning] = set(groups)
    return found


def a_way_in(text: str) -> bool:
    """CID 4 has the way of an endoscope or catheter beside the organ, with the same code."""
    return text.lower().startswith(("endo", "intra-"))


def test_the_table_has_the_terms_of_annex_l_that_have_a_code() -> None:
    """322 terms, five of a fetus without one; 273 with a code of CID 4."""
    rows = body_parts()
    assert len(rows) == 317
    assert sum(display is not None for _, display in rows.values()) == 273
    assert all(code.isdecimal() and term == term.upper().replace(" ", "") for term, (code, _) in rows.items())


def test_the_displays_are_pydicoms() -> None:
    """The meaning of CID 4; where CID 4 has a way in alone, and the term is the organ, another group's."""
    theirs = meanings()
    checked = 0
    for term, (code, display) in body_parts().items():
        in_cid_4 = {meaning for meaning, groups in theirs[code].items() if 4 in groups}
        assert (display is not None) == bool(in_cid_4), term
        if display is not None:
            organ = {meaning for meaning in theirs[code] if not a_way_in(meaning)}
            takes_organ = all(map(a_way_in, in_cid_4)) and not a_way_in(term)
            assert display in (organ if takes_organ else in_cid_4), term
            checked += 1
    assert checked == 273


def test_most_terms_are_their_display_without_blanks() -> None:
    """So that no row has slipped; the others are abbreviations, of which each was read."""
    rows = {term: display for term, (_, display) in body_parts().items() if display}
    same = [term for term, display in rows.items() if display.upper().replace(" ", "").replace("-", "") == term]
    assert len(same) > 90


def test_a_term_is_found_whatever_its_case_and_blanks() -> None:
    assert body_site(" Chest Abdomen ") == {"system": SCT, "code": "416550000", "display": "Chest and Abdomen"}
    assert body_site("HEART") == {"system": SCT, "code": "80891009", "display": "Heart"}
    assert body_site("ENDOCARDIAC") == {"system": SCT, "code": "80891009", "display": "Endo-cardiac"}
    assert body_site("CHEST") == {"system": SCT, "code": "43799004", "display": "Chest cavity"}
    assert body_site("TIBIA") == {"system": SCT, "code": "12611008"}


def test_an_unknown_term_is_a_display_alone() -> None:
    assert body_site("BAUCH") == {"display": "BAUCH"}
    assert body_site("FETALARM") == {"display": "FETALARM"}
