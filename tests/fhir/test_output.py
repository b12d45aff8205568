"""The output `fhir` against HAPI FHIR: what its validator says, and what another client sees by search."""

from __future__ import annotations

import threading
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import httpx
import pydicom
import pytest

from dicom_emulator.dicom.dicomjson import NotWritable, dataset_json
from dicom_emulator.dicom.elements import NotDicom, read_file
from dicom_emulator.http.errors import InstanceExists
from dicom_emulator.state.service import DicomService
from dicom_emulator.testing.random_feed import HOUR, compose
from dicom_etl.commands.fhir.adopt import adopt
from dicom_etl.commands.fhir.update import Asked, Tools, update
from dicom_etl.commands.fhir.verify import verify
from dicom_etl.commands.fhir.withdraw import withdraw
from dicom_etl.core.errors import AnotherWriter, ServiceUnavailable
from dicom_etl.core.progress import NullProgress
from dicom_etl.outputs import execution
from dicom_etl.outputs.execution import Execution
from dicom_etl.outputs.fhir import sent
from support.crashes import Crash, Crashes
from support.dose_reports import ct
from support.fhir_oracle import differences, expected_study
from support.handmade import SERVICE, HandmadeLake
from support.site import metadata

if TYPE_CHECKING:
    from tests.fhir.hapi import Hapi

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
SYSTEM = "https://hospital.example.org/patients"
DEFAULT = "Microsoft.Default"
CT = "1.2.840.10008.5.1.4.1.1.2"
POINTS = {
    "before": (sent, "append_rows", "before"),
    "after": (sent, "append_rows", "after"),
    "row": (execution, "record", "before"),
}
FHIR_JSON = {"Accept": "application/fhir+json"}


def lake_before(folder: Path, server: Hapi, service: DicomService, *texts: str) -> HandmadeLake:
    folder.mkdir(parents=True, exist_ok=True)
    own = (f"fhir.base_url={server.base_url}", f"fhir.default_system={SYSTEM}", *texts)
    return HandmadeLake(folder, service, *own)


def tools(lake: HandmadeLake, now: datetime = NOON) -> Tools:
    return Tools(lake.settings, NullProgress(), lambda: now)


def all_studies(client: httpx.Client, lake: HandmadeLake, server: Hapi) -> list[dict[str, Any]]:
    """Those of this lake, by FHIR search, page by page."""
    found = []
    address: str | None = (
        f"{server.base_url}/ImagingStudy?_tag=urn:dicom-etl:lake|{lake.lake.identity.lake_id}&_count=100"
    )
    while address:
        page = client.get(address, headers={**FHIR_JSON, "Cache-Control": "no-cache"}).raise_for_status().json()
        found += [entry["resource"] for entry in page.get("entry", [])]
        address = next((link["url"] for link in page["link"] if link["relation"] == "next"), None)
    return found


def expected(service: DicomService) -> dict[tuple[str, str], dict[str, Any]]:
    """What the service holds, by partition and Study UID, derived by pydicom from its headers."""
    datasets: dict[tuple[str, str], list[Any]] = defaultdict(list)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for one in sorted(service.live_instances(), key=lambda one: (one.ticks // 10, one.sequence)):
            dataset = pydicom.Dataset.from_json(one.metadata.decode())
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID = one.key[1:]
            datasets[one.key[:2]].append(dataset)
        return {key: expected_study(found) for key, found in datasets.items()}


def assert_equal(client: httpx.Client, lake: HandmadeLake, server: Hapi) -> None:
    """The server holds the studies of the oracle, each once, and nothing else of ours."""
    wanted = expected(lake.service)
    found = all_studies(client, lake, server)
    assert len(wanted) >= 1
    keys = [key_of(client, server, body) for body in found]
    assert len(set(keys)) == len(keys)
    assert set(keys) == set(wanted)
    wrong = {name for key, body in zip(keys, found, strict=True) for name in differences(wanted[key], body)}
    assert wrong - {"subject"} == set()


def key_of(client: httpx.Client, server: Hapi, body: dict[str, Any]) -> tuple[str, str]:
    (uid,) = (one["value"] for one in body["identifier"] if one.get("system") == "urn:dicom:uid")
    endpoint = client.get(f"{server.base_url}/{body['endpoint'][0]['reference']}", headers=FHIR_JSON).json()
    return endpoint["address"].partition("/partitions/")[2] or DEFAULT, uid.removeprefix("urn:oid:")


def pydicom_service() -> DicomService:
    """A service with every file of pydicom's that has the UIDs which the service asks for."""
    service = DicomService()
    for path in sorted(Path(pydicom.__file__).parent.joinpath("data").rglob("*")):
        if not path.is_file():
            continue
        with suppress(NotDicom, NotWritable, KeyError, InstanceExists, ValueError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            document = dataset_json(read_file(path.read_bytes()).elements)
            study, series, sop = (document[tag]["Value"][0] for tag in ("0020000D", "0020000E", "00080018"))
            service.create((DEFAULT, study, series, sop), document)
    return service


@pytest.mark.timeout(600)
def test_every_resource_of_pydicoms_files_is_valid(validating: Hapi, client: httpx.Client, tmp_path: Path) -> None:
    """HAPI's validator refuses none: studies, our Patients, Endpoint, and the Observations of a dose report."""
    service = pydicom_service()
    report = ct().to_json_dict() | metadata(id="P1", modality="SR", sop_class="1.2.840.10008.5.1.4.1.1.88.67")
    service.create((DEFAULT, "1.2.3.4.5", "1.2.3.4.5.1", "1.2.3.4.5.1.1"), report)
    # Codes that R4's copy of DCM does not have yet are refused by a server that validates: written as OT.
    lake = lake_before(tmp_path, validating, service, "fhir.patients=own", "fhir.strict_modality=true")
    lake.run(NOON)
    done = update(lake.settings, clock=lambda: NOON)
    assert done is not None
    kinds = {kind: done.details[kind] for kind in ("ImagingStudy", "Patient", "Endpoint", "Observation")}
    assert kinds["ImagingStudy"] > 30
    assert kinds["Patient"] > 10
    assert kinds["Observation"] >= 3
    assert (done.counts.refused, done.counts.failed) == (0, 0)
    assert done.counts.written == sum(kinds.values())
    assert all(one.right for one in verify(tools(lake)))
    assert len(all_studies(client, lake, validating)) == kinds["ImagingStudy"]


@pytest.mark.timeout(600)
def test_a_long_history_with_deaths_ends_equal(
    hapi: Hapi, client: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Executions die between a bundle and its record, or before the row of the ledger; in the end all is as it is."""
    service, script, random = DicomService(), compose(20_261_201, 900, delay=0), Random(7)
    lake = lake_before(tmp_path, hapi, service, "fhir.patients=find_or_create", "fhir.bundle_entries=10")
    crashes, played, now = Crashes(POINTS), script.frame.start, NOON
    first = True
    while played < script.end:
        until = played + 3 * HOUR
        script.play(service, None if first else played, until)
        first, played, now = False, until, now + timedelta(hours=1)
        lake.run(now)
        moment = now
        with suppress(Crash), crashes.at(random.choice(list(POINTS)), random, monkeypatch):
            update(lake.settings, clock=lambda moment=moment: moment)
    assert sum(crashes.met.values()) >= 3
    done = update(lake.settings, clock=lambda: now)
    assert done is None or done.counts.whole
    assert_equal(client, lake, hapi)
    assert all(one.right for one in verify(tools(lake, now)))
    assert update(lake.settings, clock=lambda: now) is None


@pytest.fixture
def studies(hapi: Hapi, tmp_path: Path) -> Iterator[HandmadeLake]:
    """A lake with eight studies of four patients, sent to HAPI, and taken back at the end."""
    service = DicomService()
    for number in range(8):
        for image in range(3):
            key = (DEFAULT, f"1.9.{number}", f"1.9.{number}.1", f"1.9.{number}.1.{image}")
            service.create(
                key, metadata(id=f"S{number % 4}", modality="CT", sop_class=CT, description="CT", date="20240501")
            )
    lake = lake_before(tmp_path, hapi, service, "fhir.patients=find_or_create")
    lake.run(NOON)
    assert update(lake.settings, clock=lambda: NOON) is not None
    yield lake
    withdraw(tools(lake))


def test_an_update_a_deletion_and_a_corrected_patient_are_seen_by_another_client(
    studies: HandmadeLake, hapi: Hapi, client: httpx.Client
) -> None:
    service = studies.service
    for image in range(3):
        key = (DEFAULT, "1.9.0", "1.9.0.1", f"1.9.0.1.{image}")
        service.update(key, metadata(id="S1", modality="CT", sop_class=CT, description="corrected", date="20240501"))
        service.delete(DEFAULT, "1.9.5", "1.9.5.1", f"1.9.5.1.{image}")
    service.delete(DEFAULT, "1.9.6", "1.9.6.1", "1.9.6.1.0")
    studies.run(NOON)
    done = update(studies.settings, clock=lambda: NOON)
    assert done is not None
    assert (done.counts.written, done.counts.withdrawn) == (2, 1)
    assert_equal(client, studies, hapi)
    found = client.get(
        f"{hapi.base_url}/ImagingStudy?patient.identifier={SYSTEM}|S1",
        headers={**FHIR_JSON, "Cache-Control": "no-cache"},
    ).json()
    uids = {one["resource"]["identifier"][0]["value"] for one in found["entry"]}
    assert uids == {"urn:oid:1.9.1", "urn:oid:1.9.0"}


def test_two_executions_at_once_do_the_work_once(studies: HandmadeLake, hapi: Hapi, client: httpx.Client) -> None:
    studies.service.update(
        (DEFAULT, "1.9.2", "1.9.2.1", "1.9.2.1.0"), metadata(id="S2", modality="CT", sop_class=CT, description="new")
    )
    studies.run(NOON)
    ended: list[Execution | BaseException | None] = []

    def execute() -> None:
        try:
            ended.append(update(studies.settings, Asked(full=True), clock=lambda: NOON))
        except AnotherWriter as error:
            ended.append(error)

    threads = [threading.Thread(target=execute) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(ended) == 2
    assert sum(isinstance(one, Execution) and one.counts.written == 1 for one in ended) == 1
    assert_equal(client, studies, hapi)


def test_what_dicomcast_left_is_adopted_and_what_is_ours_is_withdrawn(
    hapi: Hapi, client: httpx.Client, tmp_path: Path
) -> None:
    service = DicomService()
    service.create((DEFAULT, "1.8.1", "1.8.1.1", "1.8.1.1.1"), metadata(id="D1", modality="CT", date="20240501"))
    body = {
        "resourceType": "ImagingStudy", "status": "available", "meta": {"source": SERVICE},
        "subject": {"display": "D1"},
        "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.8.1"}],
    }  # fmt: skip
    made = client.post(f"{hapi.base_url}/ImagingStudy", json=body, headers={"Content-Type": "application/fhir+json"})
    identity = made.raise_for_status().json()["id"]
    lake = lake_before(tmp_path, hapi, service)
    lake.run(NOON)
    assert adopt(tools(lake)).adopted == 1
    update(lake.settings, clock=lambda: NOON)
    (study,) = all_studies(client, lake, hapi)
    assert (study["id"], study["numberOfInstances"]) == (identity, 1)
    assert all(one.right for one in verify(tools(lake)))
    withdraw(tools(lake))
    assert all_studies(client, lake, hapi) == []
    assert client.get(f"{hapi.base_url}/ImagingStudy/{identity}").status_code == 410


@pytest.mark.timeout(600)
def test_a_server_that_stops_and_comes_back_is_brought_up(
    installed: None,  # noqa: ARG001
    client: httpx.Client,
    tmp_path: Path,
) -> None:
    """75 while it is down; the next execution goes on, and sends what is in its window."""
    from tests.fhir.hapi import hapi as started

    (tmp_path / "server").mkdir()
    with started(tmp_path / "server", keep=True) as server:
        service = DicomService()
        for number in range(30):
            document = metadata(id="R1", modality="CT", sop_class=CT)
            service.create((DEFAULT, f"1.7.{number}", "1.7.1", f"1.7.1.{number}"), document)
        lake = lake_before(tmp_path / "lake", server, service, "fhir.retry_seconds=2")
        lake.run(NOON)
        update(lake.settings, clock=lambda: NOON)
        document = metadata(id="R1", modality="MR", sop_class=CT)
        service.update((DEFAULT, "1.7.3", "1.7.1", "1.7.1.3"), document)
        lake.run(NOON)
        server.stop()
        with pytest.raises(ServiceUnavailable):
            update(lake.settings, clock=lambda: NOON)
        server.start()
        done = update(lake.settings, clock=lambda: NOON)
        assert done is not None
        assert (done.counts.written, done.counts.unchanged) == (2, 0), "the study, and what may have been sent before"
        assert_equal(client, lake, server)
