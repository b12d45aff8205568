"""The resources of studies as they are to stand in the server, each with its digest and what it hangs on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from dicom_etl.commands.fhir.subjects import Subject, Subjects
from dicom_etl.outputs.fhir.digest import canonical, digest
from dicom_etl.outputs.fhir.dose import observations
from dicom_etl.outputs.fhir.endpoint import endpoint
from dicom_etl.outputs.fhir.facts import Json, MappingOptions, Resource, StudyFacts
from dicom_etl.outputs.fhir.observation import ReportKey
from dicom_etl.outputs.fhir.patient import logical_subject
from dicom_etl.outputs.fhir.sent import Kind, Record, State
from dicom_etl.outputs.fhir.study import imaging_study


@dataclass(frozen=True, slots=True)
class Wanted:
    """A resource that is to stand: ``id`` is the one it has in the server, ``key`` the one that we compute.

    ``refers``: it refers to others of its kind, which must stand before it.
    """

    kind: Kind
    key: str
    id: str
    body: bytes
    digest: str
    parent: str | None = None
    refers: bool = False


@dataclass
class Tally:
    """What is told of an execution beside its counts: how subjects were found, and what could not be written."""

    words: Counter[str] = field(default_factory=Counter)

    def left_out(self, resource: Resource) -> None:
        self.words.update({f"leftOut.{reason}": count for reason, count in resource.left_out.items()})


DoseHeaders = Mapping[ReportKey, bytes | None]
"""The headers of dose reports; None where `change` does not have it."""


@dataclass(frozen=True, slots=True)
class Desired:
    """A study with its dose Observations; ``incomplete``: the header of a dose report is gone, so some may lack.

    ``held``: a resource that the study refers to could not be sent, so that a server would refuse it.
    """

    study: Wanted
    observations: tuple[Wanted, ...]
    incomplete: bool
    held: bool = False


@dataclass(frozen=True, slots=True)
class Mapper:
    """Makes resources of studies: with what they refer to, and under the ids that the server knows them by."""

    options: MappingOptions
    record: Record
    subjects: Subjects
    tally: Tally
    lacks: Callable[[Kind, str], State | None]

    def patients(self) -> Iterator[Wanted]:
        """Our own Patients."""
        for key, resource in sorted(self.subjects.own.items()):
            yield self._wanted("Patient", key, resource)

    def endpoints(self, partitions: Sequence[str]) -> Iterator[Wanted]:
        """The Endpoint of each partition."""
        for partition in partitions:
            resource = endpoint(partition, self.options)
            yield self._wanted("Endpoint", resource.id, resource)

    def desired(self, study: StudyFacts, headers: DoseHeaders) -> Desired:
        """The ImagingStudy and the Observations of one study; ``headers`` are those of its own dose reports."""
        subject, endpoint_id = self.subjects.of(study), endpoint(study.partition, self.options).id
        lacking = (self.lacks("Endpoint", endpoint_id), self._lacking(subject))
        if lacking[1] == "refused":
            subject = Subject(logical_subject(study, self.options), subject.word, subject.key)
        self.tally.words[subject.word] += 1
        endpoints = [] if lacking[0] == "refused" else [endpoint_id]
        resource = imaging_study(study, subject.json, endpoints, self.options)
        wanted = self._wanted("ImagingStudy", resource.id, resource, subject.key)
        made = tuple(
            self._wanted("Observation", one.id, one, resource.id)
            for key, header in headers.items()
            if header is not None
            for one in self._dose(key, header, subject.json, wanted.id, resource.body)
        )
        gone = sum(header is None for header in headers.values())
        self.tally.words.update({"doseHeaderMissing": gone} if gone else {})
        return Desired(wanted, made, bool(gone), "failed" in lacking)

    def _lacking(self, subject: Subject) -> State | None:
        """What became of our own Patient, where the study refers to one that the server did not take."""
        return self.lacks("Patient", subject.key) if subject.word == "own" and subject.key is not None else None

    def _dose(self, key: ReportKey, header: bytes, subject: Json, study_id: str, study: Json) -> Sequence[Resource]:
        result = observations(
            header,
            study=key,
            subject=subject,
            study_reference=f"ImagingStudy/{study_id}",
            effective=study.get("started"),
            options=self.options,
        )
        self.tally.words.update({f"leftOut.{reason}": count for reason, count in result.left_out.items()})
        return result.resources

    def _wanted(self, kind: Kind, key: str, resource: Resource, parent: str | None = None) -> Wanted:
        self.tally.left_out(resource)
        known = self.record.get((kind, key))
        # What DICOMcast left keeps its id when it is taken over.
        adopted = known is not None and known.stands and known.resource_id not in (None, resource.id)
        identity = str(known.resource_id) if known is not None and adopted else resource.id
        body = resource.body | {"id": identity} if adopted else resource.body
        refers = kind == "Observation" and "hasMember" in body
        return Wanted(kind, key, identity, canonical(body), digest(body), parent, refers)
