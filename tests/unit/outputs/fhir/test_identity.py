"""Ids and digests of resources, the Endpoint, and whose study it is."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_etl.outputs.fhir.digest import canonical, digest
from dicom_etl.outputs.fhir.endpoint import endpoint
from dicom_etl.outputs.fhir.ids import resource_id
from dicom_etl.outputs.fhir.patient import identifier, logical_subject, patient
from support.fhir_facts import OPTIONS, one_instance
from support.fhir_types import problems

META = {"source": "https://hospital.example.org", "tag": [{"system": "urn:dicom-etl:lake", "code": "8d3f2c6a"}]}
V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"
MR = {"coding": [{"system": V2_0203, "code": "MR"}]}


def test_an_id_is_an_hmac_of_lengths_and_texts() -> None:
    """As Python's own hmac makes it of the message written by hand."""
    message = b"\0\0\0\x08Endpoint" + b"\0\0\0\x02\xc3\xa4" + b"\0\0\0\0"
    assert resource_id(b"key", "Endpoint", "ä", "") == hmac.new(b"key", message, hashlib.sha256).hexdigest()
    assert re.fullmatch("[0-9a-f]{64}", resource_id(b"key", "Endpoint"))


PARTS = st.lists(st.text(st.characters(codec=None, categories=None), max_size=3), max_size=3)


@given(PARTS, PARTS)
def test_different_parts_have_different_ids(one: list[str], other: list[str]) -> None:
    """NULs and half surrogate pairs among them: the parts cannot run into each other."""
    assert (resource_id(b"k", *["a", *one]) == resource_id(b"k", *["a", *other])) == (one == other)


def test_an_id_depends_on_the_key_and_the_kind() -> None:
    ids = [resource_id(key, kind, "1.2") for key in (b"a", b"b") for kind in ("Patient", "Endpoint")]
    assert len(set(ids)) == 4


BODY = {"b": 1, "a": {"d": "ä", "c": [True, None]}}


def expected_digest(body: dict[str, object], version: str) -> str:
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode() + b"\0" + version.encode()).hexdigest()


def test_a_digest_is_of_the_sorted_json_and_the_version_of_the_mapping() -> None:
    """By the standard library's JSON."""
    assert canonical(BODY) == '{"a":{"c":[true,null],"d":"ä"},"b":1}'.encode()
    assert digest(BODY) == expected_digest(BODY, "1")
    assert digest(dict(reversed(BODY.items()))) == digest(BODY)
    assert digest({**BODY, "b": 2}) != digest(BODY)


def test_a_digest_without_the_version_is_seen() -> None:
    """The broken twin: a new version of the mapping must change every digest."""
    without = hashlib.sha256(canonical(BODY)).hexdigest()
    assert without != expected_digest(BODY, "1")
    assert digest(BODY, 2) == expected_digest(BODY, "2") != digest(BODY)


def test_an_endpoint_is_one_for_a_service_and_a_partition() -> None:
    """Ids are apart by both; the address is the partition's."""
    found = endpoint("Microsoft.Default", OPTIONS)
    assert found.body == {
        "resourceType": "Endpoint",
        "id": "8f87bfb08b834683ab09d1a6cf968b9517b6b26e3c744fb8fbac226ff7b1f708",
        "meta": META,
        "status": "active",
        "connectionType": {
            "system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "dicom-wado-rs",
        },
        "payloadType": [{"coding": [
            {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "113014", "display": "Study"},
        ]}],
        "payloadMimeType": ["application/dicom"],
        "address": "https://hospital.example.org/v2",
    }  # fmt: skip
    assert (found.kind, found.id, found.left_out) == ("Endpoint", found.body["id"], {})
    north, other = endpoint("North wing", OPTIONS), endpoint("Microsoft.Default", replace(OPTIONS, source="https://b"))
    assert north.body["address"] == "https://hospital.example.org/v2/partitions/North%20wing"
    assert len({found.id, north.id, other.id}) == 3
    assert [problems(one.body) for one in (found, north, other)] == [[], [], []]


JO = {
    "PatientID": "P7", "IssuerOfPatientID": "HOSP", "PatientName": "Roe^Jo^^Dr.", "PatientSex": "F",
}  # fmt: skip


def test_a_patient_is_known_by_system_and_number() -> None:
    """Not by the partition, nor by the study: the number of one issuer is the same person in all of them."""
    study = one_instance(JO)
    found = patient(study, OPTIONS)
    assert found.body["identifier"] == [{"type": MR, "system": "urn:oid:1.2.3", "value": "P7"}]
    assert found.body["name"] == [{"family": "Roe", "given": ["Jo"], "prefix": ["Dr."]}]
    assert found.body["gender"] == "female"
    assert problems(found.body) == []
    assert (found.kind, found.id) == ("Patient", found.body["id"])
    same = [replace(study, partition="b"), replace(study, uid="9.9"), one_instance({**JO, "PatientName": "X"})]
    assert {patient(one, OPTIONS).id for one in same} == {found.id}
    others = [one_instance({**JO, "PatientID": "P8"}), one_instance({**JO, "IssuerOfPatientID": "OTHER"})]
    assert len({patient(one, OPTIONS).id for one in others} | {found.id}) == 3
    assert patient(study, replace(OPTIONS, source="https://b")).id != found.id


def test_a_number_without_a_system_is_another_person_in_another_partition_or_of_another_issuer() -> None:
    study = one_instance({"PatientID": "P7"})
    others = [replace(study, partition="b"), one_instance({"PatientID": "P7", "IssuerOfPatientID": "OTHER"})]
    assert len({patient(one, OPTIONS).id for one in (study, *others)}) == 3
    assert patient(replace(study, uid="9.9"), OPTIONS).id == patient(study, OPTIONS).id


def test_an_issuer_without_a_uri_is_as_none() -> None:
    assert identifier(one_instance({**JO, "IssuerOfPatientID": "OTHER"}), OPTIONS) == {"type": MR, "value": "P7"}
    site = replace(OPTIONS, default_system="urn:site")
    assert identifier(one_instance({"PatientID": "P7"}), site) == {"type": MR, "system": "urn:site", "value": "P7"}


def test_a_subject_is_an_identifier_or_a_name_or_unknown() -> None:
    """There is always one, since R4 requires it."""
    assert logical_subject(one_instance(JO), OPTIONS) == {
        "type": "Patient", "identifier": {"type": MR, "system": "urn:oid:1.2.3", "value": "P7"},
    }  # fmt: skip
    assert logical_subject(one_instance({"PatientName": "Roe^Jo"}), OPTIONS) == {"type": "Patient", "display": "Jo Roe"}
    for nobody in ({}, {"PatientID": "\x00"}, {"PatientName": "^^"}):
        assert logical_subject(one_instance(nobody), OPTIONS) == {"type": "Patient", "display": "Unknown"}


def test_a_study_without_patient_id_has_no_patient() -> None:
    nobody = one_instance({"PatientName": "Roe^Jo"})
    assert identifier(nobody, OPTIONS) is None
    with pytest.raises(ValueError, match=r"^a study without PatientID has no Patient$"):
        patient(nobody, OPTIONS)


def test_what_a_patient_cannot_hold_is_counted() -> None:
    odd = one_instance({"PatientID": "P7", "PatientSex": "X", "PatientName": "a^b^c^d^e^f"})
    assert patient(odd, OPTIONS).left_out == {"name": 1, "sex": 1}
