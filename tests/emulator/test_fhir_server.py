"""The FHIR server of the emulator: what it keeps, refuses, finds and answers, and the faults that tests switch on."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from dicom_emulator.fhir.faults import EntryFault
from dicom_emulator.fhir.serve import FhirEmulator
from dicom_emulator.testing.faults import Fault
from support.fhir_double import CANARY, DCM, fhir_double, patient, study

JSON = {"content-type": "application/fhir+json"}
# Without certificates, which take longer to load than anything here.
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
OBSERVATION = {
    "resourceType": "Observation", "id": "o", "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "73569-6"}]},
    "valueQuantity": {"value": 1.5, "unit": "mGy", "system": "http://unitsofmeasure.org", "code": "mGy"},
}  # fmt: skip
ENDPOINT = {
    "resourceType": "Endpoint", "id": "e", "status": "active", "address": "https://host/v2",
    "connectionType": {"system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type",
                       "code": "dicom-wado-rs"},
    "payloadType": [{"coding": [{"system": DCM, "code": "113014"}]}], "payloadMimeType": ["application/dicom"],
}  # fmt: skip
SERIES = {
    "uid": "1.2.3", "number": 4, "modality": {"system": DCM, "code": "CT"}, "numberOfInstances": 1,
    "started": "2024-02-29T23:59:59.5+01:00", "bodySite": {"display": "CHEST"},
    "performer": [{"actor": {"display": "somebody"}}],
    "instance": [{"uid": "1.2.4", "number": 1, "sopClass": {"system": "urn:ietf:rfc:3986", "code": "urn:oid:1.2.840"}}],
}  # fmt: skip
WHOLE = study(
    "s",
    identifier=[{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}],
    meta={"source": "https://host", "tag": [{"system": "urn:dicom-etl:lake", "code": "a"}]},
    started="2024-02-29", numberOfSeries=1, numberOfInstances=1, description="Kopf", series=[SERIES],
    basedOn=[{"type": "ServiceRequest", "identifier": {"value": "A1"}}],
    subject={"identifier": {"system": "urn:oid:1.2", "value": "7"}},
)  # fmt: skip


@pytest.fixture
def double() -> Iterator[FhirEmulator]:
    with fhir_double() as running:
        yield running


def ask(method: str, address: str, **options: Any) -> httpx.Response:
    return httpx.request(method, address, verify=TLS, **options)


def put(double: FhirEmulator, resource: dict[str, Any], **headers: str) -> httpx.Response:
    address = f"{double.base_url}/{resource['resourceType']}/{resource['id']}"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return ask("PUT", address, content=json.dumps(resource), headers={**JSON, **named})


def get(double: FhirEmulator, path: str, **params: str) -> httpx.Response:
    return ask("GET", f"{double.base_url}/{path}", params=params or None)


def batch(double: FhirEmulator, *entries: dict[str, Any], **headers: str) -> httpx.Response:
    bundle = {"resourceType": "Bundle", "type": "batch", "entry": list(entries)}
    return ask("POST", double.base_url, content=json.dumps(bundle), headers={**JSON, **headers})


def entry(method: str, url: str, resource: dict[str, Any] | None = None, **request: str) -> dict[str, Any]:
    body = {} if resource is None else {"fullUrl": f"https://host/{url}", "resource": resource}
    return {**body, "request": {"method": method, "url": url, **request}}


def statuses(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [one["response"]["status"][:3] for one in answer.json()["entry"]]


def codes(answer: httpx.Response) -> list[str]:
    return [issue["code"] for issue in answer.json()["issue"]]


# --- what is kept


def test_a_resource_has_versions_and_can_be_deleted(double: FhirEmulator) -> None:
    """201, 200 with the same version when nothing changed, 200 with the next, 204, 410, and 201 again."""
    said = [put(double, study("a")), put(double, study("a")), put(double, study("a", description="x"))]
    assert [(one.status_code, one.headers["etag"]) for one in said] == [
        (201, 'W/"1"'), (200, 'W/"1"'), (200, 'W/"2"'),
    ]  # fmt: skip
    read = get(double, "ImagingStudy/a")
    assert (read.json()["meta"]["versionId"], read.json()["description"]) == ("2", "x")
    address = f"{double.base_url}/ImagingStudy/a"
    assert [ask("DELETE", address).status_code for _ in range(2)] == [204, 204]
    assert (get(double, "ImagingStudy/a").status_code, get(double, "ImagingStudy/b").status_code) == (410, 404)
    again = put(double, study("a"))
    assert (again.status_code, again.headers["etag"]) == (201, 'W/"4"')


@pytest.mark.parametrize("status", [412, 409])
def test_another_version_is_not_overwritten(status: int) -> None:
    """If-Match with another version, or for what is not there: 412, or HAPI's 409."""
    with fhir_double(mismatch_status=status) as double:
        assert put(double, study("a"), if_match='W/"1"').status_code == status
        assert put(double, study("a")).status_code == 201
        assert put(double, study("a", description="x"), if_match='W/"2"').status_code == status
        assert put(double, study("a", description="x"), if_match='W/"1"').status_code == 200


def test_what_others_refer_to_stays_where_that_is_wanted() -> None:
    """keep_referenced: 409 for a Patient of a study, until the study is gone."""
    with fhir_double(keep_referenced=True) as double:
        put(double, patient("p", (None, "1")))
        assert put(double, study("a", subject={"reference": "Patient/p"})).status_code == 201
        deleted = [ask("DELETE", f"{double.base_url}/{path}").status_code for path in ("Patient/p", "ImagingStudy/a")]
        assert deleted == [409, 204]
        assert ask("DELETE", f"{double.base_url}/Patient/p").status_code == 204


# --- what is refused


def test_resources_as_r4_has_them_are_taken(double: FhirEmulator) -> None:
    """One of each kind with all that the rules look at."""
    resources = [WHOLE, ENDPOINT, OBSERVATION, patient("p", ("urn:oid:1.2", "7"), gender="male", birthDate="1970-01")]
    answers = [put(double, one) for one in resources]
    assert [one.text for one in answers if one.status_code != 201] == []
    assert double.service.store.kinds() == {"ImagingStudy", "Endpoint", "Observation", "Patient"}


def series(**changes: Any) -> list[dict[str, Any]]:
    return [{name: value for name, value in {**SERIES, **changes}.items() if value is not None}]


@pytest.mark.parametrize(
    ("wrong", "status", "code"),
    [
        ({"status": None}, 422, "required"),
        ({"status": "fine"}, 422, "code-invalid"),
        ({"subject": None}, 422, "required"),
        ({"modality": [{"system": "DCM", "code": "CT"}]}, 422, "value"),
        ({"modality": {"system": DCM, "code": "CT"}}, 400, "structure"),
        ({"modality": [{"system": DCM, "code": " CT"}]}, 422, "value"),
        ({"identifier": [{"system": "HOSP", "value": "1"}]}, 422, "value"),
        ({"identifier": [{"system": "urn:oid:1.02", "value": "1"}]}, 422, "value"),
        ({"started": "2024-02-30"}, 422, "value"),
        ({"started": "2024-02-29T10:00:00"}, 422, "value"),
        ({"started": "2024-02-29T10:00:60Z"}, 422, "value"),
        ({"started": "20240229"}, 422, "value"),
        ({"numberOfSeries": -1}, 422, "value"),
        ({"numberOfSeries": "1"}, 422, "value"),
        ({"numberOfSeries": 2**31}, 422, "value"),
        ({"description": ""}, 422, "invariant"),
        ({"description": None, "note": []}, 422, "invariant"),
        ({"subject": {}}, 422, "invariant"),
        ({"description": " "}, 422, "value"),
        ({"colour": "red"}, 400, "structure"),
        ({"meta": {"tag": [{"system": "lake", "code": "a"}]}}, 422, "value"),
        ({"subject": {"reference": "Patient/unknown"}}, 400, "not-found"),
        ({"subject": {"reference": "Endpoint/unknown"}}, 400, "not-found"),
        ({"subject": {"reference": "unknown"}}, 422, "value"),
        ({"basedOn": [{"type": "Patient", "display": "x"}]}, 400, "structure"),
        ({"endpoint": {"reference": "Endpoint/unknown"}}, 400, "structure"),
        ({"extension": [{"url": "http://x", "valueString": "a", "valueCode": "b"}]}, 422, "invariant"),
        ({"series": series(uid=None)}, 422, "required"),
        ({"series": series(uid="1.2.3 ")}, 422, "value"),
        ({"series": series(uid="1" * 65)}, 422, "value"),
        ({"series": series(modality=None)}, 422, "required"),
        ({"series": series(number=-3)}, 422, "value"),
        ({"series": series(instance=[{"uid": "1.2"}])}, 422, "required"),
        ({"series": series(performer=[{}])}, 422, "invariant"),
        ({"id": "other"}, 400, "invalid"),
        ({"resourceType": "Endpoint"}, 400, "invalid"),
    ],
)
def test_a_study_that_r4_does_not_allow_is_refused(
    double: FhirEmulator, wrong: dict[str, Any], status: int, code: str
) -> None:
    """By structure (400) or by content (422), with the code of the problem; its diagnostics quote a patient."""
    resource = {name: value for name, value in {**WHOLE, **wrong}.items() if value is not None}
    answer = ask("PUT", f"{double.base_url}/ImagingStudy/s", content=json.dumps(resource), headers=JSON)
    assert (answer.status_code, codes(answer)[0]) == (status, code), answer.text
    assert CANARY in answer.json()["issue"][0]["diagnostics"]
    assert double.service.resources("ImagingStudy") == {}


@pytest.mark.parametrize(
    ("resource", "code"),
    [
        ({**ENDPOINT, "payloadType": None}, "required"),
        ({**ENDPOINT, "address": None}, "required"),
        ({**ENDPOINT, "connectionType": {"system": "x", "code": "y"}}, "value"),
        ({**OBSERVATION, "code": None}, "required"),
        ({**OBSERVATION, "valueString": "two values"}, "structure"),
        ({**OBSERVATION, "dataAbsentReason": {"text": "none"}}, "invariant"),
        ({**OBSERVATION, "component": [{"code": OBSERVATION["code"], "valueString": "x"}]}, "invariant"),
        ({**patient("p", (None, "1")), "gender": "M"}, "code-invalid"),
        ({**patient("p", (None, "1")), "birthDate": "1970-13-01"}, "value"),
    ],
)
def test_other_kinds_that_r4_does_not_allow_are_refused(
    double: FhirEmulator, resource: dict[str, Any], code: str
) -> None:
    """Required elements, one value of a choice, obs-6, obs-7, codes and dates."""
    answer = put(double, {name: value for name, value in resource.items() if value is not None})
    assert (answer.status_code in (400, 422), codes(answer)) == (True, [code]), answer.text


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [(b"{", "application/fhir+json", 400), (b'{"a": NaN}', "application/fhir+json", 400),
     (b"[]", "application/fhir+json", 400), (b"{}", "text/plain", 415)],
)  # fmt: skip
def test_what_is_no_json_of_fhir_is_refused(double: FhirEmulator, content: bytes, media_type: str, status: int) -> None:
    """Half an object, a number that is none, no object, and another media type."""
    address = f"{double.base_url}/Patient/p"
    assert ask("PUT", address, content=content, headers={"content-type": media_type}).status_code == status


# --- what is found


def test_a_token_is_found_by_system_and_value(double: FhirEmulator) -> None:
    """`v` in any system, `s|v`, `|v` in none, `s|` any value, alternatives, and escaped characters."""
    put(double, patient("a", ("urn:s", "1"), (None, "x|y")))
    put(double, patient("b", (None, "1")))
    put(double, patient("c", ("urn:t", "1"), ("urn:s", "2,3")))

    def found(token: str) -> list[str]:
        answer = get(double, "Patient", identifier=token).json()
        assert answer["total"] == len(answer.get("entry", []))
        return [one["resource"]["id"] for one in answer.get("entry", [])]

    expected = {
        "1": ["a", "b", "c"], "urn:s|1": ["a"], "|1": ["b"], "urn:s|": ["a", "c"], "|1,urn:t|1": ["b", "c"],
        "urn:s|2\\,3": ["c"], "|x\\|y": ["a"],
    }  # fmt: skip
    assert {token: found(token) for token in expected} == expected


def test_a_search_goes_on_by_its_links(double: FhirEmulator) -> None:
    """`_tag` with pages of two: five resources in three pages, each once, `_elements` only; deleted ones in none."""
    tag = {"tag": [{"system": "urn:dicom-etl:lake", "code": "a"}]}
    for number in range(5):
        put(double, study(f"s{number}", meta=tag))
    put(double, study("other"))
    put(double, study("gone", meta=tag))
    ask("DELETE", f"{double.base_url}/ImagingStudy/gone")
    pages = [get(double, "ImagingStudy", _tag="urn:dicom-etl:lake|a", _count="2", _elements="status").json()]
    while link := {one["relation"]: one["url"] for one in pages[-1]["link"]}.get("next"):
        pages.append(ask("GET", link).json())
    assert [[one["resource"]["id"] for one in page["entry"]] for page in pages] == [["s0", "s1"], ["s2", "s3"], ["s4"]]
    assert {name for page in pages for one in page["entry"] for name in one["resource"]} == {
        "resourceType", "id", "meta", "status",
    }  # fmt: skip
    assert get(double, "ImagingStudy", _summary="count").json()["total"] == 6
    assert get(double, "ImagingStudy", _id="s1,s3").json()["total"] == 2


def test_a_parameter_that_is_not_known_is_refused(double: FhirEmulator) -> None:
    """Ignored in silence, it would find too much."""
    answers = [
        get(double, "Patient", birthday="1970"),
        get(double, "Patient", _count="0"),
        get(double, "Patient", ct="?"),
    ]
    assert [one.status_code for one in answers] == [400, 400, 400]


# --- batches


def test_each_entry_of_a_batch_stands_alone(double: FhirEmulator) -> None:
    """In their order: a Patient, the study that refers to it, one refused, one read, a search, one deleted."""
    answer = batch(
        double,
        entry("PUT", "Patient/p", patient("p", ("urn:s", "1"))),
        entry("PUT", "ImagingStudy/a", study("a", subject={"reference": "Patient/p"})),
        entry("PUT", "ImagingStudy/b", study("b", status="fine")),
        entry("PUT", "ImagingStudy/a", study("a"), ifMatch='W/"7"'),
        entry("GET", "ImagingStudy/a"),
        entry("GET", "Patient?identifier=urn%3As%7C1"),
        entry("DELETE", "ImagingStudy/c"),
        prefer="return=minimal",
    )
    assert statuses(answer) == ["201", "201", "422", "412", "200", "200", "204"]
    entries = answer.json()["entry"]
    assert [sorted(one) for one in entries[:2]] == [["response"], ["response"]]
    assert entries[1]["response"]["etag"] == 'W/"1"'
    assert entries[2]["response"]["outcome"]["issue"][0]["code"] == "code-invalid"
    assert entries[4]["resource"]["subject"] == {"reference": "Patient/p"}
    assert entries[5]["resource"]["entry"][0]["resource"]["id"] == "p"
    assert [(one.method, one.path, one.entries) for one in double.service.requests] == [("POST", "", 7)]


def test_bundles_that_cannot_be_answered_are_refused() -> None:
    """Another type, none, too many entries (413), too many bytes (413), no request, conditional ones."""
    with fhir_double(most_entries=2, max_body_bytes=600) as double:
        read = entry("GET", "Patient/p")
        transaction = {"resourceType": "Bundle", "type": "transaction", "entry": [read]}
        posted = ask("POST", double.base_url, content=json.dumps(transaction), headers=JSON)
        answers = [
            posted, batch(double), batch(double, read, read, read), batch(double, entry("PUT", "x", {"a": "b" * 600})),
            batch(double, {"resource": {}}), batch(double, entry("PUT", "Patient/p", {}, ifNoneExist="identifier=1")),
        ]  # fmt: skip
        assert [one.status_code for one in answers] == [400, 400, 413, 413, 400, 400]


def test_a_relative_reference_needs_an_address_to_start_from(double: FhirEmulator) -> None:
    """As HAPI's validator has it: 422 for the bundle without fullUrl, and with one of another resource."""
    whole = entry("PUT", "ImagingStudy/a", study("a", subject={"reference": "Patient/p"}))
    without = {name: value for name, value in whole.items() if name != "fullUrl"}
    assert put(double, patient("p", (None, "1"))).status_code == 201
    answers = [batch(double, without), batch(double, whole | {"fullUrl": "https://host/ImagingStudy/b"})]
    assert [(one.status_code, codes(one)) for one in answers] == [(422, ["processing"])] * 2
    assert statuses(batch(double, whole)) == ["201"]


def test_a_server_may_refuse_all_for_one() -> None:
    """refuse_whole: 422 for the bundle when one entry is refused, and nothing of it is kept."""
    with fhir_double(refuse_whole=True) as double:
        good, bad = entry("PUT", "ImagingStudy/a", study("a")), entry("PUT", "ImagingStudy/b", study("b", status="x"))
        answer = batch(double, good, bad)
        assert (answer.status_code, codes(answer)) == (422, ["code-invalid"])
        assert statuses(batch(double, good)) == ["201"]


# --- faults, tokens, operations


def test_faults_of_whole_requests(double: FhirEmulator) -> None:
    """429 with Retry-After in seconds or as a date; a body that is cut, or another's page."""
    double.service.clock.freeze("2026-03-01T12:00:00Z")
    switch: Callable[[Fault], object] = double.service.faults.add
    switch(Fault(429, retry_after=7, times=1))
    switch(Fault(429, retry_after=7, retry_after_as_date=True, times=1))
    switch(Fault(rewrite=lambda _body: b"<html>", times=1))
    switch(Fault(cut_body=30, times=1))
    answers = [get(double, "metadata") for _ in range(3)]
    assert [one.headers.get("retry-after") for one in answers] == ["7", "Sun, 01 Mar 2026 12:00:07 GMT", None]
    assert [one.status_code for one in answers] == [429, 429, 200]
    assert answers[2].text == "<html>"
    with pytest.raises(httpx.RemoteProtocolError):
        get(double, "metadata")
    assert get(double, "metadata").json()["fhirVersion"] == "4.0.1"
    assert [one.status for one in double.service.requests] == [429, 429, 200, 200, 200]


def test_faults_of_single_entries(double: FhirEmulator) -> None:
    """By path and method, so often; `late` ones are done all the same; Retry-After is the whole answer's."""
    double.service.entry_faults += [
        EntryFault(429, path="ImagingStudy/a", times=1, retry_after=3),
        EntryFault(500, path="ImagingStudy/b", times=1, late=True),
    ]
    both = [entry("PUT", f"ImagingStudy/{name}", study(name)) for name in "ab"]
    first, second = batch(double, *both), batch(double, *both)
    assert (statuses(first), first.headers["retry-after"]) == (["429", "500"], "3")
    assert (statuses(second), "retry-after" in second.headers) == (["201", "200"], False)


def test_tokens_are_looked_at_for_each_entry() -> None:
    """None and a wrong one: 401. A reader may read, and its entries that write are 403."""
    with fhir_double(tokens={"w": "owner", "r": "reader"}) as double:
        read, write = entry("GET", "ImagingStudy"), entry("PUT", "ImagingStudy/a", study("a"))
        assert batch(double, read).status_code == 401
        assert batch(double, read, authorization="Bearer x").status_code == 401
        assert statuses(batch(double, read, write, authorization="Bearer r")) == ["200", "403"]
        assert statuses(batch(double, read, write, authorization="Bearer w")) == ["200", "201"]
        assert ask("DELETE", f"{double.base_url}/Patient/p", headers={"authorization": "Bearer r"}).status_code == 403
        assert get(double, "metadata").status_code == 200


def test_an_import_is_polled(double: FhirEmulator) -> None:
    """202 with where to ask, 202 with when, then 200; what asks otherwise is refused."""
    body = json.dumps({"resourceType": "Parameters", "parameter": []})
    address = f"{double.base_url}/$import"
    assert ask("POST", address, content=body, headers=JSON).status_code == 400
    begun = ask("POST", address, content=body, headers={**JSON, "prefer": "respond-async"})
    polled = [ask("GET", begun.headers["content-location"]) for _ in range(2)]
    assert [begun.status_code, *[one.status_code for one in polled]] == [202, 202, 200]
    assert polled[0].headers["retry-after"] == "1"


def test_a_resource_in_two_bundles_at_once_is_noted() -> None:
    """By its name, also when one of them only reads it; bundles one after the other are fine."""
    with fhir_double(meet=2) as double, httpx.Client(verify=TLS) as client:

        def send(_number: int) -> int:
            bundle = {"resourceType": "Bundle", "type": "batch", "entry": [entry("GET", "ImagingStudy/a")]}
            return client.post(double.base_url, content=json.dumps(bundle), headers=JSON).status_code

        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(send, range(2))) == [200, 200]
        assert double.service.most_in_flight == 2
        assert [one.partition("?")[0] for one in double.service.collisions] == ["ImagingStudy/a"]


def test_bundles_one_after_the_other_meet_nowhere(double: FhirEmulator) -> None:
    """The same resource twice, in its turn: nothing is noted."""
    for _ in range(2):
        assert statuses(batch(double, entry("GET", "ImagingStudy"))) == ["200"]
    assert (double.service.collisions, double.service.most_in_flight) == ([], 1)


def test_it_stops_answering_and_comes_back(double: FhirEmulator) -> None:
    """Within `refusing` connections are refused; the state stays."""
    put(double, study("a"))
    with double.refusing(), pytest.raises(httpx.ConnectError):
        get(double, "metadata")
    assert get(double, "ImagingStudy/a").status_code == 200
