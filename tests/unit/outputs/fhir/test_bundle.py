"""Batch bundles: which entries go together, the bytes of one, and what an answer says of each entry."""

from __future__ import annotations

import json

import pytest

from dicom_etl.core.errors import ProtocolError
from dicom_etl.outputs.fhir.bundle import Entry, Outcome, bundles, encode, outcomes
from dicom_etl.outputs.fhir.issues import ISSUE_TYPES, issue_code
from dicom_etl.remote.http.retry import RetryableError
from support.fhir_double import CANARY

BASE = "https://fhir.example/base/"
# Spaces, an order and a number that no encoder would choose.
BODY = b'{"resourceType" : "ImagingStudy","id":"a", "n":1.50}'


def puts(*ids: str, size: int = 10) -> list[Entry]:
    return [Entry("PUT", "ImagingStudy", one, b"x" * size) for one in ids]


def cut(entries: list[Entry], most_entries: int = 100, most_bytes: int = 4_000_000) -> list[str]:
    """The ids of each bundle, as one text each."""
    return ["".join(entry.id for entry in bundle) for bundle in bundles(entries, most_entries, most_bytes)]


def test_bundles_hold_as_many_entries_as_they_may() -> None:
    """In their order; none of no entries."""
    assert cut(puts(*"abcdefg"), most_entries=3) == ["abc", "def", "g"]
    assert cut([]) == []


def test_bundles_are_no_longer_than_they_may_be() -> None:
    """By the bytes that are sent; an entry that is larger than a bundle stands alone."""
    entries = [*puts("a", "b", size=1000), *puts("c", size=9000), *puts("d", "e", "f", size=1000)]
    assert cut(entries, most_bytes=3000) == ["ab", "c", "de", "f"]
    assert all(len(encode(one, BASE)) <= 3000 for one in bundles(puts(*"abcdef", size=900), 100, 3000))


def test_no_bundle_holds_a_resource_twice() -> None:
    """Also not to put it and to delete it; another kind with the same id is another resource."""
    assert cut([*puts("a", "b"), Entry("DELETE", "ImagingStudy", "a"), Entry("DELETE", "Patient", "a")]) == ["ab", "aa"]
    searches = [Entry("GET", "Patient", "", search=f"identifier={number}") for number in (1, 2, 1)]
    assert [len(bundle) for bundle in bundles(searches, 100)] == [2, 1]


def test_entries_are_taken_as_they_are_needed() -> None:
    """The first bundle is there when one entry more than it holds was read."""
    read: list[str] = []
    source = (read.append(entry.id) or entry for entry in puts(*"abcdefghij"))
    assert len(next(bundles(source, 3))) == 3
    assert read == list("abcd")


def test_a_bundle_is_what_r4_describes_with_bodies_byte_by_byte() -> None:
    """Method, address, entity tag, and the resource as it was given, with its whole address."""
    entries = [
        Entry("PUT", "ImagingStudy", "a", BODY, 'W/"3"'),
        Entry("DELETE", "Patient", "b"),
        Entry("GET", "Patient", "", search="identifier=x%7Cy"),
    ]
    content = encode(entries, BASE)
    assert BODY in content
    assert json.loads(content) == {
        "resourceType": "Bundle",
        "type": "batch",
        "entry": [
            {
                "fullUrl": "https://fhir.example/base/ImagingStudy/a",
                "resource": json.loads(BODY),
                "request": {"method": "PUT", "url": "ImagingStudy/a", "ifMatch": 'W/"3"'},
            },
            {"request": {"method": "DELETE", "url": "Patient/b"}},
            {"request": {"method": "GET", "url": "Patient?identifier=x%7Cy"}},
        ],
    }


@pytest.mark.parametrize("tag", ["3", 'W/"3"'])
def test_an_entity_tag_can_be_sent_back(tag: str) -> None:
    """HAPI gives the bare number in the answer to a batch, and takes it only as a tag."""
    (answered,) = outcomes(response({"response": {"status": "200", "etag": tag}}), puts("a"))
    assert answered.etag == 'W/"3"'


def response(*entries: object, **more: object) -> bytes:
    return json.dumps({"resourceType": "Bundle", "type": "batch-response", "entry": entries} | more).encode()


def outcome(code: object) -> dict[str, object]:
    issue = {"severity": "error", "code": code, "diagnostics": CANARY, "details": {"text": CANARY}}
    return {"resourceType": "OperationOutcome", "issue": [issue]}


def test_an_answer_is_read_by_position() -> None:
    """Status with or without words, entity tag, issue code from the response or the resource; a body only of a GET."""
    entries = [*puts("a", "b", "c", "d"), Entry("GET", "Patient", "p"), Entry("DELETE", "Patient", "q")]
    body = response(
        {"response": {"status": "201 Created", "etag": 'W/"1"'}, "resource": {"id": "a"}},
        {"response": {"status": "422", "outcome": outcome("code-invalid")}},
        {"response": {"status": "400 Bad Request"}, "resource": outcome("structure")},
        {"response": {"status": "500", "outcome": outcome(CANARY)}},
        {"response": {"status": "200"}, "resource": {"id": "p"}},
        {"response": {"status": "404 Not Found", "outcome": outcome("not-found")}},
    )
    answered = outcomes(body, entries, 5.0)
    assert answered == [
        Outcome(201, None, None, 'W/"1"', 5.0),
        Outcome(422, "code-invalid", None, None, 5.0),
        Outcome(400, "structure", None, None, 5.0),
        Outcome(500, None, None, None, 5.0),
        Outcome(200, None, {"id": "p"}, None, 5.0),
        Outcome(404, "not-found", None, None, 5.0),
    ]
    assert [one.accepted(entry) for one, entry in zip(answered, entries, strict=True)] == [
        True, False, False, False, True, True,
    ]  # fmt: skip
    assert not Outcome(404, None).accepted(entries[0])


@pytest.mark.parametrize(
    "body",
    [
        response({"response": {"status": "200"}}),
        response(*[{"response": {"status": "200"}}] * 3),
        response({"response": {"status": "200"}}, {}),
        response({"response": {"status": "200"}}, {"response": {"status": "fine"}}),
        response({"response": {"status": "200"}}, {"response": {"status": 200}}),
        response(*[{"response": {"status": "200"}}] * 2, type="searchset"),
        json.dumps(outcome("invalid")).encode(),
        b"[]",
    ],
)
def test_another_answer_is_an_error(body: bytes) -> None:
    """Fewer or more entries, one without a status, and what is no batch-response: never given to another entry."""
    with pytest.raises(ProtocolError) as caught:
        outcomes(body, puts("a", "b"))
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("body", [response({"response": {"status": "200"}})[:-5], b"<html>", b"\xff", b""])
def test_half_an_answer_is_asked_for_again(body: bytes) -> None:
    """What is no JSON may be whole the next time."""
    with pytest.raises(RetryableError):
        outcomes(body, puts("a"))


def test_only_codes_of_fhir_are_kept() -> None:
    """31 codes of IssueType; any other text might be a patient's."""
    assert len(ISSUE_TYPES) == 31
    assert issue_code(json.dumps(outcome("too-long")).encode()) == "too-long"
    others = [outcome(CANARY), outcome(7), outcome(None), {"issue": []}, {"issue": "x"}, {}, [], "x"]
    assert [issue_code(json.dumps(one).encode()) for one in others] == [None] * len(others)
    assert [issue_code(body) for body in (b"", b"<html>", b"\xff")] == [None] * 3
