"""Whom the studies are about: the server's Patient, one of ours, or the identifier alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal

from dicom_etl.outputs.fhir.facts import Json, MappingOptions, Resource, StudyFacts
from dicom_etl.outputs.fhir.find_patients import Found, PatientKey
from dicom_etl.outputs.fhir.patient import identifier, logical_subject, patient, patient_id
from dicom_etl.outputs.fhir.sent import Record, Sent

Word = Literal["matched", "own", "unmatched", "ambiguous", "without-system", "without-patient-id"]
Search = Callable[[Collection[PatientKey]], Mapping[PatientKey, Found]]
_WORDS: Final[dict[str, Word]] = {"none": "unmatched", "several": "ambiguous"}
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Subject:
    """The ``subject`` of a study, how it was found, and the key of its patient, None without a PatientID."""

    json: Json
    word: Word
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Subjects:
    """The patients of some studies by key: ``own`` are those that we keep, ``found`` what the server has answered.

    ``searches`` are the answers that are new, ``unanswered`` the patients whose search the server did not answer.
    """

    options: MappingOptions
    own: Mapping[str, Resource] = field(default_factory=dict)
    found: Mapping[str, Sent] = field(default_factory=dict)
    searches: tuple[Sent, ...] = ()
    unanswered: frozenset[str] = frozenset()

    def of(self, study: StudyFacts) -> Subject:
        """The subject of one of these studies."""
        key = patient_id(study, self.options)
        if key is None:
            return Subject(logical_subject(study, self.options), "without-patient-id")
        if key in self.own:
            return Subject({"reference": f"Patient/{self.own[key].id}"}, "own", key)
        found = self.found.get(key)
        if found is None:
            return Subject(logical_subject(study, self.options), "without-system", key)
        if found.state == "one":
            return Subject({"reference": f"Patient/{found.resource_id}"}, "matched", key)
        return Subject(logical_subject(study, self.options), _WORDS[found.state], key)


def patients_of(studies: Iterable[StudyFacts], options: MappingOptions) -> dict[str, StudyFacts]:
    """For each patient, by key, the study that tells of them: the newest, by time and then by its own key."""
    newest: dict[str, StudyFacts] = {}
    for study in studies:
        key = patient_id(study, options)
        if key is not None and (key not in newest or _age(newest[key]) < _age(study)):
            newest[key] = study
    return newest


def _age(study: StudyFacts) -> tuple[bool, object, str, str]:
    time = study.values.get("lastModifiedTimestamp")
    return (time is not None, time or 0, study.partition, study.uid)


def resolved(
    patients: Mapping[str, StudyFacts],
    options: MappingOptions,
    record: Record,
    search: Search,
    fresh_since: datetime,
    now: datetime,
) -> Subjects:
    """The subjects of all studies of these patients.

    The server is asked for those that it was not asked for since ``fresh_since``; not for numbers without a system,
    which may be anybody's, and not at all where all patients are ours.
    """
    if options.patients == "own":
        return Subjects(options, own={key: patient(study, options) for key, study in patients.items()})
    asked = {key: named for key, study in patients.items() if (named := _asked(study, options)) is not None}
    known = {key: row for key in asked if (row := record.get(("PatientSearch", key))) and _holds(row, fresh_since)}
    wanted = {key: named for key, named in asked.items() if key not in known}
    answers = search(list(wanted.values()))
    searches = tuple(_row(key, answers[named], now) for key, named in sorted(wanted.items()) if named in answers)
    unanswered = frozenset(key for key, named in wanted.items() if named not in answers)
    found = known | _believed(unanswered, record) | {row.key: row for row in searches}
    ours: dict[str, Resource] = {}
    if options.patients == "find_or_create":
        # Where the server did not answer, a Patient of ours stays, and none is made.
        standing = {key for key in unanswered if (row := record.get(("Patient", key))) is not None and row.stands}
        asked_for = (patients.keys() - unanswered) | standing
        missing = (key for key in asked_for if key not in found or found[key].state == "none")
        ours = {key: patient(patients[key], options) for key in sorted(missing)}
    return Subjects(options, ours, found, searches, unanswered)


def _believed(unanswered: Collection[str], record: Record) -> dict[str, Sent]:
    """For patients whose search the server failed with: what it answered before, or that nobody was found yet."""
    rows = {key: record.get(("PatientSearch", key)) for key in unanswered}
    nobody = {key: Sent("PatientSearch", key, None, "none", _LONG_AGO) for key in unanswered}
    return nobody | {key: row for key, row in rows.items() if row is not None and row.state != "deleted"}


def _holds(row: Sent, fresh_since: datetime) -> bool:
    """Whether an answer is still believed; withdraw has forgotten those that it deleted."""
    return row.state != "deleted" and row.at > fresh_since


def _asked(study: StudyFacts, options: MappingOptions) -> PatientKey | None:
    named = identifier(study, options)
    return PatientKey(named["system"], named["value"]) if named is not None and "system" in named else None


def _row(key: str, found: Found, now: datetime) -> Sent:
    return Sent("PatientSearch", key, found.id, found.kind, now)
