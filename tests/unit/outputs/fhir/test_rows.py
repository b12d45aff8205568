"""The facts of studies, as they are read from the tables of one run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from dicom_emulator.state.service import DicomService
from dicom_etl.commands.fhir.source import source_of, study_tables
from dicom_etl.core.errors import ConfigurationError
from dicom_etl.lake.open import existing_lake
from dicom_etl.outputs import execution
from dicom_etl.outputs.columns.design import design_of
from dicom_etl.outputs.fhir import rows
from dicom_etl.outputs.fhir.facts import StudyFacts
from dicom_etl.outputs.fhir.rows import StudyTables, patients, studies, study_keys
from support.handmade import HandmadeLake
from support.site import metadata

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def tables_of(lake: HandmadeLake) -> StudyTables:
    snapshot = existing_lake(lake.settings)
    return study_tables(snapshot, source_of(snapshot, execution.executions(execution.open_executions(snapshot.lake))))


def text(tag: str, vr: str, value: Any) -> dict[str, Any]:
    return {tag: {"vr": vr, "Value": [value]}}


@pytest.fixture
def lake(tmp_path: Path) -> HandmadeLake:
    """Two studies with one Study UID in two partitions, and a third; 2, 1 and 3 instances."""
    service = DicomService()
    service.create(
        ("Microsoft.Default", "1.1", "1.1.1", "1.1.1.1"),
        metadata(name="A^B", id="7", modality="CT", date="20240229", sop_class="1.2.840.10008.5.1.4.1.1.2")
        | text("00200013", "IS", 4)
        | text("00080050", "SH", "ACC"),
    )
    service.create(("Microsoft.Default", "1.1", "1.1.2", "1.1.2.1"), metadata(modality="SR"))
    service.create(("ward", "1.1", "1.1.1", "1.1.1.1"), metadata(id="8", modality="MR"))
    for number in range(3):
        service.create(("ward", "1.3", "1.3.1", f"1.3.1.{number}"), metadata(id="9", modality="US"))
    made = HandmadeLake(tmp_path, service)
    made.run(NOON)
    return made


def read(lake: HandmadeLake, keys: Sequence[Any] | None = None) -> list[StudyFacts]:
    tables = tables_of(lake)
    found = study_keys(tables.fixed["study"])
    return [study for part in studies(tables, found if keys is None else keys) for study in part]


def test_a_study_has_its_own_series_and_instances_and_those_of_no_other_partition(lake: HandmadeLake) -> None:
    found = {(study.partition, study.uid): study for study in read(lake)}
    assert list(found) == [("Microsoft.Default", "1.1"), ("ward", "1.1"), ("ward", "1.3")]
    assert {
        key: {series.uid: [row["SOPInstanceUID"] for row in series.instances] for series in study.series}
        for key, study in found.items()
    } == {
        ("Microsoft.Default", "1.1"): {"1.1.1": ["1.1.1.1"], "1.1.2": ["1.1.2.1"]},
        ("ward", "1.1"): {"1.1.1": ["1.1.1.1"]},
        ("ward", "1.3"): {"1.3.1": ["1.3.1.0", "1.3.1.1", "1.3.1.2"]},
    }
    study = found["Microsoft.Default", "1.1"]
    told = {name: study.values[name] for name in ("PatientID", "PatientName", "StudyDate", "AccessionNumber")}
    assert told == {"PatientID": "7", "PatientName": "A^B", "StudyDate": date(2024, 2, 29), "AccessionNumber": "ACC"}
    assert {series.uid: series.values["Modality"] for series in study.series} == {"1.1.1": "CT", "1.1.2": "SR"}
    (instance,) = study.series[0].instances
    assert (instance["InstanceNumber"], instance["SOPClassUID"]) == (4, "1.2.840.10008.5.1.4.1.1.2")
    assert (instance["sequence"], instance["lastModifiedTimestamp"].tzinfo is not None) == (1, True)


def test_only_the_studies_that_are_asked_for_are_read(lake: HandmadeLake) -> None:
    wanted = [(rows.StudyKey("ward", "1.1"), 1)]
    assert [(study.partition, study.uid) for study in read(lake, wanted)] == [("ward", "1.1")]
    told = list(patients(tables_of(lake), [rows.StudyKey("ward", "1.3")]))
    assert [(one.uid, one.values["PatientID"], one.series) for one in told] == [("1.3", "9", ())]
    assert [one.values["PatientID"] for one in patients(tables_of(lake))] == ["7", "8", "9"]


def test_studies_come_in_parts_of_bounded_size(lake: HandmadeLake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_INSTANCES", 3)
    tables = tables_of(lake)
    parts = list(studies(tables, study_keys(tables.fixed["study"])))
    assert [[study.uid for study in part] for part in parts] == [["1.1", "1.1"], ["1.3"]]


def test_a_tag_that_was_renamed_is_found_and_one_of_a_lower_level_is_refused(tmp_path: Path) -> None:
    service = DicomService()
    service.create(
        ("Microsoft.Default", "1.1", "1.1.1", "1.1.1.1"), metadata(modality="CT") | text("00200013", "IS", 4)
    )
    renamed = HandmadeLake(tmp_path / "a", service, design=design_of(["InstanceNumber name=no"]))
    renamed.run(NOON)
    assert read(renamed)[0].series[0].instances[0]["InstanceNumber"] == 4
    lowered = HandmadeLake(tmp_path / "b", service, design=design_of(["AccessionNumber level=instance"]))
    lowered.run(NOON)
    with pytest.raises(ConfigurationError, match=r"^columns\.tags: fhir needs AccessionNumber in study_tags"):
        read(lowered)
