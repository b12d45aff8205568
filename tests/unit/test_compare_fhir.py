"""The judge of `make compare-fhir` sees each kind of error, and its history has what it promises; without a server."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from bench.fhir_judge import DCM, Held, Served, holdings, judge
from bench.fhir_report import Figures, report
from bench.fhir_story import EHR_PATIENT, OTHER, PARTITION, Phase, story
from dicom_emulator.options import EmulatorOptions
from dicom_emulator.state.service import DicomService
from tests.fhir.hapi import Counters

Json = dict[str, Any]
IMAGES = frozenset({("1.5.1", "1.5.1.1"), ("1.5.1", "1.5.1.2"), ("1.5.2", "1.5.2.1")})
HELD = Held("p", "1.5", IMAGES, frozenset({"CT"}), frozenset({"MRN-0"}), has_zone=False)
ALL_RIGHT = {
    "studies without an ImagingStudy": 0,
    "studies that another partition's ImagingStudy hides": 0,
    "ImagingStudies of studies that are gone": 0,
    "instances listed that are gone": 0,
    "living instances that are not listed": 0,
    "ImagingStudies whose modality is missing or not DCM's": 0,
    "ImagingStudies whose counts are missing or wrong": 0,
    "ImagingStudies of another patient than the headers'": 0,
    "ImagingStudies with a time zone that no header tells": 0,
    "ImagingStudies that HAPI's validator refuses": 0,
    "Patients of the hospital that were overwritten": 0,
}


def right() -> Json:
    """The ImagingStudy of HELD, as it should be."""
    modality = {"system": DCM, "code": "CT"}
    images = {"1.5.1": ["1.5.1.1", "1.5.1.2"], "1.5.2": ["1.5.2.1"]}
    series = [
        {"uid": uid, "modality": modality, "numberOfInstances": len(sops), "instance": [{"uid": one} for one in sops]}
        for uid, sops in images.items()
    ]
    return {
        "resourceType": "ImagingStudy", "id": "s", "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.5"}],
        "status": "available", "modality": [modality], "subject": {"reference": "Patient/ehr-1"},
        "started": "2024-05-01", "numberOfSeries": 2, "numberOfInstances": 3, "series": series,
    }  # fmt: skip


def served(*studies: Json, invalid: tuple[str, ...] = (), patient: Json = EHR_PATIENT) -> Served:
    return Served(studies, {"ehr-1": patient}, frozenset(invalid))


def wrong(found: Served, *held: Held) -> Json:
    return {what: count for what, count in judge(found, held, EHR_PATIENT).items() if count}


def test_a_server_that_is_right_has_nothing_wrong() -> None:
    """With the hospital's Patient referred to, and with its number alone."""
    assert judge(served(right()), [HELD], EHR_PATIENT) == ALL_RIGHT
    logical = {**right(), "subject": {"identifier": {"value": "MRN-0"}}}
    assert judge(served(logical), [HELD], EHR_PATIENT) == ALL_RIGHT


def change(path: str, value: Any) -> Callable[[Json], None]:
    """A change of the resource at a path such as ``series.0.uid``; None: the element goes."""

    def apply(resource: Any) -> None:
        *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        for step in way:
            resource = resource[step]
        if value is None:
            del resource[last]
        else:
            resource[last] = value

    return apply


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        ("modality", None, "ImagingStudies whose modality is missing or not DCM's"),
        ("modality.0", {"system": "DCM", "code": "CT"}, "ImagingStudies whose modality is missing or not DCM's"),
        ("series.0.modality", {"code": "CT"}, "ImagingStudies whose modality is missing or not DCM's"),
        ("numberOfSeries", None, "ImagingStudies whose counts are missing or wrong"),
        ("numberOfInstances", 2, "ImagingStudies whose counts are missing or wrong"),
        ("series.1.numberOfInstances", None, "ImagingStudies whose counts are missing or wrong"),
        ("subject", {"identifier": {"value": "MRN-1"}}, "ImagingStudies of another patient than the headers'"),
        ("subject", {"reference": "Patient/unknown"}, "ImagingStudies of another patient than the headers'"),
        ("started", "2024-05-01T10:15:00Z", "ImagingStudies with a time zone that no header tells"),
        ("started", "2024-05-01T10:15:00+00:00", "ImagingStudies with a time zone that no header tells"),
        ("series.0.instance.0", None, "living instances that are not listed"),
        ("series.0.instance.2:", [{"uid": "1.5.1.9"}], "instances listed that are gone"),
    ],
)
def test_each_error_of_a_study_is_seen(path: str, value: Any, what: str) -> None:
    """The twins: one element is changed, one line says so."""
    resource = deepcopy(right())
    if path.endswith(":"):
        resource["series"][0]["instance"] += value
    else:
        change(path, value)(resource)
    assert resource != right()
    assert wrong(served(resource), HELD) == {what: 1}


def test_missing_hidden_and_gone_studies_are_told_apart() -> None:
    """By the resources of a UID and the partitions that have it."""
    other = Held("q", "1.5", frozenset({("1.5.1", "1.5.1.1")}), HELD.modalities, HELD.patients, has_zone=False)
    assert wrong(served(), HELD) == {
        "studies without an ImagingStudy": 1, "living instances that are not listed": 3,
    }  # fmt: skip
    assert wrong(served(right())) == {
        "ImagingStudies of studies that are gone": 1, "instances listed that are gone": 3,
    }  # fmt: skip
    assert wrong(served(right()), HELD, other) == {
        "studies that another partition's ImagingStudy hides": 1, "living instances that are not listed": 1,
    }  # fmt: skip


def test_a_changed_patient_and_a_refused_study_are_seen() -> None:
    assert wrong(served(right(), invalid=("s",)), HELD) == {"ImagingStudies that HAPI's validator refuses": 1}
    overwritten = {**EHR_PATIENT, "gender": "male"}
    assert wrong(served(right(), patient=overwritten), HELD) == {"Patients of the hospital that were overwritten": 1}


def test_the_history_has_updates_deletions_and_two_partitions() -> None:
    """Five phases; their rows of the feed and what is held in the end, counted by hand."""
    service = DicomService(EmulatorOptions(partitions=True))
    phases = story(studies=4, instances=8)
    rows = []
    for phase in phases:
        phase.happen(service)
        rows.append(service.next_sequence - 1 - sum(rows))
    assert rows == [4 * 8 + 24, 60, 1 + 2 + 8 + 6, 8, 5 + 6]
    held = holdings(service)
    assert sorted((one.partition, len(one.instances)) for one in held) == [
        (PARTITION, 6), (PARTITION, 6), (PARTITION, 6), (PARTITION, 8), (PARTITION, 68), (OTHER, 6),
    ]  # fmt: skip
    assert OTHER in {row.key.partition for row in service.history.window(0, 2**62, 0, 1000)}
    assert [one.patients for one in held if "MRN-CORRECTED" in one.patients] == [{"MRN-CORRECTED"}]
    assert not any(one.has_zone for one in held)
    with pytest.raises(ValueError, match="4 studies"):
        story(studies=3, instances=8)


def test_the_report_shows_figures_and_what_is_wrong() -> None:
    """Word for word, but for the spaces; how many times as much theirs took stands below."""
    phases = [Phase("one study", lambda _service: None)]
    figures = {
        "Updates skipped": [Figures(Counters(720, 2_700_000, 2_600_000), 50.0, 0.1)],
        "ours": [Figures(Counters(2, 30_000, 1_000), 0.5, 6.0)],
    }
    text = report(phases, figures, {"DICOMcast": {"lost": 1_234}, "ours": {"lost": 0}}, ended_at=77)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "DICOMcast 720 2,700,000 2,600,000 50.0" in lines
    assert "ours 2 30,000 1,000 0.5" in lines
    assert "360 x 90 x 2,600 x 100 x" in lines
    assert "lost 1,234 0" in lines
    assert "ends at entry 77" in text
    assert "took 6 s before" in text
