"""WADO-RS over HTTP: files as stored, metadata with ETags (design/service-protocol.md: WADO-RS)."""

from __future__ import annotations

from email import message_from_bytes
from email.policy import HTTP

import pytest

ANY_SYNTAX = {"accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
JSON = {"accept": "application/dicom+json"}


def parts(answer):
    """The parts of a multipart answer."""
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    message = message_from_bytes(head + answer.content, policy=HTTP)
    assert message.is_multipart()
    return [(part.get_content_type(), part.get_payload(decode=True)) for part in message.iter_parts()]


@pytest.fixture
def study(api, dicom, uid):
    """Two series with two and one instances."""
    study, series = uid(), uid()
    files = [dicom(study=study, series=series), dicom(study=study, series=series), dicom(study=study)]
    assert api.store(*files).status_code == 200
    return files


def test_files_come_back_as_they_were_stored(api, dicom):
    """transfer-syntax=* gives the same bytes; only the preamble is zeroed."""
    file = dicom({"00091001": ("UN", b"\1\2\3\4"), "7FE00010": ("OW", b"\5\6")}, preamble=b"II*\0" * 32)
    assert api.store(file).status_code == 200
    answer = api.get(file.path, headers={"accept": "application/dicom; transfer-syntax=*"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/dicom"
    assert answer.content == bytes(128) + file.content[128:]


def test_a_study_and_a_series_come_as_multipart(api, study):
    """Every instance is one part of type application/dicom."""
    answer = api.get(f"/studies/{study[0].study}", headers=ANY_SYNTAX)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith('multipart/related; type="application/dicom"')
    assert sorted(parts(answer)) == sorted(("application/dicom", file.content) for file in study)
    series = api.get(f"/studies/{study[0].study}/series/{study[0].series}", headers=ANY_SYNTAX)
    assert sorted(parts(series)) == sorted(("application/dicom", file.content) for file in study[:2])


@pytest.mark.parametrize("accept", ["*/*", 'multipart/related; type="application/dicom"'])
def test_a_study_is_retrieved_without_a_transfer_syntax(api, study, accept):
    """Third-party clients that name no transfer syntax get the files."""
    answer = api.get(f"/studies/{study[0].study}", headers={"accept": accept})
    assert answer.status_code == 200
    assert len(parts(answer)) == 3


def test_another_transfer_syntax_is_not_acceptable(make_emulator, dicom):
    """The emulator does not transcode: 406 for another syntax, 200 for the stored one."""
    _, api = make_emulator()
    file = dicom(syntax="1.2.840.10008.1.2")
    assert api.store(file).status_code == 202
    for syntax, status in {"1.2.840.10008.1.2": 200, "1.2.840.10008.1.2.4.90": 406, "x": 400}.items():
        answer = api.get(file.path, headers={"accept": f"application/dicom; transfer-syntax={syntax}"})
        assert answer.status_code == status


@pytest.mark.parametrize("accept", ["image/png", "application/dicom+json", 'multipart/related; type="image/jpeg"'])
def test_other_types_are_not_acceptable(api, study, accept):
    """406 for a study in a type that the service does not give."""
    assert api.get(f"/studies/{study[0].study}", headers={"accept": accept}).status_code == 406


@pytest.mark.parametrize("suffix", ["", "/metadata"])
def test_what_is_not_there_is_not_found(api, study, uid, suffix):
    """404 in plain text at each level, and 400 for a UID that is none."""
    one = study[0]
    paths = {
        f"/studies/{uid()}": "The specified study cannot be found.",
        f"/studies/{one.study}/series/{uid()}": "The specified series cannot be found.",
        f"/studies/{one.study}/series/{one.series}/instances/{uid()}": "The specified instance cannot be found.",
    }
    for path, text in paths.items():
        answer = api.get(path + suffix, headers={"accept": "*/*"})
        assert (answer.status_code, answer.text) == (404, text)
    assert api.get("/studies/a.b" + suffix, headers={"accept": "*/*"}).status_code == 400


def test_metadata_of_each_level(api, study):
    """An array with one dataset for each instance of the study, the series, the instance."""
    one = study[0]
    paths = [f"/studies/{one.study}", f"/studies/{one.study}/series/{one.series}", one.path]
    answers = [api.get(path + "/metadata", headers=JSON) for path in paths]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert answers[0].headers["content-type"].startswith("application/dicom+json")
    sops = [{dataset["00080018"]["Value"][0] for dataset in answer.json()} for answer in answers]
    assert sops == [{file.sop for file in study}, {file.sop for file in study[:2]}, {one.sop}]


@pytest.mark.parametrize("accept", ["application/dicom", "text/html", 'multipart/related; type="application/dicom"'])
def test_metadata_is_dicom_json_only(api, study, accept):
    """406 when Accept leaves DICOM JSON out."""
    assert api.get(study[0].path + "/metadata", headers={"accept": accept}).status_code == 406


def test_metadata_is_not_sent_again_while_its_etag_holds(api, study):
    """304 without a body for the ETag; a store and a delete below change it."""
    path = f"/studies/{study[0].study}/metadata"
    first = api.get(path, headers=JSON).headers["etag"]
    again = api.get(path, headers=JSON | {"if-none-match": first})
    assert (again.status_code, again.content) == (304, b"")
    assert api.get(path, headers=JSON | {"if-none-match": "0-0"}).status_code == 200
    assert api.delete(study[1].path).status_code == 204
    after_delete = api.get(path, headers=JSON | {"if-none-match": first})
    assert after_delete.status_code == 200
    assert after_delete.headers["etag"] != first
    assert api.store(study[1]).status_code == 200
    assert api.get(path, headers=JSON).headers["etag"] not in (first, after_delete.headers["etag"])


def test_the_form_of_the_etags(make_emulator, dicom, uid):
    """`{maxWatermark}-{count}` of a study, `{watermark}` of an instance, unquoted."""
    _, api = make_emulator()
    study = uid()
    files = [dicom(study=study) for _ in range(3)]
    assert api.store(*files).status_code == 200
    assert api.get(f"/studies/{study}/metadata", headers=JSON).headers["etag"] == "3-3"
    assert api.get(f"{files[1].path}/metadata", headers=JSON).headers["etag"] == "2"


def test_health_is_checked_without_a_version(api):
    """GET /health/check answers 200 with the overall status."""
    answer = api.http.get(f"{api.root}/health/check")
    assert answer.status_code == 200
    assert answer.json()["overallStatus"] == "Healthy"
