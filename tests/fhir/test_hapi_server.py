"""The server that the tier `make test-fhir` rests on: what it answers is what the tests of the output take as given."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.fhir.hapi import Hapi
from tests.fhir.hapi import hapi as started

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
DCM = "http://dicom.nema.org/resources/ontology/DCM"


def id_of(text: str) -> str:
    """An id of 64 hex digits, as the output computes them."""
    return sha256(text.encode()).hexdigest()


def patient(name: str, **elements: Any) -> Json:
    return {"resourceType": "Patient", "id": id_of(name), **elements}


def study(name: str, system: str, subject: Json) -> Json:
    """An ImagingStudy with one instance, its modality's code in this system."""
    modality = {"system": system, "code": "CT"}
    sop_class = {"system": "urn:ietf:rfc:3986", "code": "urn:oid:1.2.840.10008.5.1.4.1.1.2"}
    instance = {"uid": "1.2.3.1.1", "sopClass": sop_class, "number": 1}
    return {
        "resourceType": "ImagingStudy",
        "id": id_of(name),
        "meta": {"source": "https://dicom.example/v2"},
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:2.25.{int(id_of(name)[:8], 16)}"}],
        "status": "available",
        "modality": [modality],
        "subject": subject,
        "numberOfSeries": 1,
        "numberOfInstances": 1,
        "series": [{"uid": "1.2.3.1", "modality": modality, "numberOfInstances": 1, "instance": [instance]}],
    }


def put(client: httpx.Client, base_url: str, resource: Json, **headers: str) -> httpx.Response:
    return client.put(f"{base_url}/{resource['resourceType']}/{resource['id']}", json=resource, headers=headers)


def test_it_is_a_server_of_r4_with_transactions_and_batches(hapi: Hapi, client: httpx.Client) -> None:
    """`GET /metadata`, which a doctor asks for first."""
    capability = client.get(f"{hapi.base_url}/metadata").raise_for_status().json()
    assert capability["resourceType"] == "CapabilityStatement"
    assert (capability["fhirVersion"], capability["software"]["version"]) == ("4.0.1", "8.8.0")
    (rest,) = capability["rest"]
    assert {"transaction"} <= {one["code"] for one in rest["interaction"]}
    assert {"ImagingStudy", "Endpoint", "Patient", "Observation"} <= {one["type"] for one in rest["resource"]}


def test_a_put_by_an_id_of_ours_creates_and_an_equal_one_changes_nothing(hapi: Hapi, client: httpx.Client) -> None:
    """201, then 200 with the same version; another content makes the next."""
    resource = patient("put", gender="female")
    assert len(resource["id"]) == 64
    answers = [put(client, hapi.base_url, resource) for _ in range(2)]
    answers.append(put(client, hapi.base_url, {**resource, "gender": "male"}))
    assert [(one.status_code, one.headers["ETag"]) for one in answers] == [
        (201, 'W/"1"'),
        (200, 'W/"1"'),
        (200, 'W/"2"'),
    ]


def test_one_bad_entry_of_a_batch_leaves_the_others(hapi: Hapi, client: httpx.Client) -> None:
    """Each entry stands alone, with a status of its own."""
    resources = [
        patient("batch 1"), patient("batch 2", managingOrganization={"reference": "Organization/unknown"}),
        patient("batch 3"),
    ]  # fmt: skip
    entries = [{"resource": one, "request": {"method": "PUT", "url": f"Patient/{one['id']}"}} for one in resources]
    answer = client.post(hapi.base_url, json={"resourceType": "Bundle", "type": "batch", "entry": entries})
    statuses = [one["response"]["status"][:3] for one in answer.raise_for_status().json()["entry"]]
    assert statuses == ["201", "400", "201"]
    found = [client.get(f"{hapi.base_url}/Patient/{one['id']}").status_code for one in resources]
    assert found == [200, 404, 200]


def test_if_match_guards_a_version(hapi: Hapi, client: httpx.Client) -> None:
    """A wrong one is 409 here (412 at Azure), the right one is taken."""
    resource = patient("match")
    assert put(client, hapi.base_url, resource).status_code == 201
    wrong = put(client, hapi.base_url, {**resource, "gender": "male"}, **{"If-Match": 'W/"7"'})
    right = put(client, hapi.base_url, {**resource, "gender": "male"}, **{"If-Match": 'W/"1"'})
    assert (wrong.status_code, right.status_code, right.headers["ETag"]) == (409, 200, 'W/"2"')


def test_what_is_deleted_is_gone_and_can_come_back(hapi: Hapi, client: httpx.Client) -> None:
    """DELETE, then 410, then 201 of a PUT; a second DELETE is no error."""
    resource = patient("delete")
    address = f"{hapi.base_url}/Patient/{resource['id']}"
    assert put(client, hapi.base_url, resource).status_code == 201
    assert [client.delete(address).status_code for _ in range(2)] == [200, 200]
    assert client.get(address).status_code == 410
    assert put(client, hapi.base_url, resource).status_code == 201
    assert client.get(address).json()["meta"]["versionId"] == "3"


def test_a_study_names_its_patient_by_identifier_alone(hapi: Hapi, client: httpx.Client) -> None:
    """A logical reference needs no Patient; the study is found by its UID, and `meta.source` is as it was sent."""
    subject = {"type": "Patient", "identifier": {"system": "https://hospital.example/patients", "value": "7"}}
    resource = study("logical", DCM, subject)
    assert put(client, hapi.base_url, resource).status_code == 201
    token = "urn:dicom:uid|" + resource["identifier"][0]["value"]
    found = client.get(f"{hapi.base_url}/ImagingStudy", params={"identifier": token}).raise_for_status().json()
    (entry,) = found["entry"]
    assert entry["resource"]["subject"] == subject
    assert entry["resource"]["meta"]["source"] == "https://dicom.example/v2"
    literal = {**resource, "subject": {"reference": "Patient/unknown"}}
    assert put(client, hapi.base_url, literal).status_code == 400


def test_the_validating_server_refuses_what_is_not_valid(validating: Hapi, client: httpx.Client) -> None:
    """A modality whose system is `DCM`, as DICOMcast writes it, is 422; with the address of DCM it is taken."""
    subject = {"identifier": {"system": "https://hospital.example/patients", "value": "7"}}
    wrong = put(client, validating.base_url, study("wrong", "DCM", subject))
    assert wrong.status_code == 422
    assert wrong.json()["resourceType"] == "OperationOutcome"
    assert {one["severity"] for one in wrong.json()["issue"]} >= {"error"}
    assert put(client, validating.base_url, study("right", DCM, subject)).status_code == 201


def test_the_plain_server_takes_what_is_not_valid(hapi: Hapi, client: httpx.Client) -> None:
    """The broken twin of the test above: the validator is what refuses."""
    subject = {"identifier": {"system": "https://hospital.example/patients", "value": "7"}}
    assert put(client, hapi.base_url, study("not validated", "DCM", subject)).status_code == 201


def test_it_counts_requests_and_the_bytes_of_bodies(hapi: Hapi, client: httpx.Client) -> None:
    """As they go over the wire, so that each client is measured by the same."""
    before = hapi.counters()
    answer = put(client, hapi.base_url, patient("counted", address=[{"text": "x" * 1000}]))
    counted = hapi.counters() - before
    assert len(answer.request.content) > 1000
    assert (counted.requests, counted.received) == (1, len(answer.request.content))
    assert counted.sent == answer.num_bytes_downloaded > 0


@pytest.mark.usefixtures("installed")
def test_what_it_holds_is_kept_over_stop_and_kill(client: httpx.Client, tmp_path: Path) -> None:
    """At the same address; a kill loses nothing that was acknowledged."""
    resource = patient("kept")
    with started(tmp_path, keep=True) as server:
        base_url = server.base_url
        assert put(client, base_url, resource).status_code == 201
        server.restart()
        assert server.base_url == base_url
        assert put(client, base_url, {**resource, "gender": "other"}).headers["ETag"] == 'W/"2"'
        server.kill()
        with pytest.raises(httpx.TransportError):
            client.get(f"{base_url}/Patient/{resource['id']}")
        server.start()
        assert client.get(f"{base_url}/Patient/{resource['id']}").json()["gender"] == "other"


@pytest.mark.usefixtures("installed")
def test_it_ends_with_what_started_it(tmp_path: Path) -> None:
    """Also when that is killed: nobody else would end it."""
    words = [sys.executable, "-m", "tests.fhir.hapi"]
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            said = [process.stdout.readline() for _ in range(2)]
            address = urlsplit(said[1].split(" at ")[1].split(";")[0])
            place = (address.hostname, address.port)
            with socket.create_connection(place, timeout=60) as connection:
                process.send_signal(signal.SIGKILL)
                with suppress(ConnectionResetError):
                    assert connection.recv(1) == b""
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(place, timeout=60)
        finally:
            process.kill()
