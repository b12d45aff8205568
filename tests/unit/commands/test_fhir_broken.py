"""Broken twins of the output `fhir`: what DICOMcast does, or an output that keeps no record, is caught by its check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dicom_emulator.fhir.serve import FhirEmulator, serve_fhir
from dicom_emulator.state.service import DicomService
from dicom_etl.commands.fhir import execute
from dicom_etl.commands.fhir.execute import Executor, Scope
from dicom_etl.commands.fhir.update import update
from dicom_etl.lake.delta.table import read_rows
from dicom_etl.outputs.fhir.facts import Resource
from dicom_etl.outputs.fhir.rows import StudyKey
from dicom_etl.outputs.fhir.sent import Recorder
from support.broken import Mutant, assert_caught, checks
from support.handmade import HandmadeLake
from support.site import metadata

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
SYSTEM = "https://hospital.example.org"
KEY = ("Microsoft.Default", "1.1", "1.1.1", "1.1.1.1")


@pytest.fixture
def server() -> Iterator[FhirEmulator]:
    with serve_fhir() as found:
        yield found


def a_lake(folder: Path, server: FhirEmulator) -> HandmadeLake:
    """A lake with one study of patient P1."""
    folder.mkdir(exist_ok=True)
    lake = HandmadeLake(folder, DicomService(), f"fhir.base_url={server.base_url}", f"fhir.default_system={SYSTEM}")
    lake.service.create(KEY, metadata(id="P1", name="A^B", modality="CT"))
    lake.run(NOON)
    return lake


def followed(lake: HandmadeLake, hours: int, **how: Any) -> None:
    now = NOON + timedelta(hours=hours)
    lake.run(now)
    update(lake.settings, clock=lambda: now, **how)


def check_what_is_equal_is_not_sent(folder: Path, server: FhirEmulator) -> None:
    lake = a_lake(folder / "equal", server)
    followed(lake, 0)
    before = len(server.service.requests)
    followed(lake, 1)
    assert len(server.service.requests) == before, "sent again"


def check_a_study_that_came_back_stays(folder: Path, server: FhirEmulator) -> None:
    """It was deleted and created again between two executions."""
    lake = a_lake(folder / "back", server)
    followed(lake, 0)
    lake.service.delete(*KEY)
    lake.service.create(KEY, metadata(id="P1", modality="MR"))
    followed(lake, 1)
    found = server.service.resources("ImagingStudy").values()
    assert [body["modality"][0]["code"] for body in found] == ["MR"], "the study is gone or old"


def check_the_records_patient_is_untouched(folder: Path, server: FhirEmulator) -> None:
    lake = a_lake(folder / "patient", server)
    theirs = {
        "resourceType": "Patient",
        "id": "ehr-1",
        "identifier": [{"system": SYSTEM, "value": "P1"}],
        "gender": "other",
    }
    server.service.store.put("Patient", "ehr-1", theirs, None)
    followed(lake, 0)
    found = server.service.resources("Patient")["ehr-1"]
    assert {name: found.get(name) for name in theirs} == theirs, "the record's Patient was changed"


def _by_event(self: Executor, everything: Sequence[Any], ids: set[str], landed: set[StudyKey]) -> Scope:
    """What an entry says is deleted counts as deleted."""
    rows = read_rows(self.snapshot.table("change"), ["partitionName", "studyInstanceUid", "action"]).to_pylist()
    deleted = {StudyKey(row["partitionName"], row["studyInstanceUid"]) for row in rows if row["action"] == "Delete"}
    return Scope([one for one in everything if one[0] in landed - deleted], frozenset(ids), False)


_resolved = execute.resolved


def _overwriting(patients: Any, options: Any, *others: Any) -> Any:
    """Each Patient that is found is written as the images have it, as DICOMcast does."""
    found = _resolved(patients, options, *others)
    ours = {
        key: Resource("Patient", row.resource_id, {"resourceType": "Patient", "id": row.resource_id}, {})
        for key, row in found.found.items()
        if row.resource_id is not None
    }
    return replace(found, own=ours)


MUTANTS = [
    Mutant(
        "a record of what was sent", check_what_is_equal_is_not_sent, Recorder, "flush", lambda _: None, "sent again"
    ),
    Mutant(
        "rows decide, not entries", check_a_study_that_came_back_stays, Executor, "_living", _by_event,
        "the study is gone or old",
    ),
    Mutant(
        "a Patient that is not ours is never changed", check_the_records_patient_is_untouched, execute, "resolved",
        _overwriting, "the record's Patient was changed",
    ),
]  # fmt: skip


@pytest.mark.parametrize("check", checks(MUTANTS))
def test_the_rule_holds(check: Any, tmp_path: Path, server: FhirEmulator) -> None:
    check(tmp_path, server)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.rule)
def test_its_breach_is_caught(mutant: Mutant, tmp_path: Path, server: FhirEmulator) -> None:
    assert_caught(mutant, tmp_path, server)
