"""The server's own Patients by identifier: the right one, or none."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from dicom_emulator.fhir.faults import EntryFault
from dicom_emulator.fhir.serve import FhirEmulator
from dicom_emulator.testing.faults import Fault
from dicom_etl.core.errors import AccessDenied
from dicom_etl.outputs.fhir import find_patients
from dicom_etl.outputs.fhir.find_patients import Found, PatientKey, found_patients
from dicom_etl.outputs.fhir.server import FhirServer
from support.broken import Mutant, assert_caught
from support.fhir_double import CANARY, Clock, fhir_double, fhir_settings, patient, put_all

HOSPITAL = "urn:oid:1.2.3"
OURS = {"meta": {"tag": [{"system": "urn:dicom-etl:lake", "code": "another"}]}}


@pytest.fixture(autouse=True)
def _nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No identifier stands in a log."""
    caplog.set_level(logging.DEBUG)
    yield
    assert CANARY not in caplog.text


@pytest.fixture
def double() -> Iterator[FhirEmulator]:
    with fhir_double() as running:
        yield running


def found(double: FhirEmulator, *keys: PatientKey, options: tuple[str, ...] = ()) -> dict[PatientKey, Found]:
    clock = Clock()
    fhir = fhir_settings(double.base_url, *options)
    with FhirServer(fhir, sleep=clock.sleep, monotonic=clock.monotonic) as server:
        return found_patients(server, keys, fhir)


def key(value: str, system: str | None = HOSPITAL) -> PatientKey:
    return PatientKey(system, value)


def test_one_none_and_several(double: FhirEmulator) -> None:
    """By system and value, all in one request, and no identifier in an address."""
    put_all(
        double,
        patient("a", (HOSPITAL, "1")),
        patient("b", (HOSPITAL, "2"), ("urn:oid:9", "1")),
        patient("c", (HOSPITAL, "3")),
        patient("d", ("urn:oid:9", "7"), (HOSPITAL, "3")),
    )
    assert found(double, key("1"), key("2"), key("3"), key("4")) == {
        key("1"): Found("one", "a"), key("2"): Found("one", "b"), key("3"): Found("several"), key("4"): Found("none"),
    }  # fmt: skip
    assert [(one.method, one.path, one.entries) for one in double.service.requests] == [("POST", "", 4)]


def test_nobody_is_no_request(double: FhirEmulator) -> None:
    """Without identifiers nothing is asked."""
    assert found(double) == {}
    assert double.service.requests == []


def test_many_are_asked_in_bundles(double: FhirEmulator) -> None:
    """95 identifiers in bundles of fhir.bundle_entries."""
    put_all(double, *[patient(f"p{number}", (HOSPITAL, str(number))) for number in range(95)])
    keys = [key(str(number)) for number in range(95)]
    assert found(double, *keys) == {one: Found("one", f"p{one.value}") for one in keys}
    assert sorted(one.entries or 0 for one in double.service.requests) == [45, 50]


def test_without_a_system_only_identifiers_without_one_are_found(double: FhirEmulator) -> None:
    """The same number of a hospital may be another person."""
    put_all(double, patient("a", (HOSPITAL, "1")), patient("b", (None, "2")))
    assert found(double, key("1", None), key("2", None), key("2")) == {
        key("1", None): Found("none"), key("2", None): Found("one", "b"), key("2"): Found("none"),
    }  # fmt: skip


def test_any_text_is_found_as_it_is(double: FhirEmulator) -> None:
    """Characters that part values in a search or in an address, and letters of all alphabets."""
    values = ["a,b", "a|b", "a$b", "a\\b", "a\\,b|c", "a b", "a+b", "a&b=c", "a%2Cb", "a#b?c", "é山田", CANARY, "'\"<>"]
    put_all(double, *[patient(f"p{number}", (HOSPITAL, value)) for number, value in enumerate(values)])
    assert found(double, *map(key, values)) == {
        key(value): Found("one", f"p{number}") for number, value in enumerate(values)
    }


def check_ours_do_not_count(double: FhirEmulator) -> None:
    """What dicom-etl made is no Patient of the server's own."""
    put_all(double, patient("ours", (HOSPITAL, "1"), **OURS), patient("stub", (HOSPITAL, "2"), **OURS))
    put_all(double, patient("theirs", (HOSPITAL, "1")))
    answered = found(double, key("1"), key("2"))
    assert answered == {key("1"): Found("one", "theirs"), key("2"): Found("none")}, "one of ours counted"


def test_ours_do_not_count(double: FhirEmulator) -> None:
    """Of any lake: it may be withdrawn at any time."""
    check_ours_do_not_count(double)


def test_ours_that_count_are_noticed(double: FhirEmulator) -> None:
    """The broken twin: tags are not looked at."""
    original = find_patients._counts
    mutant = Mutant("ours do not count", check_ours_do_not_count, find_patients, "_counts",
                    lambda patient, key, _tag: original(patient, key, "another"), "one of ours counted")  # fmt: skip
    assert_caught(mutant, double)


def test_who_is_not_active_does_not_count(double: FhirEmulator) -> None:
    """active: false, and records that another one replaced; `replaces` and `refer` are links of living ones."""
    living = {"link": [{"other": {"reference": "Patient/old"}, "type": "replaces"}]}
    gone = {"link": [{"other": {"reference": "Patient/new"}, "type": "replaced-by"}]}
    put_all(
        double,
        patient("off", (HOSPITAL, "1"), active=False),
        patient("on", (HOSPITAL, "1"), active=True),
        patient("old", (HOSPITAL, "2"), **gone),
        patient("new", (HOSPITAL, "2"), **living),
        patient("deleted", (HOSPITAL, "3")),
    )
    double.service.store.delete("Patient", "deleted", None)
    assert found(double, key("1"), key("2"), key("3")) == {
        key("1"): Found("one", "on"), key("2"): Found("one", "new"), key("3"): Found("none"),
    }  # fmt: skip


def check_exactly() -> None:
    """A server that finds by the letters' value whatever the case and system: only what equals counts."""
    with fhir_double(loose_identifiers=True) as double:
        put_all(
            double,
            patient("lower", (HOSPITAL, "ab")),
            patient("upper", (HOSPITAL, "AB")),
            patient("else", ("urn:oid:9", "AB")),
        )
        answered = found(double, key("AB"), key("Ab"), key("ab", None))
        assert answered == {
            key("AB"): Found("one", "upper"), key("Ab"): Found("none"), key("ab", None): Found("none"),
        }, "another identifier counted"  # fmt: skip


def test_only_what_equals_counts() -> None:
    """Servers may match otherwise."""
    check_exactly()


def test_a_match_that_is_not_equal_is_noticed() -> None:
    """The broken twin: what the server found is believed."""
    mutant = Mutant("exact identifiers", check_exactly, find_patients, "_is", lambda *_: True,
                    "another identifier counted")  # fmt: skip
    assert_caught(mutant)


def test_a_long_list_of_candidates_is_read_further(double: FhirEmulator) -> None:
    """The right one stands behind twenty of ours; behind more than the server shows at once, nobody is chosen."""
    put_all(double, *[patient(f"a{number:03}", (HOSPITAL, "1"), **OURS) for number in range(20)])
    put_all(double, *[patient(f"b{number:03}", (HOSPITAL, "2"), **OURS) for number in range(60)])
    put_all(double, patient("theirs", (HOSPITAL, "1")), patient("z", (HOSPITAL, "2")))
    assert found(double, key("1"), key("2")) == {key("1"): Found("one", "theirs"), key("2"): Found("several")}
    assert [one.entries for one in double.service.requests] == [2, 2]


def test_an_identifier_that_the_server_refuses_is_left_out(double: FhirEmulator) -> None:
    """It is neither found nor not there, so that nobody makes a second Patient; the others are answered."""
    put_all(double, patient("a", (HOSPITAL, "1")))
    double.service.entry_faults.append(EntryFault(400, "invalid", method="GET", times=1))
    assert found(double, key("9"), key("1")) == {key("1"): Found("one", "a")}


def test_a_server_that_denies_access_is_77(double: FhirEmulator) -> None:
    """Nobody is said to be unknown."""
    double.service.faults.add(Fault(403))
    with pytest.raises(AccessDenied, match="FHIR Data Contributor"):
        found(double, key(CANARY))
