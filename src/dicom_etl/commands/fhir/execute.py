"""One execution of the output `fhir`, from what is due to the counts of what was sent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from deltalake import DeltaTable

from dicom_etl.commands.fhir.desired import Desired, Mapper, Tally, Wanted
from dicom_etl.commands.fhir.due import Due, landed_studies, waiting
from dicom_etl.commands.fhir.marked import DELETED_IN_ORDER, marked
from dicom_etl.commands.fhir.send import Sender
from dicom_etl.commands.fhir.source import study_tables
from dicom_etl.commands.fhir.subjects import Search, Subjects, patients_of, resolved
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import TICKS_PER_MICROSECOND
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.outputs.fhir.dose_headers import by_study, dose_headers
from dicom_etl.outputs.fhir.facts import StudyFacts
from dicom_etl.outputs.fhir.ids import study_id
from dicom_etl.outputs.fhir.patient import patient_id
from dicom_etl.outputs.fhir.rows import StudyKey, StudyTables, patients, studies, study_keys
from dicom_etl.outputs.fhir.sent import Sent

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which studies are looked at: ``living`` with how many instances each has, and the ids of all, gone ones too.

    ``everything``: whatever else stands in the server is taken back.
    """

    living: Sequence[tuple[StudyKey, int]]
    ids: frozenset[str]
    everything: bool


@dataclass
class _Seen:
    """What is wanted, by key, while studies are sent.

    ``incomplete`` are studies some of whose Observations may lack; ``waiting`` are Observations whose study is not
    answered yet, ``ready`` those whose study stands.
    """

    studies: set[str] = field(default_factory=set)
    observations: set[str] = field(default_factory=set)
    incomplete: set[str] = field(default_factory=set)
    waiting: dict[str, tuple[Wanted, ...]] = field(default_factory=dict)
    ready: list[Wanted] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Executor:
    """What an execution works with."""

    settings: Settings
    snapshot: LakeSnapshot
    due: Due
    sender: Sender
    search: Search
    now: datetime
    tally: Tally

    def run(self) -> None:
        """Bring the server to what the tables hold: what refers to another resource after it, deletions the other way.

        Raises what the server and the tables raise; what was answered by then is recorded.
        """
        tables = study_tables(self.snapshot, self.due.source)
        everything = study_keys(tables.fixed["study"])
        scope = self._scope(everything)
        subjects = self._subjects(tables, scope)
        scope = self._with_moved(everything, scope, subjects)
        self._keep(subjects.searches)
        self._ask_later(subjects.unanswered)
        mapper = Mapper(self.due.options, self.due.record, subjects, self.tally, self.sender.lacks)
        partitions = sorted({key.partition for key, _ in everything})
        self.sender.put(mapper.endpoints(partitions))
        self.sender.put(mapper.patients())
        seen = _Seen()
        self._studies(mapper, tables, scope, seen)
        self._withdraw(scope, seen, subjects)
        kept = {one.key for one in mapper.endpoints(partitions)}
        gone = [row for row in self._standing() if row.kind == "Endpoint" and row.key not in kept]
        self.sender.delete(gone)
        self._withdraw_strays()

    def _keep(self, searches: Iterable[Sent]) -> None:
        if self.sender.server is not None:
            self.sender.recorder.add(searches)
        else:
            self.due.record.update({(row.kind, row.key): row for row in searches})

    def _ask_later(self, unanswered: Iterable[str]) -> None:
        """Count the searches that the server failed with, and let the next execution repeat them."""
        keys = sorted(unanswered)
        self.sender.counts.update({"touched": len(keys), "failed": len(keys)})
        record = self.due.record
        known = {key: record.get(("PatientSearch", key)) for key in keys}
        self._keep(
            replace(row, at=_LONG_AGO) if row is not None else Sent("PatientSearch", key, None, "none", _LONG_AGO)
            for key, row in known.items()
        )

    def _scope(self, everything: Sequence[tuple[StudyKey, int]]) -> Scope:
        options = self.due.options
        if self.due.mode != "changed":
            return Scope(everything, frozenset(), True)
        again = waiting(self.settings, self.due.record, self.now, self.sender.retry)
        landed = landed_studies(self.snapshot, self.due.since, self.due.source.run.run_id)
        ids = {study_id(key.partition, key.uid, options) for key in landed} | self._studies_of(again)
        return self._living(everything, ids, landed)

    def _living(self, everything: Sequence[tuple[StudyKey, int]], ids: set[str], landed: set[StudyKey]) -> Scope:
        """The studies with these ids; those in ``landed`` are known by their keys, the others are looked for."""
        options = self.due.options
        hidden = len(ids) > len(landed)
        living = [
            one
            for one in everything
            if one[0] in landed or (hidden and study_id(one[0].partition, one[0].uid, options) in ids)
        ]
        return Scope(living, frozenset(ids), False)

    def _studies_of(self, keys: Iterable[str]) -> set[str]:
        """The ids of the studies that are recorded under these keys, or whose patient or parent is."""
        wanted = set(keys)
        found: set[str] = set()
        for (kind, key), row in self.due.record.items():
            if kind == "ImagingStudy" and (key in wanted or row.parent in wanted):
                found.add(key)
            elif kind == "Observation" and key in wanted and row.parent is not None:
                found.add(row.parent)
        return found

    def _subjects(self, tables: StudyTables, scope: Scope) -> Subjects:
        options = self.due.options
        whole = scope.everything or options.patients != "find"
        facts = patients(tables, None if whole else [key for key, _ in scope.living])
        found = patients_of(facts if scope.everything else self._of_interest(facts, scope), options)
        ttl = timedelta(microseconds=int(self.settings.fhir.patients_ttl) // TICKS_PER_MICROSECOND)
        return resolved(found, options, self.due.record, self.search, self.now - ttl, self.now)

    def _of_interest(self, facts: Iterable[StudyFacts], scope: Scope) -> Iterator[StudyFacts]:
        """Every study of the patients of the studies in scope, and of those whose studies these were."""
        options, living = self.due.options, {key for key, _ in scope.living}
        by_patient: dict[str, list[StudyFacts]] = defaultdict(list)
        wanted = {
            row.parent for (kind, key), row in self.due.record.items() if kind == "ImagingStudy" and key in scope.ids
        }
        for study in facts:
            key = patient_id(study, options)
            if key is None:
                continue
            by_patient[key].append(study)
            if StudyKey(study.partition, study.uid) in living:
                wanted.add(key)
        for patient, its in by_patient.items():
            if patient in wanted:
                yield from its

    def _with_moved(self, everything: Sequence[tuple[StudyKey, int]], scope: Scope, subjects: Subjects) -> Scope:
        """The scope with all studies of the patients that the server answers otherwise for than before."""
        if scope.everything:
            return scope
        record = self.due.record
        known = {row.key: record.get(("PatientSearch", row.key)) for row in subjects.searches}
        moved = [
            row.key
            for row in subjects.searches
            if (before := known[row.key]) is None or (before.state, before.resource_id) != (row.state, row.resource_id)
        ]
        ids = scope.ids | self._studies_of(moved)
        if ids == scope.ids:
            return scope
        return self._living(everything, set(ids), {key for key, _ in scope.living})

    def _studies(self, mapper: Mapper, tables: StudyTables, scope: Scope, seen: _Seen) -> None:
        change = self.snapshot.table("change")
        for study, stands in self.sender.answers(self._wanted(mapper, tables, scope, seen, change)):
            observations = seen.waiting.pop(study.key, ())
            if stands:
                seen.ready += observations
            else:
                self.sender.hold_back(observations, "refused")
                self._ask_again(study)
        self._observations(seen)
        for observations in seen.waiting.values():  # of studies that the server refused before, or of a dry run
            if self.sender.server is None:
                self.sender.put(observations)
            else:
                self.sender.hold_back(observations, "refused")

    def _observations(self, seen: _Seen) -> None:
        """Send those whose study stands; what refers to another one after it."""
        ready, seen.ready = seen.ready, []
        self.sender.put(one for one in ready if not one.refers)
        lacking = {one.parent for one in ready if not one.refers and self.sender.lacks("Observation", one.key)}
        self.sender.hold_back([one for one in ready if one.refers and one.parent in lacking], "failed")
        self.sender.put(one for one in ready if one.refers and one.parent not in lacking)

    def _ask_again(self, study: Wanted) -> None:
        """Let the next execution search the patient of a refused study: the server may not have it any more."""
        row = self.due.record.get(("PatientSearch", study.parent or ""))
        if row is not None and row.state == "one":
            self._keep([Sent(row.kind, row.key, row.resource_id, "none", _LONG_AGO)])

    def _wanted(
        self, mapper: Mapper, tables: StudyTables, scope: Scope, seen: _Seen, change: DeltaTable
    ) -> Iterator[Wanted]:
        for part in studies(tables, scope.living):
            self._observations(seen)
            headers = by_study(dose_headers(change, part) if self.due.options.dose else {})
            for study in part:
                desired = mapper.desired(study, headers.get((study.partition, study.uid), {}))
                _note(seen, desired)
                if desired.held:
                    self.sender.hold_back((desired.study, *desired.observations), "failed")
                    continue
                if self.sender.stands(desired.study):
                    seen.ready += desired.observations
                elif desired.observations:
                    seen.waiting[desired.study.key] = desired.observations
                yield desired.study

    def _withdraw_strays(self) -> None:
        """Take back what an execution sent that died before it had recorded it, and that is not wanted any more.

        What is wanted has been sent again by now, and recorded. The server is asked for all that bears our mark, and
        only where an execution has not succeeded since the last that did, or everything was computed: then our record
        may be gone, put back, or behind what was imported.
        """
        server = self.sender.server
        if server is None or not (self.sender.trusted_from or self.due.mode == "full"):
            return
        known = {(row.kind, row.resource_id) for row in self.due.record.values() if row.stands}
        for kind in DELETED_IN_ORDER:
            strays = [one for one in marked(server, kind, self.due.options) if (kind, one) not in known]
            self.sender.delete([Sent(kind, one, one, "sent", self.now) for one in strays])

    def _standing(self) -> list[Sent]:
        return [row for row in self.due.record.values() if row.stands]

    def _withdraw(self, scope: Scope, seen: _Seen, subjects: Subjects) -> None:
        standing = self._standing()

        def gone(kind: str, wanted: set[str], owner: str) -> list[Sent]:
            of_kind = [row for row in standing if row.kind == kind and row.key not in wanted]
            return [row for row in of_kind if scope.everything or getattr(row, owner) in scope.ids]

        observations = gone("Observation", seen.observations, "parent")
        # Those without a parent were found by our mark alone, and their deletion failed.
        observations += [row for row in standing if row.kind == "Observation" and row.parent is None]
        self.sender.delete(row for row in dict.fromkeys(observations) if row.parent not in seen.incomplete)
        self.sender.delete(gone("ImagingStudy", seen.studies, "key"))
        self.sender.delete(self._orphans(scope, subjects))

    def _orphans(self, scope: Scope, subjects: Subjects) -> list[Sent]:
        """Our own Patients to whom no study refers any more."""
        if scope.everything:
            standing = (row for row in self.due.record.values() if row.kind == "Patient" and row.stands)
            return [row for row in standing if row.key not in subjects.own]
        record = self.due.record
        referred = {row.parent for row in record.values() if row.kind == "ImagingStudy" and row.stands}
        replaced = {key for key, row in subjects.found.items() if row.state != "none"}
        ours = (row for row in record.values() if row.kind == "Patient" and row.stands)
        gone = (row for row in ours if row.key not in subjects.own and (row.key not in referred or row.key in replaced))
        # What the server keeps, since somebody else's resource refers to it, is asked for by --retry and --full alone.
        return [row for row in gone if self.sender.retry or (row.state, row.digest) != ("refused", None)]


def _note(seen: _Seen, desired: Desired) -> None:
    seen.studies.add(desired.study.key)
    seen.observations.update(one.key for one in desired.observations)
    if desired.incomplete:
        seen.incomplete.add(desired.study.key)
