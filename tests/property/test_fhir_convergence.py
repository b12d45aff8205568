"""The promise of the output `fhir`: any history, any slicing, crash anywhere: the server equals what the service holds.

The tables are written run by run without Spark (`support.handmade`), so that many histories pass in seconds. The oracle
derives the resources from the service's own headers by pydicom (`support.fhir_oracle`), and reads the server by search.
"""

from __future__ import annotations

import os
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pydicom
import pytest

from dicom_emulator.fhir.faults import EntryFault
from dicom_emulator.fhir.options import FhirOptions
from dicom_emulator.fhir.serve import FhirEmulator, serve_fhir
from dicom_emulator.state.service import DicomService
from dicom_emulator.testing.random_feed import HOUR, Script, compose
from dicom_etl.commands.fhir.update import Asked, Tools, update
from dicom_etl.commands.fhir.verify import verify
from dicom_etl.core.errors import TemporaryError
from dicom_etl.core.progress import NullProgress
from dicom_etl.outputs import execution
from dicom_etl.outputs.execution import Execution
from dicom_etl.outputs.fhir import sent
from support.crashes import Crash, Crashes, Points
from support.fhir_oracle import differences, expected_study
from support.handmade import HandmadeLake
from support.site import table_rows

POINTS: Points = {
    "before a commit of fhir_sent": (sent, "append_rows", "before"),
    "after a commit of fhir_sent": (sent, "append_rows", "after"),
    "before the row of output": (execution, "record", "before"),
    "after the row of output": (execution, "record", "after"),
}
SYSTEM = "https://hospital.example.org"


@dataclass(frozen=True)
class Plan:
    """How many entries, how many hours pass between two runs on average, which subjects, and the seed."""

    entries: int
    pause: float
    patients: str
    seed: int | None


PLANS = [
    pytest.param(Plan(500, 1.4, "find_or_create", 20_261_202), id="find or create"),
    *(
        pytest.param(Plan(12_000, 0.7, patients, None), id=f"{patients}, thousands", marks=pytest.mark.soak)
        for patients in ("find", "find_or_create", "own")
    ),
]


@dataclass
class Life:
    """A service with its lake, a FHIR server, and the executions that follow; some of them die, some meet faults."""

    site: HandmadeLake
    server: FhirEmulator
    random: Random
    monkeypatch: pytest.MonkeyPatch
    now: datetime
    crashes: Crashes = field(default_factory=lambda: Crashes(POINTS))
    done: list[Execution] = field(default_factory=list)
    unavailable: int = 0

    def follow(self, *, deadly: bool = True, full: bool = False) -> None:
        """One execution; its counts must agree."""
        point = self.random.choice(list(POINTS)) if deadly and self.random.random() < 0.5 else None
        death = self.crashes.at(point, self.random, self.monkeypatch) if point else nullcontext()
        asked = Asked(full=full or self.random.random() < 0.1)
        with self._troubled(deadly), suppress(Crash), death:
            try:
                done = update(self.site.settings, asked, clock=lambda: self.now, sleep=lambda _: None)
            except TemporaryError:
                self.unavailable += 1
                return
            if done is not None:
                assert done.counts.whole, done
                self.done.append(done)

    @contextmanager
    def _troubled(self, deadly: bool) -> Iterator[None]:
        """Now and then the server fails for some entries, throttles, or is away."""
        kind = self.random.choice(("fail", "throttle", "late", "away", "", "")) if deadly else ""
        faults = self.server.service.entry_faults
        if kind == "fail":
            faults.append(EntryFault(500, times=self.random.choice((1, 30, 200))))
        elif kind == "throttle":
            faults.append(EntryFault(429, "throttled", times=5))
        elif kind == "late":
            faults.append(EntryFault(503, times=2, late=True))
        with self.server.refusing() if kind == "away" else nullcontext():
            yield
        faults.clear()

    def foreign_patients(self) -> None:
        """Now and then the record gets a Patient, or loses one to another, of a number that the images have."""
        numbers = sorted({row["patientId"] for row in table_rows(self.site.lake.path("study")) if row["patientId"]})
        for number in self.random.sample(numbers, min(3, len(numbers))):
            identity = f"ehr-{self.random.randrange(40)}"
            body = {
                "resourceType": "Patient",
                "id": identity,
                "identifier": [{"system": SYSTEM, "value": number}],
            }
            self.server.service.store.put("Patient", identity, body, None)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("plan", PLANS)
def test_the_fhir_server_converges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tell: Callable[[str], None], plan: Plan
) -> None:
    """However runs cut the history and wherever executions die: the server holds what the service holds, once."""
    seed = int(os.environ.get("DICOM_ETL_TEST_SEED") or (time.time_ns() % 10**9 if plan.seed is None else plan.seed))
    service, script = DicomService(), compose(seed, plan.entries, delay=0)
    with serve_fhir(FhirOptions(keep_referenced=True)) as server:
        site = HandmadeLake(
            tmp_path, service, f"fhir.base_url={server.base_url}", f"fhir.patients={plan.patients}",
            f"fhir.default_system={SYSTEM}", "fhir.retry_seconds=3", "fhir.patients_ttl=1h",
        )  # fmt: skip
        life = Life(site, server, Random(seed), monkeypatch, datetime(2026, 1, 1, tzinfo=UTC))
        try:
            _live(life, script, plan)
            _check(life, plan)
        except BaseException:
            tell(f"fhir convergence failed: seed {seed}, {plan}")
            raise
    tell(
        f"fhir convergence: seed {seed}, {script.histories} histories, {script.entries} entries, {plan.patients}, "
        f"executions {dict(Counter(one.mode for one in life.done))}, deaths {life.crashes.met}, "
        f"unavailable {life.unavailable}"
    )
    assert sum(life.crashes.met.values()) >= 2
    assert {one.mode for one in life.done} >= {"changed", "full"}
    assert sum(one.counts.withdrawn for one in life.done) >= 5


def _live(life: Life, script: Script, plan: Plan) -> None:
    played = None
    until = script.frame.start
    while until < script.end:
        until += int(life.random.uniform(0.2, 1.8) * plan.pause * HOUR)
        script.play(life.site.service, played, until)
        played = until
        life.now += timedelta(hours=1)
        follows = life.random.random()
        first = life.site.runs == 0
        life.site.run(life.now, columns=first or follows < 0.85, mode="compare" if follows < 0.1 else None)
        life.foreign_patients()
        if life.random.random() < 0.8:
            life.follow()
    life.now += timedelta(hours=2)
    life.site.run(life.now)
    life.follow(deadly=False)
    life.now += timedelta(hours=2)
    # Whom the server has found is asked for again by a full execution; whom it has not, by each.
    life.follow(deadly=False, full=True)
    life.follow(deadly=False)


def _check(life: Life, plan: Plan) -> None:
    """The server's studies are those of the oracle, no more and no less, and each subject is right."""
    expected = _expected(life)
    studies = life.server.service.resources("ImagingStudy")
    assert len(expected) > plan.entries / 20
    by_key = {(_partition(life, body), _uid(body)): body for body in studies.values()}
    assert len(by_key) == len(studies), "no study stands twice"
    assert set(by_key) == set(expected)
    wrong = {name for key, body in by_key.items() for name in differences(expected[key], body)}
    assert wrong - {"subject"} == set()
    _check_subjects(life, plan, expected, by_key)
    assert [one.kind for one in verify(Tools(life.site.settings, NullProgress())) if not one.right] == []
    before = len(life.server.service.requests)
    assert update(life.site.settings, clock=lambda: life.now) is None
    assert len(life.server.service.requests) == before, "nothing new asks nothing"


def _expected(life: Life) -> dict[tuple[str, str], dict[str, Any]]:
    datasets: dict[tuple[str, str], list[Any]] = defaultdict(list)
    live = sorted(life.site.service.live_instances(), key=lambda one: (one.ticks // 10, one.sequence))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for one in live:
            datasets[one.key[:2]].append(pydicom.Dataset.from_json(one.metadata.decode()))
        return {key: expected_study(found) for key, found in datasets.items()}


def _check_subjects(life: Life, plan: Plan, expected: Any, by_key: Any) -> None:
    """Of each number: the record's one Patient, else ours where the settings want one, else the identifier alone."""
    patients = life.server.service.resources("Patient")
    theirs = defaultdict(set)
    for identity, body in patients.items():
        if identity.startswith("ehr-"):
            theirs[body["identifier"][0]["value"]].add(identity)
    used = set()
    study = table_rows(life.site.lake.path("study"))
    # No settings name an issuer, so a number with one has no system, and is nobody's in the record.
    foreign = {(row["partitionName"], row["studyInstanceUid"]) for row in study if row["issuerOfPatientId"]}
    assert len(foreign) > 5
    for key, body in by_key.items():
        number = expected[key]["subject"].get("identifier", {}).get("value")
        reference = body["subject"].get("reference", "").removeprefix("Patient/")
        found = theirs[number] if plan.patients != "own" and key not in foreign else set()
        if number is None or len(found) > 1 or (not found and plan.patients == "find"):
            assert reference == ""
            named = body["subject"].get("identifier", {"system": SYSTEM})
            system = None if key in foreign and number is not None else SYSTEM
            assert (named.get("system"), named.get("value")) == (system, number)
        elif found:
            assert {reference} == found
        else:
            assert patients[reference]["identifier"][0]["value"] == number
            assert reference.startswith("ehr-") is False
            used.add(reference)
    assert {identity for identity in patients if not identity.startswith("ehr-")} == used


def _uid(body: Any) -> str:
    (value,) = (one["value"] for one in body["identifier"] if one.get("system") == "urn:dicom:uid")
    return str(value.removeprefix("urn:oid:"))


def _partition(life: Life, body: Any) -> str:
    (endpoint,) = body["endpoint"]
    address = life.server.service.resources("Endpoint")[endpoint["reference"].removeprefix("Endpoint/")]["address"]
    return str(address.partition("/partitions/")[2] or "Microsoft.Default")
