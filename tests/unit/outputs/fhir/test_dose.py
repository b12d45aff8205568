"""Dose reports as Observations: what each template gives, ids that stay, and reports as scanners should not write."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from dicom_etl.outputs.fhir.dose import DoseResult, is_dose_report, observations
from dicom_etl.outputs.fhir.facts import Json, MappingOptions
from dicom_etl.outputs.fhir.observation import ReportKey
from support.dose_reports import (
    NUCLEAR,
    SERIES,
    STUDY,
    X_RAY,
    acquisition,
    angiography,
    coded,
    container,
    content,
    ct,
    mammography,
    moment,
    nuclear,
    num,
    report,
    text,
    uid,
)

DCM, SCT = "http://dicom.nema.org/resources/ontology/DCM", "http://snomed.info/sct"
UCUM = "http://unitsofmeasure.org"
EVENT = {"system": DCM, "code": "113852", "display": "Irradiation Event"}
OPTIONS = MappingOptions(
    service_url="https://clinic.example.org/v2",
    source="https://clinic.example.org",
    lake="lake-1",
    key=b"a key of sixteen",
    issuers={},
    default_system=None,
    zone=None,
    patients="find",
    instances="auto",
    dose=True,
    strict_modality=False,
)
SUBJECT = {"reference": "Patient/p1"}


def made(
    dataset: Dataset | bytes | str,
    *,
    instance: str | None = None,
    partition: str = "Microsoft.Default",
    effective: str | None = "2024-01-31",
    options: MappingOptions = OPTIONS,
) -> DoseResult:
    header = dataset.to_json() if isinstance(dataset, Dataset) else dataset
    sop = instance or (str(dataset.SOPInstanceUID) if isinstance(dataset, Dataset) else "1.2.3.4")
    key = ReportKey(partition, STUDY, SERIES, sop)
    return observations(
        header, study=key, subject=SUBJECT, study_reference="ImagingStudy/s1", effective=effective, options=options
    )


def bodies(result: DoseResult) -> list[Json]:
    return [resource.body for resource in result.resources]


def ids(result: DoseResult) -> list[str]:
    return [resource.id for resource in result.resources]


def values(body: Json) -> dict[str, Any]:
    """The components by their text: quantities as ``1.25 mGy``, codes as ``DCM 113691``, others as they are."""
    found: dict[str, Any] = {}
    for component in body["component"]:
        assert component["code"]["text"] not in found
        found[component["code"]["text"]] = shown(component)
    return found


def shown(component: Json) -> Any:
    [(kind, value)] = [(name, value) for name, value in component.items() if name != "code"]
    if kind == "valueQuantity":
        assert value.get("code") in (None, value["unit"])
        return f"{value['value']} {value['unit']}{'' if value.get('system') == UCUM else ' ?'}"
    if kind == "valueCodeableConcept" and "coding" in value:
        [coding] = value["coding"]
        return f"{coding['system'].rpartition('/')[2].upper()} {coding['code']}"
    return value["text"] if kind == "valueCodeableConcept" else value


# --- what the templates give -------------------------------------------------------------------------------------


def test_a_ct_report_gives_an_observation_for_each_acquisition_and_one_for_the_whole() -> None:
    """TID 10011 with two acquisitions: the first in full; ids are what another test is about."""
    result = made(ct())
    first, second, summary = bodies(result)
    assert result.left_out == {}
    assert [resource.left_out for resource in result.resources] == [{}, {}, {}]
    assert first | {"component": []} == {
        "resourceType": "Observation",
        "id": result.resources[0].id,
        "meta": {
            "source": "https://clinic.example.org",
            "tag": [{"system": "urn:dicom-etl:lake", "code": "lake-1"}],
        },
        "status": "preliminary",
        "category": [
            {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "imaging"}]}
        ],
        "code": {"coding": [{"system": DCM, "code": "113819", "display": "CT Acquisition"}, EVENT]},
        "subject": {"reference": "Patient/p1"},
        "partOf": [{"reference": "ImagingStudy/s1"}],
        "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3.77.1"}],
        "effectiveDateTime": "2024-01-31T10:15:30+01:00",
        "bodySite": {"coding": [{"system": SCT, "code": "818983003", "display": "Abdomen"}], "text": "Abdomen"},
        "component": [],
    }
    assert first["component"][2] == {
        "code": {"coding": [{"system": DCM, "code": "113830", "display": "Mean CTDIvol"}], "text": "Mean CTDIvol"},
        "valueQuantity": {"value": 1.25, "unit": "mGy", "system": UCUM, "code": "mGy"},
    }
    assert values(first) == {
        "Acquisition Protocol": "Abdomen ABC",
        "CT Acquisition Type": "SCT 116152004",
        "Mean CTDIvol": "1.25 mGy",
        "CTDIw Phantom Type": "DCM 113691",
        "DLP": "157.07 mGy.cm",
    }
    assert values(second)["DLP"] == "46.05 mGy.cm"
    assert summary["code"]["coding"] == [
        {
            "system": "http://loinc.org",
            "code": "73569-6",
            "display": "Radiation exposure and protection information [Description] Document Diagnostic imaging",
        }
    ]
    assert values(summary) == {
        "Procedure reported": "SCT 77477000",
        "Scope of Accumulation": "DCM 113014",
        "Total Number of Irradiation Events": 2,
        "CT Dose Length Product Total": "203.12 mGy.cm",
    }
    assert summary["identifier"] == [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3.10"}]
    assert summary["hasMember"] == [{"reference": f"Observation/{name}"} for name in ids(result)[:2]]


def test_the_totals_of_two_planes_are_told_apart() -> None:
    """TID 10001 of a biplane system has each total twice; both events share one irradiation event UID."""
    result = made(angiography())
    first, second, summary = bodies(result)
    assert values(summary) == {
        "Procedure reported": "DCM 113704",
        "Dose Area Product Total, Plane A": "0.0013639 Gy.m2",
        "Dose (RP) Total, Plane A": "0.212 Gy",
        "Total Fluoro Time, Plane A": "450 s",
        "Total Number of Radiographic Frames, Plane A": 36,
        "Dose Area Product Total, Plane B": "0.0002 Gy.m2",
        "Dose (RP) Total, Plane B": "0.212 Gy",
        "Total Fluoro Time, Plane B": "450 s",
        "Total Number of Radiographic Frames, Plane B": 36,
    }
    assert first["identifier"] == second["identifier"]
    assert [values(body)["Acquisition Plane"] for body in (first, second)] == ["DCM 113620", "DCM 113621"]
    assert values(first) | {"Acquisition Plane": ""} == {
        "Acquisition Plane": "",
        "Irradiation Event Type": "SRT P5-06000",
        "Dose Area Product": "1e-05 Gy.m2",
        "Dose (RP)": "0.001 Gy",
    }
    assert first["bodySite"]["coding"] == [{"system": "http://snomed.info/srt", "code": "T-32000", "display": "Heart"}]


def test_the_doses_of_two_breasts_are_told_apart() -> None:
    """TID 10005; the unit is the scanner's, mGy as the standard has it now or dGy as it had it."""
    event, summary = bodies(made(mammography()))
    assert values(summary) == {
        "Procedure reported": "SCT 71651007",
        "Accumulated Average Glandular Dose, Left": "2.5 mGy",
        "Accumulated Average Glandular Dose, Right": "2.25 mGy",
    }
    assert values(event) == {"Average Glandular Dose": "0.0125 dGy", "Entrance Exposure at RP": "6.1 mGy"}
    assert event["bodySite"]["text"] == "Breast, Left"


def test_a_radiopharmaceutical_report_has_the_administration_in_both() -> None:
    """TID 10021: the profile of HL7 wants it in the summary; its event is not an irradiation event."""
    event, summary = bodies(made(nuclear()))
    given = {
        "Radiopharmaceutical agent": "SCT 35321007",
        "Radionuclide": "SCT 77004003",
        "Radionuclide Half Life": "6586.2 s",
        "Administered activity": "154 MBq",
        "Route of administration": "SCT 47625008",
    }
    assert values(summary) == {"Associated Procedure": "SCT 44139004", **given}
    assert values(event) == {**given, "Pre-Administration Measured Activity": "160 MBq"}
    assert event["code"]["coding"] == [
        {"system": DCM, "code": "113502", "display": "Radiopharmaceutical Administration"}
    ]
    assert event["identifier"] == [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3.66.1"}]
    assert summary["effectiveDateTime"] == event["effectiveDateTime"] == "2024-01-31T08:00:00+00:00"


def test_of_two_administrations_none_stands_for_the_report() -> None:
    result = made(nuclear(administrations=2))
    assert [len(body["component"]) for body in bodies(result)] == [6, 6, 1]
    assert values(bodies(result)[-1]) == {"Associated Procedure": "SCT 44139004"}


@pytest.mark.parametrize(
    ("uid_", "expected"),
    [
        ("1.2.840.10008.5.1.4.1.1.88.67", True),
        ("1.2.840.10008.5.1.4.1.1.88.68", True),
        ("1.2.840.10008.5.1.4.1.1.88.33", False),
        ("1.2.840.10008.5.1.4.1.1.88.6", False),
        (None, False),
    ],
)
def test_dose_reports_are_told_by_their_class(uid_: str | None, expected: bool) -> None:
    assert is_dose_report(uid_) is expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("COMPLETE VERIFIED", {"final"}),
        ("COMPLETE UNVERIFIED", {"preliminary"}),
        ("PARTIAL VERIFIED", {"preliminary"}),
        ("PARTIAL UNVERIFIED", {"preliminary"}),
    ],
)
def test_only_a_complete_and_verified_report_is_final(flags: str, expected: set[str]) -> None:
    """PS3.3 C.17.2."""
    written = [body["status"] for body in bodies(made(ct(flags=flags)))]
    assert len(written) == 3
    assert set(written) == expected


def test_nothing_of_the_patient_is_taken_from_the_header() -> None:
    result = made(ct())
    assert "CANARY-1" in ct().to_json()
    assert len(result.resources) == 3
    assert "canary" not in json.dumps(bodies(result)).lower()


# --- times -------------------------------------------------------------------------------------------------------


def dated(value: str | None, offset: str | None = None) -> Dataset:
    """A CT report with one acquisition, which started then."""
    started = [] if value is None else [moment("DCM 111526 DateTime Started", value)]
    dataset = ct(events=[acquisition("1.2.3.77.1", "1.25", "157.07", *started)])
    dataset.ContentSequence = [item for item in dataset.ContentSequence if item.ValueType != "DATETIME"]
    if offset:
        dataset.TimezoneOffsetFromUTC = offset
    return dataset


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("value", "offset", "zone", "expected"),
    [
        ("20240131101530.25+0100", "-0500", BERLIN, "2024-01-31T10:15:30.25+01:00"),
        ("20240131101530.250000", "-0500", BERLIN, "2024-01-31T10:15:30.25-05:00"),
        ("20240731101530.000000", None, BERLIN, "2024-07-31T10:15:30+02:00"),
        ("202401311015", None, BERLIN, "2024-01-31T10:15:00+01:00"),
        ("20240131101530", None, None, "2024-01-31"),
        ("2024013110", None, BERLIN, "2024-01-31"),
        ("20240131", None, BERLIN, "2024-01-31"),
        ("202401", None, BERLIN, "2024-01"),
        ("2024", None, BERLIN, "2024"),
        ("20240230", None, BERLIN, "2020-02-02"),
        ("20240131251530", None, BERLIN, "2020-02-02"),
        ("31.01.2024", None, BERLIN, "2020-02-02"),
        (None, None, BERLIN, "2020-02-02"),
    ],
)
def test_an_event_has_its_own_start_else_the_report_s(
    value: str | None, offset: str | None, zone: ZoneInfo | None, expected: str
) -> None:
    """A time only with a zone: the value's, the header's, the settings'. What is no DT is as if it were not there."""
    event, summary = bodies(made(dated(value, offset), effective="2020-02-02", options=replace(OPTIONS, zone=zone)))
    assert (event["effectiveDateTime"], summary["effectiveDateTime"]) == (expected, "2020-02-02")


def test_a_time_without_zone_is_counted() -> None:
    event, summary = made(dated("20240131101530")).resources
    assert (event.left_out, summary.left_out) == ({"time-without-zone": 1}, {})


def test_the_report_begins_with_its_irradiation() -> None:
    """TID 10011: the start of irradiation is nearer than the time at which the report was made."""
    _, second, summary = bodies(made(ct(), effective="2024-02-01"))
    assert second["effectiveDateTime"] == summary["effectiveDateTime"] == "2024-01-31T10:15:00.5+01:00"


def test_without_any_time_there_is_none() -> None:
    written = bodies(made(dated(None), effective=None))
    assert len(written) == 2
    assert [body for body in written if "effectiveDateTime" in body] == []


# --- ids ---------------------------------------------------------------------------------------------------------


def test_a_replay_writes_the_same_resources() -> None:
    first, second = made(ct()), made(ct())
    assert len(first.resources) == 3
    assert first == second


def test_no_two_reports_share_an_id() -> None:
    """Same content under another UID, in another partition, of another service, with another key."""
    others = [
        made(ct()),
        made(ct(), instance="1.2.3.11"),
        made(ct(), partition="ward-7"),
        made(ct(), options=replace(OPTIONS, source="https://other.example.org")),
        made(ct(), options=replace(OPTIONS, key=b"another key.....")),
    ]
    names = [name for result in others for name in ids(result)]
    assert len(names) == 15
    assert len(set(names)) == 15
    assert [name for name in names if not re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", name)] == []


def test_a_report_that_is_gone_takes_its_own_alone() -> None:
    """Two reports of one study: what stands for one does not depend on the other."""
    server = {name: body for one in (ct(), angiography()) for name, body in zip(*parts(made(one)), strict=True)}
    assert len(server) == 6
    left = {name: body for name, body in server.items() if name not in ids(made(ct()))}
    assert left == dict(zip(*parts(made(angiography())), strict=True))


def parts(result: DoseResult) -> tuple[list[str], list[Json]]:
    return ids(result), bodies(result)


def test_an_unreadable_item_does_not_move_the_ids_of_others() -> None:
    """Ids are of the place in the report, also where an item before it cannot be read."""
    header = json.loads(ct().to_json())
    whole = ids(made(json.dumps(header)))
    header["0040A730"]["Value"][3] = "odd"
    result = made(json.dumps(header))
    assert len(whole) == 3
    assert (ids(result), result.left_out) == (whole, {"dose-item": 1})


# --- reports as they should not be -------------------------------------------------------------------------------

TOTAL = {"CT Dose Length Product Total": "203.12 mGy.cm"}


def total() -> Dataset:
    return num("DCM 113813 CT Dose Length Product Total", "203.12", "mGy.cm")


def event_of(*items: Dataset) -> Dataset:
    return container("DCM 113819 CT Acquisition", uid("DCM 113769 Irradiation Event UID", "1.2.3.77.1"), *items)


def short(*items: Dataset) -> Json:
    """The header of a report with a total, and an acquisition that has a UID and these items."""
    return json.loads(report(X_RAY, event_of(*items), total(), instance="1.2.3.50").to_json())


def inside(header: Json, *ordinals: int) -> Json:
    """The content item at these ordinals, from 1."""
    for ordinal in ordinals:
        header = header["0040A730"]["Value"][ordinal - 1]
    return header


def measured(value: Any, unit: str | None = "UCUM mGy.cm mGy.cm") -> DoseResult:
    """A report whose acquisition has a DLP with this value; ``unit`` is designator (or -), value and meaning."""
    number: Json = {"0040A30A": {"vr": "DS", "Value": [value]}}
    if unit:
        scheme, name, meaning = unit.split(" ", 2)
        sequence = {"00080100": name, "00080104": meaning} | ({} if scheme == "-" else {"00080102": scheme})
        item = {tag: {"vr": "LO", "Value": [part]} for tag, part in sequence.items()}
        number["004008EA"] = {"vr": "SQ", "Value": [item]}
    header = short(content("DCM 113838 DLP", "NUM", "CONTAINS"))
    inside(header, 1, 2)["0040A300"] = {"vr": "SQ", "Value": [number]}
    return made(json.dumps(header))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (157.07, "157.07 mGy.cm"),
        ("157.07 ", "157.07 mGy.cm"),
        ("+1.5e2", "150 mGy.cm"),
        (0, "0 mGy.cm"),
        ("450.0", "450 mGy.cm"),
        (450, "450 mGy.cm"),
    ],
)
def test_numbers_are_taken_from_numbers_and_from_text(value: Any, expected: str) -> None:
    event, summary = made_of(measured(value))
    assert (values(event), values(summary)) == ({"DLP": expected}, TOTAL)


def made_of(result: DoseResult) -> list[Json]:
    """The bodies of a result that left out nothing."""
    assert result.left_out == {}
    assert [resource.left_out for resource in result.resources if resource.left_out] == []
    return bodies(result)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "1e400", "", None, -1, "-0.5", "1,5", "12 mGy", True, [1], {}])
def test_what_is_no_dose_is_left_out_and_counted(value: Any) -> None:
    """The rest of the report stands."""
    event, summary = measured(value).resources
    assert "component" not in event.body
    assert event.left_out == {"dose-number": 1}
    assert (values(summary.body), summary.left_out) == (TOTAL, {})


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("UCUM mGy.cm mGy.cm", "1 mGy.cm"),
        ("ucum mGy.cm mGy.cm", "1 mGy.cm"),
        ("- mGy.cm mGy.cm", "1 mGy.cm"),
        ("- Gy.cm Gy.cm", "1 Gy.cm ?"),
        ("UCUM mGycm mGy*cm", "1 mGy*cm ?"),
        ("99SITE mGy.cm mGy.cm", "1 mGy.cm ?"),
    ],
)
def test_a_unit_has_a_code_only_where_ucum_has_it(unit: str, expected: str) -> None:
    """`?` marks a Quantity without system and code: a validating server refuses a code that UCUM does not have."""
    event, _ = made_of(measured(1, unit))
    assert values(event) == {"DLP": expected}


def test_a_number_without_unit_is_no_dose() -> None:
    event, _ = measured(1, None).resources
    assert "component" not in event.body
    assert event.left_out == {"dose-unit": 1}


@pytest.mark.parametrize(("frames", "expected"), [("36", 36), ("36.0", 36), ("36.5", None), ("1E12", None)])
def test_counts_are_whole(frames: str, expected: int | None) -> None:
    """FHIR's integer has 32 bits."""
    [summary] = made(
        report(X_RAY, num("DCM 113731 Total Number of Radiographic Frames", frames, "1"), total(), instance="1.2.3.50")
    ).resources
    found = {} if expected is None else {"Total Number of Radiographic Frames": expected}
    assert values(summary.body) == {**found, **TOTAL}
    assert summary.left_out == ({} if found else {"dose-number": 1})


def test_private_codes_are_text_and_have_no_system() -> None:
    event, _ = made(
        json.dumps(
            short(
                coded("DCM 113835 CTDIw Phantom Type", "99VENDOR P1 Small phantom"),
                coded("DCM 123014 Target Region", "99VENDOR R1 Middle"),
                coded("99VENDOR 113838 Not the DLP", "DCM 113691 IEC Body Dosimetry Phantom"),
            )
        )
    ).resources
    assert event.body["bodySite"] == {"text": "Middle"}
    assert [part["valueCodeableConcept"] for part in event.body["component"]] == [{"text": "Small phantom"}]
    assert event.left_out == {"code-without-system": 2}


def test_control_characters_do_not_reach_the_server() -> None:
    """R4's string has none but tab, line feed and carriage return; the escapes of a badly read character set have."""
    side = coded("SCT 272741003 Laterality", "SCT 7771000 Le\x1bft", relationship="HAS CONCEPT MOD")
    header = short(
        coded("DCM 123014 Target Region", "SCT 76752008 Bre\x07ast", side),
        num("DCM 113838 DLP", "1", "mGy.cm", side),
        text("DCM 125203 Acquisition Protocol", "Two\x1b$B views"),
    )
    event, _ = made(json.dumps(header)).resources
    assert event.body["bodySite"]["text"] == "Breast, Left"
    assert values(event.body) == {"DLP, Left": "1 mGy.cm", "Acquisition Protocol": "Two$B views"}
    assert event.left_out == {"characters": 4}


def test_codes_of_snomed_rt_name_the_same_concepts() -> None:
    """Reports before 2018, and the two other designators of SNOMED-RT; a value keeps the code that it has."""
    nuclide = coded("99SDM C-10072 Radionuclide", "SRT C-111A1 ^18^Fluorine")
    given = container(
        "DCM 113502 Radiopharmaceutical Administration",
        coded("SRT F-61FDB Radiopharmaceutical agent", "SRT C-B1031 Fluorodeoxyglucose F^18^", nuclide),
        coded("SNM3 G-C340 Route of administration", "SCT 47625008 Intravenous route"),
    )
    event, _ = made_of(made(report(NUCLEAR, given, instance="1.2.3.50")))
    assert [component["code"]["coding"] for component in event["component"]] == [
        [{"system": SCT, "code": concept}] for concept in ("349358000", "89457008", "410675002")
    ]
    assert values(event)["Radiopharmaceutical agent"] == "SRT C-B1031"


@pytest.mark.parametrize(
    ("value", "counted"),
    [("not a uid", {"dose-uid": 1}), ("1.2." + "3" * 64, {"dose-uid": 1}), ("", {}), (None, {})],
)
def test_an_event_without_a_uid_has_no_identifier(value: str | None, counted: dict[str, int]) -> None:
    """What is no UID is counted; the doses stand."""
    header = short(num("DCM 113838 DLP", "1", "mGy.cm"))
    inside(header, 1, 1)["0040A124"] = {"vr": "UI", "Value": [value]}
    event, _ = made(json.dumps(header)).resources
    assert "identifier" not in event.body
    assert (values(event.body), event.left_out) == ({"DLP": "1 mGy.cm"}, counted)


def test_what_says_nothing_is_not_written() -> None:
    """An acquisition without UID and values; a report without totals and events."""
    hollow = container("DCM 113819 CT Acquisition", num("DCM 113824 Exposure Time", "4.5", "s"))
    with_total = made(report(X_RAY, hollow, total(), instance="1.2.3.50"))
    assert [values(body) for body in bodies(with_total)] == [TOTAL]
    assert "hasMember" not in bodies(with_total)[0]
    assert with_total.left_out == {"dose-event": 1}
    assert made(report(X_RAY, hollow, instance="1.2.3.50")) == DoseResult((), {"dose-event": 1, "dose-report": 1})


@pytest.mark.parametrize(
    ("header", "counted"),
    [
        (b"", "dose-header"),
        (b"null", "dose-header"),
        (b"[]", "dose-header"),
        (b"{}", "dose-header"),
        (b'{"0040A730": NaN}', "dose-header"),
        (b'{"00080018": {"vr": "UI", "Value": ["1.2.3"]}}', "dose-header"),
        ("\ud800", "dose-header"),
        (b"[" * 100_000, "dose-header"),
        (b'{"0040A730": {"vr": "SQ"}}', "dose-title"),
        (b'{"0040A043": {"vr": "SQ", "Value": [{}]}}', "dose-title"),
    ],
)
def test_what_is_no_report_gives_nothing(header: bytes | str, counted: str) -> None:
    assert made(header) == DoseResult((), {counted: 1})


@pytest.mark.parametrize("name", ["test-SR.dcm", "reportsi.dcm"])
def test_other_reports_are_no_dose_reports(name: str) -> None:
    """pydicom's files of structured reports."""
    dataset = dcmread(get_testdata_file(name, download=False))
    assert len(dataset.ContentSequence) == 5
    assert made(dataset) == DoseResult((), {"dose-title": 1})


# --- invariants, whatever the header -----------------------------------------------------------------------------

# R4 dateTime.
DATE_TIME = re.compile(
    r"[0-9]{4}(-[01][0-9](-[0-3][0-9](T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]+)?(Z|[+-][01][0-9]:[0-5][0-9]))?)?)?"
)


def wrong(body: Json) -> list[str]:
    """What R4 does not allow in an Observation of ours: ele-1, obs-6, obs-7, one value a component, times."""
    found = [f"empty {path}" for path, value in leaves(body) if value in ("", None, [], {})]
    codes = [coding["code"] for coding in body["code"]["coding"]]
    for part in body.get("component", []):
        given = [name for name in part if name.startswith("value")]
        found += [f"values {given}"] * (len(given) != 1)
        found += ["obs-6"] * ("dataAbsentReason" in part)
        same = any(coding["code"] in codes for coding in part["code"].get("coding", []))
        found += ["obs-7"] * (same and any(name.startswith("value") for name in body))
    found += ["time"] * (not DATE_TIME.fullmatch(body.get("effectiveDateTime", "2024")))
    return found + ["status"] * (body["status"] not in ("final", "preliminary"))


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if value and isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, f"{path}/{name}")
    else:
        yield path, value


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every member of an object or a list, at any depth, as its holder and its key."""
    for key, inner in list(value.items() if isinstance(value, dict) else enumerate(value)):
        yield value, key
        if isinstance(inner, dict | list):
            yield from places(inner)


ODD = (None, [], {}, "", " \0", "x" * 70, 10**30)


@pytest.mark.parametrize("build", [ct, mammography, nuclear])
def test_no_value_in_any_place_breaks_a_report(build: Callable[[], Dataset]) -> None:
    """Each member of the header in turn becomes one of the odd values: nothing raises, what is written is valid."""
    header = json.loads(build().to_json())
    found = list(places(header))
    assert len(found) > 300
    written = 0
    for (holder, key), odd in zip(found, cycle(ODD), strict=False):
        before, holder[key] = holder[key], odd
        made_so = bodies(made(json.dumps(header)))
        holder[key] = before
        assert [wrong(body) for body in made_so if wrong(body)] == []
        written += len(made_so)
    assert written > len(found)


@pytest.mark.parametrize(
    "broken",
    [
        {"component": []},
        {"component": [{"code": {"text": "DLP"}}]},
        {"component": [{"code": {"text": "DLP"}, "valueString": "1", "dataAbsentReason": {"text": "unknown"}}]},
        {"component": [{"code": {"coding": [{"code": "113819"}]}, "valueInteger": 1}], "valueInteger": 1},
        {"effectiveDateTime": "2024-01-31T10:15:00"},
        {"identifier": [{}]},
        {"status": "done"},
    ],
)
def test_a_wrong_observation_is_seen(broken: Json) -> None:
    """The broken twins of the invariants."""
    right, *_ = bodies(made(ct()))
    assert wrong(right) == []
    assert wrong(right | broken) != []


def test_what_stands_in_an_event_is_that_event_s() -> None:
    """Neither a total of the report, nor a value of an event around it; no template nests them."""
    inner = event_of(num("DCM 113838 DLP", "1", "mGy.cm"), num("DCM 113814 CT Effective Dose Total", "9", "mSv"))
    outer = event_of(num("DCM 113838 DLP", "2", "mGy.cm"), inner)
    result = made(report(X_RAY, outer, total(), instance="1.2.3.50"))
    assert [values(body) for body in bodies(result)] == [{"DLP": "2 mGy.cm"}, {"DLP": "1 mGy.cm"}, TOTAL]


def test_a_report_nested_without_end_is_cut() -> None:
    """Deeper than any template: the items above are taken, those below counted."""
    item = total()
    for _ in range(40):
        item = container("DCM 113811 CT Accumulated Dose Data", item)
    result = made(report(X_RAY, item, total(), instance="1.2.3.50"))
    assert [values(body) for body in bodies(result)] == [TOTAL]
    assert result.left_out == {"dose-item": 1}
