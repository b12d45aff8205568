"""The ImagingStudy of a study: its order, its size, what is left out, and the edge cases of the issue."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_etl.core.attributes import ATTRIBUTES
from dicom_etl.outputs.fhir.digest import canonical
from dicom_etl.outputs.fhir.facts import MappingOptions, Resource, SeriesFacts, StudyFacts
from dicom_etl.outputs.fhir.mapping import PATIENT, STUDY
from dicom_etl.outputs.fhir.patient import identifier, logical_subject, patient
from dicom_etl.outputs.fhir.reasons import REASON_TEXTS, Reason
from dicom_etl.outputs.fhir.study import imaging_study
from support.fhir_facts import COLUMNS, ENDPOINT, LEVELS, OPTIONS, SUBJECT, one_instance
from support.fhir_types import problems

CT = "1.2.840.10008.5.1.4.1.1.2"
META = {"source": "https://hospital.example.org", "tag": [{"system": "urn:dicom-etl:lake", "code": "8d3f2c6a"}]}
ACSN = {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}]}
EARLY, LATE = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)


def made(study: StudyFacts, **options: Any) -> Resource:
    return imaging_study(study, dict(SUBJECT), [ENDPOINT], replace(OPTIONS, **options))


def instance(uid: str, number: int | None = None, **values: Any) -> dict[str, Any]:
    return {"SOPInstanceUID": uid, "SOPClassUID": CT, "InstanceNumber": number, **values}


def series(uid: str, *instances: dict[str, Any], **values: Any) -> SeriesFacts:
    return SeriesFacts(uid, values, instances or [instance(f"{uid}.1")])


def study(*found: SeriesFacts, **values: Any) -> StudyFacts:
    return StudyFacts("Microsoft.Default", "1.2", values, found)


def test_a_whole_study() -> None:
    """Every element, from two series in disorder."""
    whole = study(
        series("1.2.2", instance("1.2.2.1"), SeriesNumber=2, Modality="SR"),
        series("1.2.1", instance("1.2.1.2", 2), instance("1.2.1.1", 1), SeriesNumber=1, Modality="CT"),
        StudyDate=date(2026, 3, 1), StudyDescription="CT Thorax", AccessionNumber="A17", PatientID="P7",
    )  # fmt: skip
    found = made(whole)
    dcm, sop_class = (
        "http://dicom.nema.org/resources/ontology/DCM",
        {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{CT}"},
    )
    accession = {"type": ACSN, "value": "A17"}
    assert found.body == {
        "resourceType": "ImagingStudy",
        "id": found.id,
        "meta": META,
        "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.2"}, accession],
        "status": "available",
        "subject": {"reference": "Patient/4f1d"},
        "basedOn": [{"type": "ServiceRequest", "identifier": accession}],
        "endpoint": [{"reference": "Endpoint/90ab"}],
        "modality": [{"system": dcm, "code": "CT"}, {"system": dcm, "code": "SR"}],
        "started": "2026-03-01",
        "numberOfSeries": 2,
        "numberOfInstances": 3,
        "description": "CT Thorax",
        "series": [
            {
                "uid": "1.2.1", "number": 1, "modality": {"system": dcm, "code": "CT"}, "numberOfInstances": 2,
                "instance": [
                    {"uid": "1.2.1.1", "sopClass": sop_class, "number": 1},
                    {"uid": "1.2.1.2", "sopClass": sop_class, "number": 2},
                ],
            },
            {
                "uid": "1.2.2", "number": 2, "modality": {"system": dcm, "code": "SR"}, "numberOfInstances": 1,
                "instance": [{"uid": "1.2.2.1", "sopClass": sop_class}],
            },
        ],
    }  # fmt: skip
    assert (found.kind, found.left_out) == ("ImagingStudy", {})
    assert problems(found.body) == []


def test_ids_are_apart_by_service_partition_and_study() -> None:
    """Services and partitions share one FHIR server."""
    one = one_instance({})
    others = [made(replace(one, partition="b")), made(replace(one, uid="1.3")), made(one, source="https://b")]
    assert len({made(one).id, *(other.id for other in others)}) == 4


def test_equal_facts_give_equal_bytes() -> None:
    """In whatever order series and instances come; with missing, negative and equal numbers."""
    shuffled = random.Random(5)
    numbers = [None, -1, 0, 3, 3, 11, 2]
    instances = [instance(f"1.2.1.{n}", number) for n, number in enumerate(numbers)]
    found = [
        series("1.2.3"), series("1.2.1", *instances, SeriesNumber=1), series("1.2.2", SeriesNumber=1),
        series("1.2.4", SeriesNumber=-2),
    ]  # fmt: skip
    first = made(study(*found))
    assert [one["uid"] for one in first.body["series"]] == ["1.2.4", "1.2.1", "1.2.2", "1.2.3"]
    assert [one["uid"][-1] for one in first.body["series"][1]["instance"]] == ["1", "2", "6", "3", "4", "5", "0"]
    for _ in range(5):
        shuffled.shuffle(found)
        shuffled.shuffle(instances)
        again = [replace(one, instances=instances) if one.uid == "1.2.1" else one for one in found]
        assert canonical(made(study(*again)).body) == canonical(first.body)


def large(count: int, **values: Any) -> StudyFacts:
    uids = (f"1.2.826.0.1.3680043.8.498.{n:038}" for n in range(count))
    instances = [instance(uid, n, **values) for n, uid in enumerate(uids)]
    return study(series("1.2.1", *instances), PatientID="P7")


def test_a_study_of_12_000_instances_has_series_without_them() -> None:
    """Above 1.5 MB; the counts stay, and what its instances alone would leave out is not counted beside them."""
    found = made(large(12_000, SOPClassUID=None))
    assert found.left_out == {"instances": 12_000}
    assert found.body["numberOfInstances"] == found.body["series"][0]["numberOfInstances"] == 12_000
    assert "instance" not in found.body["series"][0]
    assert len(canonical(found.body)) < 1_000
    assert problems(found.body) == []


def test_the_limit_is_of_bytes() -> None:
    """The largest study that has its instances, and one of a single byte more."""
    study_of = large(8_500)
    size = len(canonical(made(study_of, instances="all").body))
    room = 1_500_000 - size
    assert room > 0
    fits = made(
        replace(study_of, values={"PatientID": "P7", "StudyDescription": "x" * (room - len(',"description":""'))})
    )
    assert len(canonical(fits.body)) == 1_500_000
    assert fits.left_out == {}
    over = made(
        replace(study_of, values={"PatientID": "P7", "StudyDescription": "x" * (room + 1 - len(',"description":""'))})
    )
    assert over.left_out == {"instances": 8_500}


def test_the_setting_instances_says_all_or_none() -> None:
    """What a setting leaves out is not counted."""
    assert len(made(large(12_000), instances="all").body["series"][0]["instance"]) == 12_000
    none = made(large(2, SOPClassUID=None), instances="none")
    assert none.left_out == {}
    assert "instance" not in none.body["series"][0]
    assert none.body["series"][0]["numberOfInstances"] == 2


def test_what_cannot_be_written_is_left_out_and_counted() -> None:
    """The edge cases of the issue in one study; what is written is valid."""
    odd = study(
        series("1.2.1", instance("1.2.1.1", -7), instance("no id!", 1), SeriesNumber=-3, Modality="CR\\DX"),
        series("no id!", instance("1.2.2.1"), Modality="CT"),
        series("1.2.3", instance("1.2.3.1", SOPClassUID=None), Laterality="", SeriesDescription="\x01"),
        StudyDate=date(2026, 3, 1), StudyTime="10:15:30",
    )  # fmt: skip
    found = imaging_study(odd, logical_subject(odd, OPTIONS), [], OPTIONS)
    assert found.left_out == {
        "characters": 1, "laterality": 1, "modality": 1, "no-patient-id": 1, "number": 2, "sop-class": 1,
        "time-without-zone": 1, "uid": 2,
    }  # fmt: skip
    assert problems(found.body) == []
    assert found.body["subject"] == {"type": "Patient", "display": "Unknown"}
    assert (found.body["numberOfSeries"], found.body["numberOfInstances"]) == (3, 4)
    assert [(one["uid"], one["numberOfInstances"]) for one in found.body["series"]] == [("1.2.1", 2), ("1.2.3", 1)]
    assert [one["code"] for one in found.body["modality"]] == ["CT", "OT"]


ANY = st.text(st.characters(codec=None, categories=None), max_size=4) | st.sampled_from(["CT", "R", "+0100", "^^^^^a"])
TIMES = st.sampled_from(["10", "10:15", "23:59:60", "10:15:30", "10:15:30.123456"])
KINDS = {"date": st.dates(), "long": st.integers(-(2**63), 2**63 - 1), "string": ANY}
UIDS = st.sampled_from(["1.2", "1.2.3\0", "1_2", "a b", "1" * 65]) | ANY


def values(level: str) -> st.SearchStrategy[dict[str, Any]]:
    """Any values of the columns' types, of the tags of a level; absent ones, too."""
    types = {
        **{a.keyword: "date" if a.is_date else "string" for a in ATTRIBUTES},
        **{c.path.text: c.type for c in COLUMNS},
    }
    read = {tag for rule in (*STUDY, *PATIENT) if rule.make for tag in rule.tags if LEVELS.get(tag) == level}
    made_of = {tag: TIMES if tag.endswith("Time") else KINDS[types[tag]] for tag in sorted(read)}
    return st.fixed_dictionaries({}, optional=made_of)


INSTANCES = st.builds(lambda uid, found: {"SOPInstanceUID": uid, **found}, UIDS, values("instance"))
SERIES = st.builds(SeriesFacts, UIDS, values("series"), st.lists(INSTANCES, min_size=1, max_size=2))
STUDIES = st.builds(StudyFacts, ANY, UIDS, values("study"), st.lists(SERIES, min_size=1, max_size=2))
SETTINGS = st.builds(
    lambda zone, strict: replace(OPTIONS, zone=zone, strict_modality=strict),
    st.sampled_from([None, ZoneInfo("Europe/Berlin")]), st.booleans(),
)  # fmt: skip


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STUDIES, SETTINGS)
def test_whatever_the_tables_hold_the_resources_are_valid(facts: StudyFacts, options: MappingOptions) -> None:
    """By R4's datatypes and cardinalities; and they have canonical bytes."""
    found = imaging_study(facts, logical_subject(facts, options), [ENDPOINT], options)
    assert problems(found.body) == []
    assert set(found.left_out) <= set(Reason)
    assert canonical(found.body)
    if identifier(facts, options) is not None:
        assert problems(patient(facts, options).body) == []


def test_every_reason_has_a_meaning() -> None:
    assert list(REASON_TEXTS) == list(Reason)


def test_a_study_that_can_write_no_series_has_none() -> None:
    """An empty list is no FHIR."""
    found = made(study(series("no id!")))
    assert "series" not in found.body
    assert problems(found.body) == []
    found = made(study(series("1.2.1", instance("no id!"))))
    assert "instance" not in found.body["series"][0]


@pytest.mark.parametrize(
    ("instances", "offset"),
    [
        ([("1.1", "+0100", EARLY, 1), ("1.2", "+0200", LATE, 2)], "+02:00"),
        ([("1.1", "+0100", LATE, 2), ("1.2", "+0200", EARLY, 1)], "+01:00"),
        ([("1.1", "+0100", LATE, 1), ("1.2", "+0200", LATE, 2)], "+02:00"),
        ([("1.1", "+0100", LATE, 1), ("1.2", "+0200", None, 2)], "+01:00"),
        ([("1.1", "+0100", None, 1), ("1.2", "+0200", None, None)], "+01:00"),
        ([("1.1", "+0100", None, None), ("1.2", "+0200", None, None)], "+02:00"),
        ([("1.1", "+0100", EARLY, 1), ("1.2", None, LATE, 2)], "+01:00"),
    ],
)  # fmt: skip
def test_the_latest_offset_that_is_not_null_counts(instances: list[tuple[Any, ...]], offset: str) -> None:
    """By time, sequence and UID, nulls first, as in the tables' roll-ups."""
    found = series("1.2.1", *(
        instance(uid, TimezoneOffsetFromUTC=text, lastModifiedTimestamp=moment, sequence=sequence)
        for uid, text, moment, sequence in instances
    ), SeriesDate=date(2026, 3, 1), SeriesTime="10:15")  # fmt: skip
    body = made(study(found, StudyDate=date(2026, 3, 1), StudyTime="10:15")).body
    assert body["started"] == body["series"][0]["started"] == f"2026-03-01T10:15:00{offset}"


def test_a_series_has_the_offset_of_its_own_instances() -> None:
    """Else the zone of the settings, not another series' offset."""
    first = series("1.2.1", instance("1", TimezoneOffsetFromUTC="-0500", sequence=1))
    other = series("1.2.2", instance("2", sequence=2), SeriesDate=date(2026, 3, 1), SeriesTime="10:15")
    both = study(first, other, StudyDate=date(2026, 3, 1), StudyTime="10:15")
    body = made(both, zone=ZoneInfo("Europe/Berlin")).body
    assert body["started"] == "2026-03-01T10:15:00-05:00"
    assert body["series"][1]["started"] == "2026-03-01T10:15:00+01:00"


def test_images_of_both_sides_are_no_series_of_one_side() -> None:
    """A mammography's R and L in one series: any one of them would be wrong."""
    views = [instance(str(n), ImageLaterality=side) for n, side in enumerate("RLRL")]
    mixed = made(study(series("1.2.1", *views)))
    assert "laterality" not in mixed.body["series"][0]
    assert mixed.left_out == {"laterality-mixed": 1, "no-patient-id": 1}
    right = made(study(series("1.2.1", views[0], views[2], instance("9", ImageLaterality=None))))
    assert right.body["series"][0]["laterality"]["display"] == "Right"
    assert right.left_out == {"no-patient-id": 1}
