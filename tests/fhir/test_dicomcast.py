"""DICOMcast's algorithm against HAPI does what clinical.md 1.7 says it does, its defects included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, pairwise
from typing import Any

import httpx
import pytest

from bench.dicomcast import DicomCast, FeedEntry
from tests.fhir.hapi import Hapi

Json = dict[str, Any]
DICOM = "https://dicom.example/v1/"
_numbers = count(1)


def header(patient: str, **attributes: Any) -> Json:
    """DICOM JSON of a CT image without an offset from UTC; an attribute that is None is left out."""
    values = {
        "00080016": ("UI", "1.2.840.10008.5.1.4.1.1.2"), "00080020": ("DA", "20240501"), "00080030": ("TM", "101500"),
        "00080060": ("CS", "CT"), "00080061": ("CS", None), "00080201": ("SH", None), "00081030": ("LO", "CT thorax"),
        "00100010": ("PN", {"Alphabetic": "Roe^Jane"}), "00100020": ("LO", patient), "00100030": ("DA", "19610203"),
        "00100040": ("CS", "F"), "00200011": ("IS", 1), "00200013": ("IS", 1),
    }  # fmt: skip
    given = {tag: (vr, attributes.get(f"t{tag}", value)) for tag, (vr, value) in values.items()}
    return {tag: {"vr": vr, "Value": [value]} for tag, (vr, value) in given.items() if value is not None}


@pytest.fixture
def uid() -> str:
    """A study's UID, of its own in each test."""
    return f"1.2.826.0.1.{next(_numbers)}"


@pytest.fixture
def cast(hapi: Hapi) -> Iterator[Callable[[str], DicomCast]]:
    """Makes a DICOMcast whose patients have numbers of this system."""
    with httpx.Client(timeout=120) as client:
        yield lambda system: DicomCast(client, hapi.base_url, DICOM, system)


def entry(sequence: int, uid: str, image: int, content: Json | None, action: str = "Create") -> FeedEntry:
    state = "Deleted" if action == "Delete" else "Current"
    return FeedEntry(sequence, action, state, "p", uid, f"{uid}.1", f"{uid}.1.{image}", content)


def found(cast: DicomCast, kind: str, system: str, value: str) -> list[Json]:
    query = {"identifier": f"{system}|{value}"}
    answer = cast.client.get(f"{cast.fhir_url}/{kind}", params=query).raise_for_status().json()
    return [one["resource"] for one in answer.get("entry", [])]


def study(cast: DicomCast, uid: str) -> Json:
    assert cast.refused == []
    (one,) = found(cast, "ImagingStudy", "urn:dicom:uid", f"urn:oid:{uid}")
    return one


def test_each_image_reads_and_writes_the_whole_study(cast: Callable[[str], DicomCast], uid: str) -> None:
    """Four requests an image, and bodies that grow by an image each time; as many versions as images."""
    side = cast(f"urn:{uid}")
    sent = []
    for image in range(1, 6):
        before = replace(side.traffic)
        side.read([entry(image, uid, image, header("P"))])
        assert side.traffic.requests - before.requests == 4
        sent.append(side.traffic.sent - before.sent)
    steps = [after - before for before, after in pairwise(sent[1:])]
    assert len(study(side, uid)["series"][0]["instance"]) == 5
    assert study(side, uid)["meta"]["versionId"] == "5"
    assert all(step > 60 for step in steps), steps


def test_its_count_of_requests_and_bytes_is_the_servers(cast: Callable[[str], DicomCast], hapi: Hapi, uid: str) -> None:
    """Two instruments: what it counts by itself, and what HAPI counts."""
    side = cast(f"urn:{uid}")
    before = hapi.counters()
    side.read([entry(image, uid, image, header("P")) for image in range(1, 4)])
    counted = hapi.counters() - before
    assert len(study(side, uid)["series"][0]["instance"]) == 3
    assert counted.requests == side.traffic.requests == 12
    assert (counted.received, counted.sent) == (side.traffic.sent, side.traffic.received)


def test_modality_counts_time_and_description(cast: Callable[[str], DicomCast], uid: str) -> None:
    """System `DCM`, in the study only with ModalitiesInStudy; no counts; UTC assumed; the description is a note."""
    side = cast(f"urn:{uid}")
    side.read([entry(1, uid, 1, header("P"))])
    one = study(side, uid)
    assert one["series"][0]["modality"] == {"system": "DCM", "code": "CT"}
    assert {"modality", "numberOfSeries", "numberOfInstances", "description"} & one.keys() == set()
    assert one["started"] == "2024-05-01T10:15:00+00:00"
    assert one["note"] == [{"text": "CT thorax"}]
    side.read([entry(2, uid, 2, header("P", t00080061="CT", t00080201="+0545"))])
    assert study(side, uid)["modality"] == [{"system": "DCM", "code": "CT"}]
    assert study(side, uid)["started"] == "2024-05-01T10:15:00+05:45"
    side.read([entry(3, uid, 3, header("P", t00080030=None))])
    assert "started" not in study(side, uid)


def test_a_patient_that_is_there_is_overwritten(cast: Callable[[str], DicomCast], uid: str) -> None:
    """Name and gender become the image's; the birth date, set at creation only, stays."""
    side, system = cast(f"urn:{uid}"), f"urn:{uid}"
    own = {
        "resourceType": "Patient", "identifier": [{"system": system, "value": "P"}], "gender": "male",
        "name": [{"family": "Rø", "given": ["Janne"]}], "birthDate": "1950-01-01",
    }  # fmt: skip
    side.client.post(f"{side.fhir_url}/Patient", json=own).raise_for_status()
    side.read([entry(1, uid, 1, header("P"))])
    (after,) = found(side, "Patient", system, "P")
    assert (after["name"], after["gender"]) == ([{"family": "Roe", "given": ["Jane"]}], "female")
    assert after["birthDate"] == "1950-01-01"


def test_it_ends_at_an_update_each_time(cast: Callable[[str], DicomCast], uid: str) -> None:
    """What comes after is not read, until somebody moves it past the Update by hand."""
    side = cast(f"urn:{uid}")
    entries = [
        entry(1, uid, 1, header("P")), entry(2, uid, 1, header("Q"), "Update"), entry(3, uid, 2, header("P")),
    ]  # fmt: skip
    for _ in range(2):
        side.read(entries)
        assert (side.wedged_at, side.synced) == (2, 1)
    assert len(study(side, uid)["series"][0]["instance"]) == 1
    side.read(entries, skip_updates=True)
    assert (side.wedged_at, side.synced) == (None, 3)
    assert len(study(side, uid)["series"][0]["instance"]) == 2


def test_the_last_deletion_takes_the_study_only_where_the_source_is_its_own(
    cast: Callable[[str], DicomCast], uid: str
) -> None:
    """Of another source it stays, without series."""
    side = cast(f"urn:{uid}")
    side.read([entry(1, uid, 1, header("P")), entry(2, uid, 2, header("P"))])
    side.read([entry(3, uid, 1, None, "Delete")])
    assert [one["uid"] for one in study(side, uid)["series"][0]["instance"]] == [f"{uid}.1.2"]
    resource = study(side, uid)
    resource |= {"meta": {"source": "https://ris.example"}, "description": "CT"}
    side.client.put(f"{side.fhir_url}/ImagingStudy/{resource['id']}", json=resource).raise_for_status()
    side.read([entry(4, uid, 2, None, "Delete")])
    assert "series" not in study(side, uid)
    other = f"{uid}.7"
    side.read([entry(5, other, 1, header("P")), entry(6, other, 1, None, "Delete")])
    assert found(side, "ImagingStudy", "urn:dicom:uid", f"urn:oid:{other}") == []


def test_two_partitions_fall_into_one_study(cast: Callable[[str], DicomCast], uid: str) -> None:
    """And a deletion in one of them takes what the other still has."""
    side = cast(f"urn:{uid}")
    first = entry(1, uid, 1, header("P"))
    side.read([first, replace(first, sequence=2, partition="q", header=header("Q"))])
    assert len(study(side, uid)["series"][0]["instance"]) == 1
    side.read([replace(entry(3, uid, 1, None, "Delete"), partition="q")])
    assert found(side, "ImagingStudy", "urn:dicom:uid", f"urn:oid:{uid}") == []


def test_an_image_without_patient_id_goes_into_the_table_of_errors(cast: Callable[[str], DicomCast], uid: str) -> None:
    """A Create that was deleted before it was read is passed over, without a request."""
    side = cast(f"urn:{uid}")
    nameless = header("P", t00100020=None)
    side.read([entry(1, uid, 1, nameless), replace(entry(2, uid, 2, None), state="Deleted")])
    assert (side.refused, side.traffic.requests, side.synced) == ([1], 0, 2)
