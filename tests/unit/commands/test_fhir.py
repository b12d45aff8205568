"""`dicom-etl fhir` and its commands, against a FHIR server on a socket."""

from __future__ import annotations

import json
import logging
import runpy
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem

from dicom_emulator.fhir.faults import EntryFault
from dicom_emulator.fhir.options import FhirOptions
from dicom_emulator.fhir.serve import FhirEmulator, serve_fhir
from dicom_emulator.state.service import DicomService
from dicom_etl.commands.doctor.fhir import fhir_findings
from dicom_etl.commands.fhir.adopt import Adopted, adopt
from dicom_etl.commands.fhir.export import export
from dicom_etl.commands.fhir.import_files import Imported, import_files, parameters
from dicom_etl.commands.fhir.update import Asked, Tools, update
from dicom_etl.commands.fhir.verify import verify
from dicom_etl.commands.fhir.withdraw import withdraw
from dicom_etl.commands.outputs import not_taken
from dicom_etl.core.errors import AnotherWriter, ConfigurationError, ProtocolError, UsageError
from dicom_etl.core.progress import NullProgress
from dicom_etl.lake.open import existing_lake
from dicom_etl.outputs.claim import claimed
from dicom_etl.outputs.execution import Execution, executions, open_executions
from dicom_etl.outputs.fhir import sent
from dicom_etl.outputs.fhir.sent import open_sent, record_of
from dicom_etl.outputs.fhir.server import FhirServer
from support.crashes import Crash
from support.dose_reports import ct
from support.fhir_double import fhir_settings
from support.handmade import SERVICE, HandmadeLake
from support.site import metadata

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
SYSTEM = "https://hospital.example.org"
CANARY = "CANARY^PATIENT"
DEFAULT = "Microsoft.Default"


@dataclass
class Story:
    """A lake whose runs follow a local service, before a FHIR server."""

    lake: HandmadeLake
    server: FhirEmulator
    now: datetime = NOON
    texts: tuple[str, ...] = field(default=())

    @property
    def service(self) -> DicomService:
        return self.lake.service

    @property
    def tools(self) -> Tools:
        return Tools(self.lake.having(*self.texts), NullProgress(), lambda: self.now, lambda _: None)

    def fhir(self, *texts: str, **asked: bool) -> Execution | None:
        """A run that has read everything, and an execution an hour later."""
        self.now += timedelta(hours=1)
        self.lake.run(self.now)
        return self.again(*texts, **asked)

    def again(self, *texts: str, **asked: bool) -> Execution | None:
        """An execution without a run before it."""
        settings = self.lake.having(*self.texts, *texts)
        return update(settings, Asked(**asked), clock=lambda: self.now, sleep=lambda _: None)

    def resources(self, kind: str) -> dict[str, Any]:
        return self.server.service.resources(kind)

    def studies(self) -> dict[str, Any]:
        """The server's ImagingStudy by Study UID."""
        return {
            body["identifier"][0]["value"].removeprefix("urn:oid:"): body
            for body in self.resources("ImagingStudy").values()
        }

    def patient(self, identity: str, number: str) -> None:
        """The record system makes a Patient."""
        identifier = {"system": SYSTEM, "value": number}
        body = {"resourceType": "Patient", "id": identity, "identifier": [identifier], "gender": "other"}
        self.server.service.store.put("Patient", identity, body, None)

    @property
    def requests(self) -> int:
        return len(self.server.service.requests)


def create(story: Story, study: str, sop: str, partition: str = DEFAULT, **values: Any) -> None:
    more = values.pop("more", {})
    story.service.create((partition, study, f"{study}.1", sop), metadata(**values) | more)


@pytest.fixture
def server() -> Iterator[FhirEmulator]:
    with serve_fhir(FhirOptions(keep_referenced=True, quoting=CANARY)) as found:
        yield found


@pytest.fixture
def story(tmp_path: Path, server: FhirEmulator) -> Story:
    """Two studies of two patients: 1.1 with two instances of P1, 1.2 with one of P2."""
    texts = (f"fhir.base_url={server.base_url}", f"fhir.default_system={SYSTEM}", "fhir.retry_seconds=3")
    told = Story(HandmadeLake(tmp_path, DicomService(), *texts), server)
    create(told, "1.1", "1.1.1", id="P1", name=CANARY, modality="CT", date="20240229", description="Head")
    create(told, "1.1", "1.1.2", id="P1", name=CANARY, modality="CT", date="20240229", description="Head")
    create(told, "1.2", "1.2.1", id="P2", name=CANARY, modality="MR")
    return told


def counts(done: Execution | None) -> tuple[int, int, int, int, int]:
    """Written, withdrawn, unchanged, refused, failed."""
    assert done is not None
    assert done.counts.whole
    told = done.counts
    return told.written, told.withdrawn, told.unchanged, told.refused, told.failed


def test_an_update_a_deletion_and_a_new_study_are_followed(story: Story) -> None:
    assert counts(story.fhir()) == (3, 0, 0, 0, 0), "an Endpoint and two studies"
    assert {uid: body["numberOfInstances"] for uid, body in story.studies().items()} == {"1.1": 2, "1.2": 1}
    assert story.again() is None
    story.service.delete(DEFAULT, "1.1", "1.1.1", "1.1.2")
    story.service.delete(DEFAULT, "1.2", "1.2.1", "1.2.1")
    create(story, "1.3", "1.3.1", id="P3", modality="US")
    assert counts(story.fhir()) == (2, 1, 1, 0, 0)
    assert {uid: body["numberOfInstances"] for uid, body in story.studies().items()} == {"1.1": 1, "1.3": 1}


def test_nothing_new_asks_nothing_and_an_unchanged_study_is_not_sent(story: Story) -> None:
    story.fhir()
    before = story.requests
    assert story.again() is None
    assert story.requests == before
    done = story.again(full=True)
    assert counts(done) == (0, 0, 3, 0, 0)
    asked = [one.method for one in story.server.service.requests[before:]]
    assert asked == ["GET"] * 5, "the capability statement, and of each kind what bears our mark"


def test_a_window_of_six_studies_takes_two_requests(story: Story) -> None:
    """One for the patients, one for the studies; the first execution asks what the server can, too."""
    story.fhir()
    for number in range(6):
        for instance in range(3):
            create(story, f"2.{number}", f"2.{number}.{instance}", id=f"N{number}", modality="CT")
    before = story.requests
    assert counts(story.fhir()) == (6, 0, 1, 0, 0)
    assert story.requests - before == 2


def test_a_study_refers_to_the_records_patient_and_moves_when_its_number_is_corrected(story: Story) -> None:
    story.patient("ehr-1", "P1")
    story.patient("ehr-2", "P2")
    done = story.fhir()
    assert done is not None
    assert done.details["matched"] == 2
    assert {uid: body["subject"] for uid, body in story.studies().items()} == {
        "1.1": {"reference": "Patient/ehr-1"},
        "1.2": {"reference": "Patient/ehr-2"},
    }
    story.service.update((DEFAULT, "1.2", "1.2.1", "1.2.1"), metadata(id="P1", modality="MR"))
    assert counts(story.fhir()) == (1, 0, 1, 0, 0)
    assert story.studies()["1.2"]["subject"] == {"reference": "Patient/ehr-1"}
    assert {body["gender"] for body in story.resources("Patient").values()} == {"other"}
    assert story.server.service.store.read("Patient", "ehr-1").resource["meta"]["versionId"] == "1"  # type: ignore[index]


def test_a_patient_that_the_server_lacked_is_asked_for_again_after_a_while(story: Story) -> None:
    """Although nothing changed in the tables; and a Patient of our own goes when the record has one."""
    story.texts = ("fhir.patients=find_or_create",)
    assert counts(story.fhir()) == (5, 0, 0, 0, 0), "an Endpoint, two Patients, two studies"
    story.patient("ehr-1", "P1")
    assert story.again() is None
    story.now += timedelta(days=2)
    done = story.again()
    assert counts(done) == (1, 1, 3, 0, 0), "the study moves, our Patient goes; Endpoint, P2 and its study stay"
    assert story.studies()["1.1"]["subject"] == {"reference": "Patient/ehr-1"}
    assert sorted(body["identifier"][0]["value"] for body in story.resources("Patient").values()) == ["P1", "P2"]
    assert story.again() is None


def test_several_patients_of_one_number_and_numbers_without_a_system_are_nobodys(story: Story) -> None:
    story.patient("ehr-1", "P1")
    story.patient("ehr-2", "P1")
    done = story.fhir()
    assert done is not None
    assert (done.details["ambiguous"], done.details["unmatched"]) == (1, 1)
    assert story.studies()["1.1"]["subject"]["identifier"]["value"] == "P1"
    before = story.requests
    done = story.again("fhir.default_system=")
    assert done is not None
    assert done.details["without-system"] == 2
    assert [one.entries for one in story.server.service.requests[before:] if one.method == "POST"] == [2]


def test_a_refused_resource_blocks_nobody_and_is_sent_again_when_it_changes(story: Story) -> None:
    story.fhir()
    refused = story.studies()["1.1"]["id"]
    story.server.service.entry_faults.append(EntryFault(422, "invariant", path=f"ImagingStudy/{refused}"))
    for uid in ("1.1", "1.2"):
        story.service.update(
            (DEFAULT, uid, f"{uid}.1", f"{uid}.1"), metadata(id="P1", modality="CT", description="Neck")
        )
    assert counts(story.fhir()) == (1, 0, 1, 1, 0)
    story.server.service.entry_faults.clear()
    assert {uid: body.get("description") for uid, body in story.studies().items()} == {"1.1": "Head", "1.2": "Neck"}
    (row,) = [one for one in _record(story) if one.state == "refused"]
    assert (row.key, row.http_status, row.issue_code) == (refused, 422, "invariant")
    assert story.again() is None, "it is the same: it is not sent again by itself"
    assert counts(story.again(retry=True)) == (1, 0, 1, 0, 0)
    assert story.studies()["1.1"]["description"] == "Neck"


def test_what_the_server_failed_with_is_sent_again_by_the_next_execution(story: Story) -> None:
    story.fhir()
    create(story, "1.3", "1.3.1", id="P3", modality="US")
    (study,) = [body["id"] for uid, body in story.studies().items() if uid == "1.1"]
    story.service.update((DEFAULT, "1.1", "1.1.1", "1.1.1"), metadata(id="P1", modality="CT", description="Neck"))
    story.server.service.entry_faults.append(EntryFault(500, path=f"ImagingStudy/{study}"))
    assert counts(story.fhir())[-1] == 1
    story.server.service.entry_faults.clear()
    assert story.studies()["1.1"]["description"] == "Head"
    assert counts(story.again()) == (1, 0, 1, 0, 0)
    assert story.studies()["1.1"]["description"] == "Neck"
    assert story.again() is None


def _record(story: Story) -> list[Any]:
    (server,) = {row["server"] for row in _sent_rows(story)}
    return [row for row in record_of(open_sent(story.lake.lake), server).values() if row.kind != "PatientSearch"]


def _sent_rows(story: Story) -> list[dict[str, Any]]:
    table = open_sent(story.lake.lake)
    assert table is not None
    return list(table.to_pyarrow_table().to_pylist())


def test_what_a_dead_execution_sent_and_never_recorded_is_taken_back(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed between the answer and the record, and then the study was deleted: no record names it."""
    story.fhir()
    create(story, "1.3", "1.3.1", id="P3", modality="US")
    with monkeypatch.context() as patched:
        patched.setattr(sent, "append_rows", _dying)
        with pytest.raises(Crash):
            story.fhir()
    assert "1.3" in story.studies()
    story.service.delete(DEFAULT, "1.3", "1.3.1", "1.3.1")
    assert counts(story.fhir()) == (1, 1, 0, 0, 0), "the Endpoint's row is of before the death: it is sent again"
    assert set(story.studies()) == {"1.1", "1.2"}
    before = story.requests
    story.fhir()
    assert story.requests == before, "the server is searched once"


def _dying(*_: Any, **__: Any) -> None:
    raise Crash


def test_what_a_dead_execution_overwrote_is_sent_again_although_the_record_says_that_it_stands(
    story: Story, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The study was changed, sent, not recorded, and changed back: its digest is the one that the record has."""
    story.fhir()
    key = (DEFAULT, "1.2", "1.2.1", "1.2.1")
    story.service.update(key, metadata(id="P2", modality="CR"))
    with monkeypatch.context() as patched:
        patched.setattr(sent, "append_rows", _dying)
        with pytest.raises(Crash):
            story.fhir()
    assert story.studies()["1.2"]["modality"][0]["code"] == "CR"
    story.service.update(key, metadata(id="P2", name=CANARY, modality="MR"))
    story.fhir()
    assert story.studies()["1.2"]["modality"][0]["code"] == "MR"


def test_nothing_is_deleted_for_a_server_that_ignores_the_mark(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives everything that it has: what is not ours is not touched, and the command says why it stops."""
    story.patient("ehr-1", "P1")
    story.fhir()
    told = FhirServer.search
    monkeypatch.setattr(FhirServer, "search", lambda self, kind, _: told(self, kind, [("_count", "50")]))
    with pytest.raises(ProtocolError, match="does not search by _tag"):
        withdraw(story.tools)
    assert "ehr-1" in story.resources("Patient")


def test_a_study_waits_for_its_patient_and_endpoint(story: Story) -> None:
    """The server fails for a Patient of ours: a study that refers to it would be refused, so it is held back."""
    story.texts = ("fhir.patients=own",)
    story.server.service.entry_faults.append(EntryFault(500, method="PUT", times=6))
    done = story.fhir()
    assert done is not None
    assert done.counts.failed >= 2
    assert done.counts.refused == 0
    story.server.service.entry_faults.clear()
    done = story.again()
    assert done is not None
    assert (done.counts.refused, done.counts.failed) == (0, 0)
    assert set(story.studies()) == {"1.1", "1.2"}
    assert story.again() is None


def test_a_search_that_fails_takes_no_patient_away(story: Story) -> None:
    story.texts = ("fhir.patients=find_or_create",)
    story.patient("ehr-1", "P1")
    story.fhir()
    story.now += timedelta(days=2)
    create(story, "1.4", "1.4.1", id="P1", modality="US")
    story.server.service.entry_faults.append(EntryFault(500, method="GET"))
    create(story, "1.5", "1.5.1", id="P5", modality="US")
    story.lake.run(story.now)
    done = story.again()
    assert done is not None
    assert done.counts.failed == 3, "P1 and P2 once more, and P5"
    assert "reference" in story.studies()["1.2"]["subject"], "the Patient of ours stays"
    assert story.studies()["1.4"]["subject"] == {"reference": "Patient/ehr-1"}
    assert "reference" not in story.studies()["1.5"]["subject"], "no Patient is made of ours while nobody knows"
    story.server.service.entry_faults.clear()
    story.again()
    assert "reference" in story.studies()["1.5"]["subject"]


def test_a_record_that_was_lost_or_put_back_leaves_no_ghosts(story: Story) -> None:
    story.fhir()
    create(story, "1.3", "1.3.1", id="P3", modality="US")
    story.fhir()
    table = open_sent(story.lake.lake)
    assert table is not None
    table.restore(1)
    story.service.delete(DEFAULT, "1.3", "1.3.1", "1.3.1")
    story.fhir()
    assert set(story.studies()) == {"1.1", "1.2"}
    shutil.rmtree(story.lake.lake.path("fhir_sent"))
    story.service.delete(DEFAULT, "1.2", "1.2.1", "1.2.1")
    story.fhir()
    assert set(story.studies()) == {"1.1"}


def test_the_address_of_another_service_is_refused_and_another_spelling_changes_nothing(story: Story) -> None:
    story.fhir()
    with pytest.raises(ConfigurationError, match="this lake holds another service"):
        story.again("dicom.base_url=https://other-svc.dicom.azurehealthcareapis.com")
    before = set(story.resources("ImagingStudy"))
    story.again(f"dicom.base_url={SERVICE.replace('ws-svc', 'WS-SVC')}/")
    assert set(story.resources("ImagingStudy")) == before


def test_one_study_that_the_server_stumbles_over_blocks_nothing(story: Story) -> None:
    """It is alone in its window: the server is asked for something else before it is said to fail."""
    story.fhir()
    poisoned = story.studies()["1.1"]["id"]
    story.server.service.entry_faults.append(EntryFault(500, path=f"ImagingStudy/{poisoned}"))
    story.service.update((DEFAULT, "1.1", "1.1.1", "1.1.1"), metadata(id="P1", modality="CT", description="Neck"))
    story.service.delete(DEFAULT, "1.2", "1.2.1", "1.2.1")
    assert counts(story.fhir()) == (0, 1, 1, 0, 1)
    assert set(story.studies()) == {"1.1"}


def test_an_execution_behind_a_sync_that_was_not_taken_whole_ends_with_65(story: Story) -> None:
    story.fhir()
    refused = story.studies()["1.1"]["id"]
    story.server.service.entry_faults.append(EntryFault(422, "invariant", path=f"ImagingStudy/{refused}"))
    story.service.update((DEFAULT, "1.1", "1.1.1", "1.1.1"), metadata(id="P1", modality="CT", description="Neck"))
    done = story.fhir()
    told = not_taken(done)
    assert told is not None
    assert (told.exit_code, str(told)) == (65, "fhir: 1 resources were refused and 0 failed: see its state table")
    assert [one.right for one in verify(story.tools) if one.kind == "ImagingStudy"] == [False]
    assert not_taken(story.again(full=True, retry=True)) is not None


def test_equal_sop_uids_of_two_dose_reports_are_two_sets_of_observations(story: Story) -> None:
    report = ct().to_json_dict() | metadata(id="P1", modality="SR", sop_class="1.2.840.10008.5.1.4.1.1.88.67")
    for study in ("1.1", "1.2"):
        story.service.create((DEFAULT, study, f"{study}.9", "1.9.9.9"), report)
    story.fhir()
    found = len(story.resources("Observation"))
    assert found >= 4
    story.service.delete(DEFAULT, "1.2", "1.2.9", "1.9.9.9")
    story.fhir()
    assert len(story.resources("Observation")) == found // 2


def test_equal_uids_in_two_partitions_are_two_studies_with_two_endpoints(story: Story) -> None:
    create(story, "1.1", "1.1.1", partition="ward", id="P9", modality="CR")
    story.fhir()
    assert len(story.resources("ImagingStudy")) == 3
    assert sorted(body["address"] for body in story.resources("Endpoint").values()) == [
        f"{SERVICE}/v2",
        f"{SERVICE}/v2/partitions/ward",
    ]
    story.service.delete("ward", "1.1", "1.1.1", "1.1.1")
    assert counts(story.fhir()) == (0, 2, 1, 0, 0), "the study goes, and the Endpoint of a partition without studies"


def test_dose_reports_become_observations_and_go_with_their_report(story: Story) -> None:
    report = ct().to_json_dict() | metadata(id="P1", modality="SR", sop_class="1.2.840.10008.5.1.4.1.1.88.67")
    story.service.create((DEFAULT, "1.1", "1.1.9", "1.1.9.1"), report)
    done = story.fhir()
    found = story.resources("Observation")
    assert len(found) >= 2
    assert counts(done) == (3 + len(found), 0, 0, 0, 0)
    (study,) = [body["id"] for uid, body in story.studies().items() if uid == "1.1"]
    assert {body["partOf"][0]["reference"] for body in found.values()} == {f"ImagingStudy/{study}"}
    story.service.update((DEFAULT, "1.1", "1.1.1", "1.1.1"), metadata(id="P1", modality="CT", description="Neck"))
    assert counts(story.fhir()) == (1, 0, 1 + len(found), 0, 0)
    story.service.delete(DEFAULT, "1.1", "1.1.9", "1.1.9.1")
    assert counts(story.fhir()) == (1, len(found), 1, 0, 0)
    assert story.resources("Observation") == {}


def test_verify_finds_what_was_changed_deleted_or_left_behind(story: Story) -> None:
    story.fhir()
    assert all(one.right for one in verify(story.tools))
    store = story.server.service.store
    first, second = sorted(story.resources("ImagingStudy"))
    changed = story.resources("ImagingStudy")[first] | {"description": "changed by somebody"}
    store.put("ImagingStudy", first, changed, None)
    store.delete("ImagingStudy", second, None)
    store.put("ImagingStudy", "ghost", changed | {"id": "ghost"}, None)
    found = {one.kind: one for one in verify(story.tools)}["ImagingStudy"]
    assert (found.equal, found.differs, found.missing, found.unknown) == (0, 1, 1, 1)


def test_withdraw_takes_back_all_that_is_ours_and_the_next_execution_sends_it_again(story: Story) -> None:
    story.texts = ("fhir.patients=find_or_create",)
    story.patient("ehr-1", "P1")
    story.fhir()
    ghost = next(iter(story.resources("ImagingStudy").values())) | {"id": "ghost"}
    story.server.service.store.put("ImagingStudy", "ghost", ghost, None)
    done = withdraw(story.tools)
    assert counts(done)[:2] == (0, 5), "an Endpoint, P2, two studies and the one that nobody recorded"
    assert [len(story.resources(kind)) for kind in ("ImagingStudy", "Endpoint", "Patient")] == [0, 0, 1]
    assert counts(story.again()) == (4, 0, 0, 0, 0)


def test_what_dicomcast_left_is_taken_over_and_keeps_its_id(story: Story) -> None:
    store = story.server.service.store
    store.put("Patient", "p", {"resourceType": "Patient", "id": "p"}, None)
    for identity, uid, source in (("old", "1.1", SERVICE), ("foreign", "1.2", "https://other.example.org")):
        body = {
            "resourceType": "ImagingStudy", "id": identity, "status": "available", "meta": {"source": source},
            "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}],
            "subject": {"reference": "Patient/p"},
        }  # fmt: skip
        store.put("ImagingStudy", identity, body, None)
    story.lake.run(story.now)
    assert adopt(story.tools) == Adopted(adopted=1, several=0, foreign=1)
    story.again()
    ours = {identity for identity, body in story.resources("ImagingStudy").items() if "tag" in body["meta"]}
    assert len(ours) == 2
    assert "old" in ours
    assert story.resources("ImagingStudy")["old"]["numberOfInstances"] == 2
    assert story.resources("ImagingStudy")["foreign"]["meta"]["source"] == "https://other.example.org"
    assert all(one.right for one in verify(story.tools))
    story.service.delete(DEFAULT, "1.1", "1.1.1", "1.1.1")
    story.service.delete(DEFAULT, "1.1", "1.1.1", "1.1.2")
    story.fhir()
    assert "old" not in story.resources("ImagingStudy")


def test_an_export_has_what_would_be_sent_and_what_is_gone(story: Story, tmp_path: Path) -> None:
    story.fhir()
    done = export(story.tools, str(tmp_path / "all"))
    assert done.counts == {"Endpoint": 1, "Patient": 0, "ImagingStudy": 2, "Observation": 0}
    (file,) = (tmp_path / "all").glob("ImagingStudy-*.ndjson")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    sent = {
        body["id"]: {k: v for k, v in body.items() if k != "meta"} for body in story.resources("ImagingStudy").values()
    }
    assert {line["id"]: {k: v for k, v in line.items() if k != "meta"} for line in lines} == sent
    first = story.lake.runs
    story.service.delete(DEFAULT, "1.2", "1.2.1", "1.2.1")
    story.fhir()
    done = export(story.tools, str(tmp_path / "since"), first)
    assert (done.counts["ImagingStudy"], done.deletions) == (1, 1)
    (file,) = (tmp_path / "since").glob("ImagingStudy-*.ndjson")
    (line,) = [json.loads(line) for line in file.read_text().splitlines()]
    assert line["meta"]["extension"][0]["valueString"] == "soft-deleted"
    assert file.stat().st_mode & 0o077 == 0
    with pytest.raises(UsageError, match="has an export already"):
        export(story.tools, str(tmp_path / "since"))


def _content(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "meta"}


def test_a_dry_run_counts_and_changes_nothing(story: Story) -> None:
    done = story.fhir(dry_run=True)
    assert counts(done) == (3, 0, 0, 0, 0)
    assert story.resources("ImagingStudy") == {}
    assert open_sent(story.lake.lake) is None
    assert [one for one in executions(open_executions(story.lake.lake)) if one.output == "fhir"] == []


def test_an_export_is_imported_by_the_server_itself(story: Story, tmp_path: Path) -> None:
    """It is told the https addresses of the files, and asked until it is done."""
    story.lake.run(story.now)
    export(story.tools, str(tmp_path / "all"))
    address = "abfss://fhir@contoso.dfs.core.windows.net/2026"
    before = story.requests
    done = import_files(story.tools, address, lambda _: (LocalFileSystem(), str(tmp_path / "all")))
    assert done == Imported(0, 0), "the server of the tests reads no files"
    assert [(one.method, one.status) for one in story.server.service.requests[before:]] == [
        ("POST", 202), ("GET", 202), ("GET", 200),
    ]  # fmt: skip
    with pytest.raises(UsageError, match="abfss://"):
        import_files(story.tools, str(tmp_path / "all"))
    with pytest.raises(UsageError, match="has no export"):
        import_files(story.tools, address, lambda _: (LocalFileSystem(), str(tmp_path)))


def test_the_parameters_of_an_import_are_those_that_azure_reads() -> None:
    body = parameters("abfss://fhir@contoso.dfs.core.windows.net/2026/12", ["Patient-1.ndjson"])
    assert body == {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "inputFormat", "valueString": "application/fhir+ndjson"},
            {"name": "mode", "valueString": "IncrementalLoad"},
            {
                "name": "input",
                "part": [
                    {"name": "type", "valueString": "Patient"},
                    {
                        "name": "url",
                        "valueUri": "https://contoso.blob.core.windows.net/fhir/2026/12/Patient-1.ndjson",
                    },
                ],
            },
        ],
    }


def test_two_executions_never_run_at_once(story: Story) -> None:
    story.lake.run(story.now)
    lake = existing_lake(story.lake.settings).lake
    work = claimed(lake, "fhir", 0, clock=lambda: story.now, sleep=lambda _: None, pulse=lambda: 0)
    with work, pytest.raises(AnotherWriter):
        story.again()
    assert counts(story.again()) == (3, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("version", "says"),
    [("5.0.0", "speaks FHIR R5"), ("3.0.2", "speaks FHIR STU3")],
)
def test_a_server_of_another_fhir_is_refused(tmp_path: Path, version: str, says: str) -> None:
    with serve_fhir(FhirOptions(fhir_version=version)) as server:
        lake = HandmadeLake(tmp_path, DicomService(), f"fhir.base_url={server.base_url}")
        lake.run(NOON)
        with pytest.raises(ConfigurationError, match=says):
            update(lake.settings, clock=lambda: NOON)


def test_without_tag_tables_it_says_what_to_do(tmp_path: Path) -> None:
    lake = HandmadeLake(tmp_path, DicomService(), "fhir.base_url=https://fhir.example.org")
    lake.run(NOON, columns=False)
    with pytest.raises(ConfigurationError, match="run dicom-etl columns backfill"):
        update(lake.settings)
    with pytest.raises(ConfigurationError, match=r"^fhir\.base_url: is not set"):
        update(lake.having("fhir.base_url="))


def test_the_notebook_joins_what_the_server_has_with_the_tables(
    story: Story, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    story.patient("ehr-1", "P1")
    story.fhir()
    for text in story.lake.texts:
        key, _, value = text.partition("=")
        monkeypatch.setenv(f"DICOM_ETL__{key.upper().replace('.', '__')}", value)
    monkeypatch.delenv("DICOM_ETL_CONFIG", raising=False)
    runpy.run_path(str(Path(__file__).parents[3] / "notebooks" / "fhir_and_tables.py"))
    shown = capsys.readouterr().out
    assert "2 ImagingStudy resources, 2 subjects" in shown
    assert "studies that the server lacks: 0" in shown
    assert "studies with another count: 0" in shown
    assert "Patient/ehr-1" in shown


@pytest.mark.parametrize(
    ("token", "states", "says"),
    [
        ("owner", ["ok", "ok"], "takes ids of ours, deletes and batches"),
        ("reader", ["ok", "problem"], "assign the role FHIR Data Contributor"),
        ("nobody", ["ok", "problem"], "FHIR Data Contributor"),
    ],
)
def test_doctor_says_what_the_server_can_and_which_role_is_missing(
    monkeypatch: pytest.MonkeyPatch, token: str, states: list[str], says: str
) -> None:
    """By the deletion of a resource that nobody has: nothing is changed."""
    monkeypatch.setenv("DICOM_ETL_FHIR_TOKEN", token)
    with serve_fhir(FhirOptions(tokens={one: one for one in ("owner", "reader", "nobody")})) as server:
        found = list(fhir_findings(fhir_settings(server.base_url, "fhir.auth=token")))
        assert [one.state for one in found] == states
        assert any(says in one.text for one in found)
        assert {one.exit_code for one in found if one.state == "problem"} <= {77}
        assert server.service.resources("ImagingStudy") == {}
    (found_nothing,) = [list(fhir_findings(fhir_settings("")))]
    assert found_nothing == []


def test_nothing_of_a_patient_stands_in_the_record_the_ledger_or_the_log(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    """The server quotes the patient in each of its errors; the value is in the server, so the test sees what leaks."""
    caplog.set_level(logging.DEBUG)
    story.server.service.entry_faults.append(EntryFault(422, "invariant", times=2))
    story.texts = ("fhir.patients=own",)
    story.fhir()
    story.server.service.entry_faults.clear()
    story.again(retry=True)
    assert any("CANARY" in json.dumps(body) for body in story.resources("Patient").values())
    written = [
        path
        for table in ("fhir_sent", "output")
        for path in Path(story.lake.lake.path(table)).rglob("*")
        if path.is_file()
    ]
    assert len(written) > 6
    needles = (b"CANARY", b'"P1"', b"urn:oid")
    rows = json.dumps(_sent_rows(story), default=str).encode()
    leaks = [needle for needle in needles if needle in rows]
    leaks += [needle for path in written for needle in needles[:1] if needle in path.read_bytes()]
    assert leaks == []
    told = "\n".join(f"{one.getMessage()} {one.__dict__}" for one in caplog.records if one.name.startswith("dicom_etl"))
    assert "output written" in told
    assert "CANARY" not in told
