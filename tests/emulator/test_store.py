"""STOW-RS over HTTP: what is taken, what is refused, and how the answer says so.

design/service-protocol.md: STOW-RS.
"""

from __future__ import annotations

import pytest

MULTIPART = 'multipart/related; type="application/dicom"; boundary=b'


def part(content, headers="Content-Type: application/dicom\r\n"):
    return b"--b\r\n" + headers.encode() + b"\r\n" + content + b"\r\n"


def codes(answer, sequence, tag):
    """The values of one tag in the items of a sequence of the answer."""
    return [item.get(tag, {}).get("Value", [None])[0] for item in answer.json().get(sequence, {}).get("Value", [])]


def comments(item):
    """The error comments of an item."""
    return [one["00000902"]["Value"][0] for one in item["00741048"].get("Value", [])]


def test_a_stored_file_is_referenced_with_its_url(api, dicom):
    """200 with class, instance and RetrieveURL of the file, and an empty list of failed attributes."""
    file = dicom()
    answer = api.store(file)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/dicom+json")
    assert list(answer.json()) == ["00081199"]
    (item,) = answer.json()["00081199"]["Value"]
    assert item["00081150"] == {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]}
    assert item["00081155"] == {"vr": "UI", "Value": [file.sop]}
    assert item["00081190"]["vr"] == "UR"
    assert item["00081190"]["Value"][0].endswith(f"/v2{file.path}")
    assert item["00741048"] == {"vr": "SQ"}


def test_the_study_url_is_given_when_the_request_names_the_study(api, dicom):
    """RetrieveURL of the study appears with a study in the URL."""
    file = dicom()
    answer = api.store(file, study=file.study)
    assert answer.status_code == 200
    assert answer.json()["00081190"]["Value"][0].endswith(f"/v2/studies/{file.study}")


def test_a_single_file_is_taken_as_application_dicom(api, dicom):
    """A body of application/dicom is one file."""
    file = dicom()
    assert api.post(file.content, "application/dicom").status_code == 200
    assert len(api.rows(file.study)) == 1


def test_an_empty_single_body_stores_nothing(api):
    """409 with a processing failure and no UIDs."""
    answer = api.post(b"", "application/dicom")
    assert answer.status_code == 409
    assert codes(answer, "00081198", "00081197") == [272]
    assert codes(answer, "00081198", "00081155") == [None]


def test_multipart_without_parts_is_no_content(api):
    """204 for a multipart body that only ends."""
    assert api.post(b"--b--\r\n", MULTIPART).status_code == 204


def test_one_empty_part_and_one_good_one(api, dicom):
    """202: the good part is stored, the empty one failed."""
    file = dicom()
    answer = api.post(part(b"") + part(file.content) + b"--b--\r\n", MULTIPART)
    assert answer.status_code == 202
    assert codes(answer, "00081198", "00081197") == [272]
    assert codes(answer, "00081199", "00081155") == [file.sop]


def test_the_first_part_may_leave_out_its_type(api, dicom):
    """The type parameter stands in for the first part's Content-Type."""
    file = dicom()
    assert api.post(part(file.content, "") + b"--b--\r\n", MULTIPART).status_code == 200


@pytest.mark.parametrize(
    "media_type",
    [
        "text/plain",
        "application/json",
        "multipart/form-data; boundary=b",
        'multipart/related; type="application/dicom"',
        None,
    ],
)
def test_other_content_types_are_unsupported(api, dicom, media_type):
    """415 for another type, and for multipart without a boundary."""
    assert api.post(part(dicom().content) + b"--b--\r\n", media_type).status_code == 415


def test_a_part_of_another_type_is_unsupported(api, dicom):
    """415 when a part is not application/dicom."""
    body = part(dicom().content, "Content-Type: image/png\r\n") + b"--b--\r\n"
    assert api.post(body, MULTIPART).status_code == 415


def test_the_start_parameter_is_refused(api, dicom):
    """400 for multipart/related with start."""
    assert api.post(part(dicom().content) + b"--b--\r\n", MULTIPART + '; start="<a>"').status_code == 400


@pytest.mark.parametrize(
    "accept", ["*/*", "application/*", "application/json", "application/dicom+json", "text/html, */*;q=0.1"]
)
def test_an_accept_header_that_takes_dicom_json_passes(api, dicom, accept):
    """Ranges that include application/dicom+json, and application/json, are acceptable."""
    assert api.post(dicom().content, "application/dicom", accept=accept).status_code == 200


@pytest.mark.parametrize("accept", [None, "application/dicom", "text/plain"])
def test_other_accept_headers_are_not_acceptable(api, dicom, accept):
    """406 without Accept, or with one that leaves DICOM JSON out; nothing is stored."""
    file = dicom()
    assert api.post(file.content, "application/dicom", accept=accept).status_code == 406
    assert api.rows(file.study) == []


@pytest.mark.parametrize("study", ["abc", "1.2.", "1" * 65, "1.2-3"])
def test_an_invalid_study_in_the_url_is_refused(api, dicom, study):
    """400 for a study UID with letters, a dot at its end, or more than 64 characters."""
    assert api.store(dicom(), study=study).status_code == 400


def test_files_of_another_study_fail_validation(api, dicom, uid):
    """409 with 43264 for each file when all belong to another study."""
    answer = api.store(dicom(), dicom(), study=uid())
    assert answer.status_code == 409
    assert codes(answer, "00081198", "00081197") == [43264, 43264]
    assert "00081199" not in answer.json()
    assert "00081190" not in answer.json()


def test_one_of_two_files_of_another_study(api, dicom):
    """202 with both sequences and the study's URL."""
    mine, other = dicom(), dicom()
    answer = api.store(mine, other, study=mine.study)
    assert answer.status_code == 202
    assert codes(answer, "00081199", "00081155") == [mine.sop]
    assert codes(answer, "00081198", "00081155") == [other.sop]
    assert answer.json()["00081190"]["Value"][0].endswith(mine.study)


def test_a_duplicate_in_one_request(api, dicom):
    """The first is stored, the second exists already: 202."""
    file = dicom()
    answer = api.store(file, file)
    assert answer.status_code == 202
    assert codes(answer, "00081198", "00081197") == [45070]
    assert len(api.rows(file.study)) == 1


def test_a_file_stored_twice_exists_already(api, dicom):
    """409 with 45070 and no new row."""
    file = dicom()
    assert api.store(file).status_code == 200
    answer = api.store(file)
    assert answer.status_code == 409
    assert codes(answer, "00081198", "00081197") == [45070]
    assert len(api.rows(file.study)) == 1


def test_padding_does_not_make_another_uid(api, dicom):
    """A file whose UIDs are padded with spaces is a duplicate of the one without."""
    file = dicom()
    padded = dicom(study=file.study + " ", series=file.series + " ", sop=file.sop + " ")
    assert api.store(file).status_code == 200
    answer = api.store(padded)
    assert answer.status_code == 409
    assert codes(answer, "00081198", "00081197") == [45070]


@pytest.mark.parametrize("missing", ["00080016", "00080018", "0020000D", "0020000E", "00100020"])
@pytest.mark.parametrize("version", [1, 2])
def test_a_required_attribute_is_missing(api, dicom, missing, version):
    """409 with 43264 and a comment that names the attribute, in both versions."""
    answer = api.store(dicom({missing: ...}), version=version)
    assert answer.status_code == 409
    assert codes(answer, "00081198", "00081197") == [43264]
    tag = f"({missing[:4]},{missing[4:]})".lower()
    (item,) = answer.json()["00081198"]["Value"]
    assert comments(item) == [f"DICOM100: {tag} - The required tag '{tag}' is missing."]


@pytest.mark.parametrize("invalid", ["1.2.x", "1.2-3", "1." + "2" * 63])
def test_an_invalid_uid_in_the_file_is_refused(api, dicom, invalid):
    """409 with 43264 for a key UID with other characters or more than 64 of them."""
    answer = api.store(dicom(series=invalid))
    assert answer.status_code == 409
    assert codes(answer, "00081198", "00081197") == [43264]


def test_a_uid_with_leading_zeros_is_stored_with_a_warning(api, dicom, uid):
    """The index takes leading zeros, full validation warns, and the UID stays in the metadata."""
    series = uid()[:40] + ".007"
    file = dicom(series=series)
    answer = api.store(file)
    assert answer.status_code == 202
    assert codes(answer, "00081199", "00081196") == [1]
    assert api.metadata(file)["0020000E"]["Value"] == [series]


def test_an_invalid_value_is_left_out_of_the_metadata(api, dicom):
    """v2: 202 with a comment; the attribute is gone from the metadata and stays in the file."""
    file = dicom({"00080020": "NotAValidDate"})
    answer = api.store(file)
    assert answer.status_code == 202
    (item,) = answer.json()["00081199"]["Value"]
    assert item["00081196"] == {"vr": "US", "Value": [1]}
    assert comments(item) == [
        'DICOM100: (0008,0020) - Content "NotAValidDate" does not validate VR DA: '
        "one of the date values does not match the pattern YYYYMMDD"
    ]
    assert "00080020" not in api.metadata(file)
    stored = api.get(file.path, headers={"accept": "application/dicom; transfer-syntax=*"})
    assert b"NotAValidDate" in stored.content


def test_v1_refuses_an_invalid_indexed_value(api, dicom):
    """v1: an invalid searchable attribute is 409 with 43264."""
    answer = api.store(dicom({"00080020": "NotAValidDate"}), version=1)
    assert answer.status_code == 409
    assert codes(answer, "00081198", "00081197") == [43264]


def test_v1_keeps_an_invalid_value_that_is_not_indexed(api, dicom):
    """v1 does not look at other attributes, and has no list of failed attributes."""
    file = dicom({"00080022": "NotAValidDate"})
    answer = api.store(file, version=1)
    assert answer.status_code == 200
    assert "00741048" not in answer.json()["00081199"]["Value"][0]
    assert api.metadata(file)["00080022"]["Value"] == ["NotAValidDate"]


def test_an_invalid_nested_value_takes_the_top_level_attribute_with_it(api, dicom):
    """Removal is by tag at the top level: the bad nested value stays, the good one above goes."""
    file = dicom({"00080020": "20240501", "00081140": [{"00080020": "bad"}]})
    assert api.store(file).status_code == 202
    metadata = api.metadata(file)
    assert "00080020" not in metadata
    assert metadata["00081140"]["Value"] == [{"00080020": {"vr": "DA", "Value": ["bad"]}}]


def test_an_empty_patient_id_is_taken_by_v2(api, dicom):
    """v2: 202 with DICOM100, and no PatientID in the metadata; v1: 409."""
    file = dicom({"00100020": None})
    answer = api.store(file)
    assert answer.status_code == 202
    (item,) = answer.json()["00081199"]["Value"]
    assert comments(item) == ["DICOM100: (0010,0020) - The required tag '(0010,0020)' is missing."]
    assert "00100020" not in api.metadata(file)
    assert api.store(dicom({"00100020": None}), version=1).status_code == 409


def test_values_padded_with_nuls_are_taken_as_they_are(api, dicom):
    """200 without a warning; the NUL is in the metadata."""
    file = dicom({"00080050": b"A1\0\0"})
    answer = api.store(file)
    assert answer.status_code == 200
    assert api.metadata(file)["00080050"]["Value"] == ["A1\0\0"]


def test_private_attributes_of_an_implicit_file_are_not_in_the_metadata(api, dicom):
    """Implicit VR: warning 45063; the private creator is there, its element (UN) is not."""
    private = {"00090010": ("LO", "ACME"), "00091001": ("LO", "secret")}
    file = dicom(private, syntax="1.2.840.10008.1.2")
    answer = api.store(file)
    assert answer.status_code == 202
    assert codes(answer, "00081199", "00081196") == [45063]
    metadata = api.metadata(file)
    assert metadata["00090010"] == {"vr": "LO", "Value": ["ACME"]}
    assert "00091001" not in metadata
    explicit = dicom(private)
    assert api.store(explicit).status_code == 200
    assert api.metadata(explicit)["00091001"] == {"vr": "LO", "Value": ["secret"]}


def test_several_values_of_an_indexed_attribute_are_told_in_a_header(api, dicom):
    """200 with a Warning header 299."""
    answer = api.store(dicom({"00080050": "A1\\A2"}))
    assert answer.status_code == 200
    assert answer.headers["warning"].startswith("299 ")


def test_bytes_that_are_no_dicom_file_fail(api):
    """409 with 272 for other bytes, and for a data set without preamble."""
    answer = api.store(b"no DICOM here", b"\x08\0\x16\0UI\2\x001\0")
    assert answer.status_code == 409
    assert codes(answer, "00081198", "00081197") == [272, 272]


def test_a_body_beyond_the_limit_is_too_large(make_emulator, dicom):
    """413 for more bytes than the service takes; nothing is stored."""
    emulator, api = make_emulator(max_body_bytes=1000)
    assert api.store(dicom({"00081030": "x" * 64, "00204000": "y" * 1000})).status_code == 413
    assert emulator.service.live_instances() == []


def test_an_unfinished_store_is_pending(make_emulator, dicom):
    """409 with 45071 for a key that another store has reserved; deleting it writes no row."""
    emulator, api = make_emulator()
    file = dicom()
    emulator.service.reserve(("Microsoft.Default", file.study, file.series, file.sop))
    answer = api.store(file)
    assert answer.status_code == 409
    assert codes(answer, "00081198", "00081197") == [45071]
    assert api.delete(f"/studies/{file.study}").status_code == 204
    assert api.feed().json() == []


def test_a_lake_that_takes_no_files_is_a_failed_dependency(make_emulator, dicom):
    """424, and no row."""

    class FullLake:
        def write(self, *_):
            raise OSError("no space")

        read = delete = write

    _, api = make_emulator(lake=FullLake())
    assert api.store(dicom()).status_code == 424
    assert api.feed().json() == []
    assert api.http.get(f"{api.root}/health/check").status_code == 503
