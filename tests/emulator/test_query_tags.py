"""Extended query tags over HTTP: their life, what they find, and what a reindex says of values it cannot take.

design/service-protocol.md: Extended query tags.
"""

from __future__ import annotations

import json

import pytest

from dicom_emulator.state.uids import instance_key

JSON = {"accept": "application/dicom+json"}
TAGS = "/extendedquerytags"


class Tags:
    """Requests about tags to a service of the test's own."""

    def __init__(self, api, service):
        self.api, self.service = api, service

    def add(self, *entries, version=2):
        return self.api.http.post(self.api.url(TAGS, version), json=list(entries))

    def added(self, *entries):
        """The operation that has added them."""
        return self.api.finished(self.add(*entries))

    def get(self, path="", **query):
        return self.api.http.get(self.api.url(TAGS + path), params=query)

    def enable(self, path, status="Enabled"):
        return self.api.http.patch(self.api.url(f"{TAGS}/{path}"), json={"queryStatus": status})

    def delete(self, path):
        return self.api.http.delete(self.api.url(f"{TAGS}/{path}"))

    def found(self, path="/instances", **query):
        """SOP instance UIDs, or the lowest UIDs that the route gives; None for a refused search."""
        answer = self.api.get(path, params=query, headers=JSON)
        if answer.status_code == 400:
            return None
        assert answer.status_code in (200, 204), answer.text
        return sorted(one["00080018"]["Value"][0] for one in answer.json()) if answer.status_code == 200 else []


@pytest.fixture
def tags(make_emulator):
    emulator, api = make_emulator()
    return Tags(api, emulator.service)


def entry(path, level="Instance", **more):
    return {"path": path, "level": level} | more


def test_a_tag_is_added_by_a_reindex_and_then_searched_by(tags, dicom):
    """Before: 400. 202 with id, href and Location; then instances that were stored before and after match."""
    old, other, new = dicom({"00181030": "HEAD"}), dicom({"00181030": "KNEE"}), dicom({"00181030": "HEAD"})
    assert tags.api.store(old, other).status_code == 200
    assert tags.found(ProtocolName="HEAD") is None
    answer = tags.add(entry("ProtocolName"))
    assert answer.status_code == 202
    assert answer.headers["location"] == answer.json()["href"]
    assert answer.json()["href"].endswith(f"/v2/operations/{answer.json()['id']}")
    operation = tags.api.finished(answer)
    assert (operation["type"], operation["status"], operation["percentComplete"]) == ("reindex", "succeeded", 100)
    assert [address.rpartition("/v2")[2] for address in operation["resources"]] == ["/extendedquerytags/00181030"]
    assert tags.get("/ProtocolName").json() == {
        "status": "Ready", "level": "Instance", "queryStatus": "Enabled", "path": "00181030", "vr": "LO",
    }  # fmt: skip
    assert tags.api.store(new).status_code == 200
    assert tags.found(ProtocolName="HEAD") == sorted([old.sop, new.sop])
    assert tags.found(**{"00181030": "KNEE"}) == [other.sop]


def test_a_tag_is_adding_until_its_operation_is_done(make_emulator, dicom):
    """Adding names the operation and finds nothing yet (400); meanwhile no other is added (409), nor it deleted."""
    emulator, api = make_emulator(operation_polls=2)
    tags = Tags(api, emulator.service)
    file = dicom({"00101010": "035Y"})
    assert api.store(file).status_code == 200
    answer = tags.add(entry("PatientAge", "Study"))
    operation = answer.json()
    adding = tags.get("/00101010").json()
    assert (adding["status"], adding["operation"]["id"], adding["operation"]["href"]) == (
        "Adding", operation["id"], operation["href"],
    )  # fmt: skip
    assert tags.found(PatientAge="035Y") is None
    conflicts = [tags.add(entry("ProtocolName")), tags.delete("PatientAge")]
    text = f"There is already an active re-index operation with ID '{operation['id']}'."
    assert [(one.status_code, one.text) for one in conflicts] == [(409, text), (409, text)]
    polls = [api.http.get(operation["href"]).status_code for _ in range(3)]
    assert polls == [202, 202, 200]
    assert tags.get("/00101010").json()["status"] == "Ready"
    assert tags.found(PatientAge="035Y") == [file.sop]


def test_tags_are_listed_in_pages(tags):
    """In the order they were added; offset and limit as in the feed."""
    tags.added(entry("ProtocolName"), entry("PatientAge", "study", vr="as"))
    assert [(one["path"], one["level"], one["vr"]) for one in tags.get().json()] == [
        ("00181030", "Instance", "LO"), ("00101010", "Study", "AS"),
    ]  # fmt: skip
    assert [one["path"] for one in tags.get(limit=1, offset=1).json()] == ["00101010"]
    assert [tags.get(limit=limit).status_code for limit in (0, 1, 200, 201)] == [400, 200, 200, 400]


def test_both_versions_of_the_api_have_tags_and_partitions_do_not(make_emulator):
    """At the service's root, also where data partitions are on."""
    emulator, api = make_emulator(partitions=True)
    tags = Tags(api, emulator.service)
    assert tags.add(entry("ProtocolName"), version=1).status_code == 202
    assert len(api.http.get(api.url(TAGS, 2)).json()) == 1
    assert api.http.get(api.url("/partitions/p/extendedquerytags")).status_code == 404


def test_a_tag_is_deleted(tags):
    """204, then 404 for it and 400 for the search by it; it can be added once more."""
    tags.added(entry("ProtocolName"))
    assert tags.delete("00181030").status_code == 204
    missing = tags.delete("ProtocolName")
    assert (missing.status_code, missing.text) == (
        404, "The specified extended query tag with tag path ProtocolName cannot be found.",
    )  # fmt: skip
    assert tags.found(ProtocolName="HEAD") is None
    assert tags.add(entry("ProtocolName")).status_code == 202


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ([], "The extended query tag(s) is missing."),
        ([{"level": "Study"}], "The Dicom Tag Property Path must be specified"),
        ([entry("PatientAgge")], "The extended query tag 'PatientAgge' is invalid"),
        ([{"path": "PatientAge"}], "The level for extended query tag 'PatientAge' is missing."),
        ([entry("PatientAge", "Patient")], "Input Dicom Tag Level 'Patient' is invalid."),
        ([entry("00080090", "Study")], "The query tag '00080090' is already supported."),
        ([entry("ModalitiesInStudy", "Study")], "The query tag 'ModalitiesInStudy' is already supported."),
        ([entry("PatientAge", vr="LO")], "The VR code 'LO' is incorrectly specified for 'PatientAge'. The expected VR"),
        ([entry("PatientAge", vr="QQ")], "The VR code 'QQ' for tag 'PatientAge' is invalid."),
        ([entry("PatientWeight")], "The VR code 'DS' specified for tag 'PatientWeight' is not supported."),
        ([entry("RequestAttributesSequence")], "The VR code 'SQ' specified for tag"),
        ([entry("PatientAge", privateCreator="A")], "The private creator is not empty for standard tag 'PatientAge'."),
        ([entry("04011001", vr="SS")], "The private creator for private tag '04011001' is missing."),
        ([entry("04011001", privateCreator="A")], "The vr for tag '04011001' is missing."),
        ([entry("PatientAge"), entry("00101010")], "The extended query tag '00101010' has been specified before."),
    ],
)  # fmt: skip
def test_a_tag_that_cannot_be_is_a_bad_request(tags, wanted, text):
    """400 in the service's words, and none of the tags is added."""
    answer = tags.add(*wanted)
    assert answer.status_code == 400
    assert answer.text.startswith(text)
    assert tags.get().json() == []


def test_a_body_is_an_array_of_json(tags):
    """400 for what is no JSON or no array, 415 for another type; 400 for a path that is none."""
    address = tags.api.url(TAGS)
    kinds = {"content-type": "application/json"}
    assert tags.api.http.post(address, content=b"{", headers=kinds).status_code == 400
    assert tags.api.http.post(address, json=entry("PatientAge")).status_code == 400
    assert tags.api.http.post(address, content=json.dumps([entry("PatientAge")])).status_code == 415
    assert tags.get("/PatientAgge").status_code == 400
    assert tags.get("/PatientAge").status_code == 404
    tags.added(entry("PatientAge"))
    assert tags.enable("PatientAge", "Maybe").status_code == 400


def test_a_tag_exists_once_and_there_are_128(tags):
    """409 for one that is there, 400 for the one that is too many, and nothing of that request is added."""
    paths = [f"0009{0x1000 + number:04X}" for number in range(128)]
    tags.added(*(entry(path, vr="LO", privateCreator="ACME") for path in paths[:127]))
    again = tags.add(entry("PatientAge"), entry(paths[5], vr="LO", privateCreator="ACME"))
    assert (again.status_code, again.text) == (409, "One or more extended query tags already exist.")
    many = tags.add(entry("PatientAge"), entry("ProtocolName"))
    assert (many.status_code, many.text) == (400, "Extended query tags exceeds max allowed count '128'.")
    assert len(tags.get(limit=200).json()) == 127
    assert tags.add(entry("PatientAge")).status_code == 202
    assert tags.add(entry("ProtocolName")).status_code == 400


def test_the_first_value_is_indexed_and_nothing_is_not(tags, dicom):
    """Of several values the first; an empty element, an empty component and an absent one are found by nothing."""
    several, empty = dicom({"00181030": "HEAD\\NECK"}), dicom({"00181030": None})
    blank, absent = dicom({"00181030": "\\NECK"}), dicom()
    assert tags.api.store(several, empty, blank, absent).status_code == 200
    assert tags.added(entry("ProtocolName"))["status"] == "succeeded"
    assert tags.found(ProtocolName="HEAD") == [several.sop]
    assert tags.found(ProtocolName="NECK") == []
    assert "errors" not in tags.get("/ProtocolName").json()


def test_a_store_with_several_values_of_a_tag_says_so(tags, dicom):
    """As for the attributes that are always searchable: 200 with a Warning header."""
    tags.added(entry("ProtocolName"))
    assert tags.api.store(dicom({"00181030": "HEAD\\NECK"})).headers["warning"].startswith("299 ")
    assert "warning" not in tags.api.store(dicom({"00181030": "HEAD"})).headers


def test_a_value_that_the_index_cannot_take_is_an_error_and_disables_the_tag(tags, dicom):
    """Stored by v1, which keeps invalid attributes: the search is 400 until enabled, then a header names the tag."""
    good, bad = dicom({"00101010": "035Y"}), dicom({"00101010": "35"})
    assert tags.api.store(good, bad, version=1).status_code == 200
    assert tags.added(entry("PatientAge", "Study"))["status"] == "succeeded"
    tag = tags.get("/PatientAge").json()
    assert (tag["queryStatus"], tag["errors"]["count"]) == ("Disabled", 1)
    (error,) = tags.api.http.get(tag["errors"]["href"]).json()
    assert error["errorMessage"] == "Value length is not expected."
    assert (error["studyInstanceUid"], error["seriesInstanceUid"], error["sopInstanceUid"]) == (
        bad.study, bad.series, bad.sop,
    )  # fmt: skip
    refused = tags.api.get("/instances", params={"PatientAge": "035Y"}, headers=JSON)
    assert (refused.status_code, refused.text) == (400, "Query is disabled on specified attribute 'PatientAge'.")
    enabled = tags.enable("00101010")
    assert (enabled.status_code, enabled.json()["queryStatus"]) == (200, "Enabled")
    answers = [tags.api.get("/instances", params={"PatientAge": age}, headers=JSON) for age in ("035Y", "35")]
    assert [answer.status_code for answer in answers] == [200, 204]
    assert [answer.headers["erroneous-dicom-attributes"] for answer in answers] == ["PatientAge", "PatientAge"]
    other = tags.api.get("/instances", params={"PatientID": "P1"}, headers=JSON)
    assert "erroneous-dicom-attributes" not in other.headers


def test_v1_refuses_a_file_that_a_tag_cannot_index(tags, dicom):
    """Once the tag is there; v2 stores it with a warning and leaves the attribute out."""
    tags.added(entry("PatientAge", "Study"))
    bad = dicom({"00101010": "35"})
    assert tags.api.store(bad, version=1).status_code == 409
    assert tags.api.store(bad).status_code == 202
    assert tags.found(PatientAge="35") == []


def test_another_vr_than_the_tags_is_an_error(tags, dicom):
    """A private element with the creator of the tag, and another VR."""
    block = {"04010010": ("LO", "ACME"), "04011001": ("SS", b"\5\0")}
    right, wrong = dicom(block), dicom(block | {"04011001": ("LO", "5")})
    assert tags.api.store(right, wrong).status_code == 200
    tags.added(entry("04011001", vr="SS", privateCreator="ACME"))
    (error,) = tags.get("/04011001/errors").json()
    assert (error["sopInstanceUid"], error["errorMessage"]) == (wrong.sop, "The extended query tag VR is not expected.")


def test_errors_follow_deletes_and_updates(tags):
    """A deleted instance has no error left; an update that makes the value valid removes it, another does not."""
    bad, good = ({"00101010": {"vr": "AS", "Value": [age]}} for age in ("35", "035Y"))
    keys = [instance_key("1.2", "1.2.3", f"1.2.3.{number}") for number in range(3)]
    for key in keys:
        tags.service.create(key, bad)
    tags.added(entry("PatientAge"))
    assert [one["sopInstanceUid"] for one in tags.get("/PatientAge/errors").json()] == ["1.2.3.0", "1.2.3.1", "1.2.3.2"]
    tags.service.delete(*keys[0])
    tags.service.update(keys[1], good)
    tags.service.update(keys[2], bad | {"00100040": {"vr": "CS", "Value": ["O"]}})
    assert [one["sopInstanceUid"] for one in tags.get("/PatientAge/errors").json()] == ["1.2.3.2"]
    moved = keys[2]._replace(study="1.9")
    tags.service.change_uids([(keys[2], moved, bad, None)])
    assert [one["studyInstanceUid"] for one in tags.get("/PatientAge/errors").json()] == ["1.9"]
    tags.service.delete("Microsoft.Default", "1.9")
    assert tags.get("/PatientAge/errors").json() == []
    assert "errors" not in tags.get("/PatientAge").json()


def test_a_level_has_one_value_the_latest_that_is_not_null(tags, dicom, uid):
    """A study's tag is searched on all routes with studies; updates and deletes of its instances are followed."""
    study = uid()
    files = [dicom({"00101010": age}, study=study) for age in ("030Y", "031Y", None)]
    for file in files:
        assert tags.api.store(file).status_code == 200
    tags.added(entry("PatientAge", "Study"))
    assert len(tags.found(PatientAge="031Y")) == 3
    assert tags.found(PatientAge="030Y") == []
    assert tags.api.get("/studies", params={"PatientAge": "031Y"}, headers=JSON).status_code == 200
    assert tags.found(f"/studies/{study}/instances", PatientAge="031Y") is None
    answer = tags.api.bulk_update([study], {"00101010": {"vr": "AS", "Value": ["040Y"]}})
    assert tags.api.finished(answer)["status"] == "succeeded"
    assert (len(tags.found(PatientAge="040Y")), tags.found(PatientAge="031Y")) == (3, [])
    assert tags.api.delete(f"/studies/{study}").status_code == 204
    assert tags.found(PatientAge="040Y") == []


def test_a_tag_of_a_series_is_not_searched_by_on_studies(tags, dicom):
    """Each route has its levels."""
    file = dicom({"00180015": "KNEE"})
    assert tags.api.store(file).status_code == 200
    tags.added(entry("BodyPartExamined", "Series"))
    statuses = {
        path: tags.api.get(path, params={"BodyPartExamined": "KNEE"}, headers=JSON).status_code
        for path in ("/studies", "/series", "/instances", f"/studies/{file.study}/series")
    }
    assert statuses == {"/studies": 400, "/series": 200, "/instances": 200, f"/studies/{file.study}/series": 200}
    (series,) = tags.api.get("/series", params={"BodyPartExamined": "KNEE"}, headers=JSON).json()
    assert series["00180015"] == {"vr": "CS", "Value": ["KNEE"]}


def test_a_private_tag_is_found_in_whatever_block_it_is(tags, dicom):
    """By its creator; another creator's element with the same tag is another attribute."""
    first = dicom({"04010010": ("LO", "ACME"), "04011001": ("US", 7)})
    third = dicom(
        {"04010010": ("LO", "OTHER"), "04011001": ("US", 7), "04010012": ("LO", "ACME"), "04011201": ("US", 7)}
    )
    other = dicom({"04010010": ("LO", "OTHER"), "04011001": ("US", 7)})
    assert tags.api.store(first, third, other).status_code == 200
    tags.added(entry("04011001", vr="US", privateCreator="ACME"))
    assert tags.get("/04011001").json()["privateCreator"] == "ACME"
    assert tags.found(**{"04011001": "7"}) == sorted([first.sop, third.sop])
    assert tags.found(**{"04011001": "8"}) == []


@pytest.mark.parametrize(
    ("path", "stored", "matching", "others", "refused"),
    [
        ("AcquisitionDate", "20240501", ["20240501", "20240430-20240502", "-20240501"], ["20240502"], ["2024"]),
        ("AcquisitionTime", "101530.5", ["101530.5", "10-11", "-1016"], ["10", "101530"], ["25x", "-", "11-10"]),
        ("AcquisitionDateTime", "20240501101530", ["20240501101530", "2024-2025", "202405-"], ["20240501"], ["x", "1"]),
        ("SeriesNumber", "7", ["7", "07", "+7"], ["70"], ["seven", "7.5"]),
        ("StationName", "SCANNER 1", ["SCANNER 1"], ["SCANNER"], [""]),
        ("PhysiciansOfRecord", "Müller^Eva", ["muller^eva", "Müller^Eva"], ["Müller"], []),
        ("FrameOfReferenceUID", "1.2.3", ["1.2.3"], ["1.2.3.4"], []),
    ],
)  # fmt: skip
def test_how_values_of_a_vr_match(tags, dicom, path, stored, matching, others, refused):
    """Ranges of dates and times, numbers by their value, names without case and accents; 400 for no such value."""
    file = dicom({"00080005": "ISO_IR 192", _tag(path): stored})
    assert tags.api.store(file).status_code == 200
    tags.added(entry(path))
    assert [tags.found(**{path: value}) for value in matching] == [[file.sop]] * len(matching)
    assert [tags.found(**{path: value}) for value in others] == [[]] * len(others)
    assert [tags.found(**{path: value}) for value in refused] == [None] * len(refused)


@pytest.mark.parametrize(("vr", "value"), [("FD", 0.5), ("FL", 1.25), ("SL", -3), ("UL", 3)])
def test_binary_numbers_match_by_their_value(tags, vr, value):
    """A dataset of an event; texts are no numbers."""
    tags.service.create(instance_key("1.2", "1.2.3", "1.2.3.4"), {"00189073": {"vr": vr, "Value": [value]}})
    tags.service.create(instance_key("1.2", "1.2.3", "1.2.3.5"), {})
    private = {"04010010": {"vr": "LO", "Value": ["ACME"]}, "04011001": {"vr": vr, "Value": [value]}}
    tags.service.create(instance_key("1.2", "1.2.3", "1.2.3.6"), private)
    tags.added(entry("04011001", vr=vr, privateCreator="ACME"))
    assert tags.found(**{"04011001": str(value)}) == ["1.2.3.6"]
    assert tags.found(**{"04011001": str(value + 1)}) == []
    assert tags.found(**{"04011001": "x"}) is None


def test_metadata_that_is_no_dicom_json_stops_no_reindex(tags):
    """An event may have any bytes as metadata."""
    tags.service.create(instance_key("1.2", "1.2.3", "1.2.3.4"), b"no JSON")
    tags.service.create(instance_key("1.2", "1.2.3", "1.2.3.5"), b'{"00181030": null}')
    assert tags.added(entry("ProtocolName"))["status"] == "succeeded"


def test_a_reader_may_look_at_tags_and_not_change_them(make_emulator):
    """403 to a reader's POST, PATCH and DELETE."""
    emulator, api = make_emulator(tokens={"r": "reader"})
    api.http.headers["authorization"] = "Bearer r"
    tags = Tags(api, emulator.service)
    assert tags.get().status_code == 200
    refused = [tags.add(entry("ProtocolName")), tags.enable("ProtocolName"), tags.delete("ProtocolName")]
    assert [answer.status_code for answer in refused] == [403, 403, 403]


def _tag(keyword):
    from pydicom.datadict import tag_for_keyword

    return f"{tag_for_keyword(keyword):08X}"
