"""Writes the FHIR resources as NDJSON, one file a type, for servers that import files (`dicom-etl fhir export`)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final

from dicom_etl.commands.fhir.desired import Desired, Mapper, Tally, Wanted
from dicom_etl.commands.fhir.due import landed_studies
from dicom_etl.commands.fhir.options import mapping_options, server_fingerprint
from dicom_etl.commands.fhir.source import Source, source_of, study_tables
from dicom_etl.commands.fhir.subjects import Subjects, patients_of, resolved
from dicom_etl.commands.fhir.update import Tools
from dicom_etl.core.errors import UsageError
from dicom_etl.core.timerange import format_instant, from_datetime
from dicom_etl.lake.delta.errors import storage_errors
from dicom_etl.lake.delta.folder import TableFolder, sync_to_disk
from dicom_etl.lake.lake_id import service_fingerprint
from dicom_etl.lake.open import existing_lake, refuse_incomplete
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.outputs import execution as ledger
from dicom_etl.outputs.fhir.dose_headers import by_study, dose_headers
from dicom_etl.outputs.fhir.facts import MappingOptions
from dicom_etl.outputs.fhir.find_patients import Found
from dicom_etl.outputs.fhir.ids import study_id
from dicom_etl.outputs.fhir.rows import StudyKey, StudyTables, patients, studies, study_keys
from dicom_etl.outputs.fhir.sent import Record, open_sent, record_of

# As Azure's $import reads a deletion (clinical reference, 1.8).
_DELETED: Final = {
    "url": "http://azurehealthcareapis.com/data-extensions/deleted-state",
    "valueString": "soft-deleted",
}
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)
MANIFEST: Final = "manifest.json"
KINDS: Final = ("Endpoint", "Patient", "ImagingStudy", "Observation")


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: as of which run, the resources by kind, and how many of them are deletions."""

    run_id: int
    since_run: int
    counts: dict[str, int]
    deletions: int
    files: tuple[str, ...]

    def as_row(self) -> dict[str, Any]:
        """By name, as a command prints it."""
        return {
            "runId": self.run_id,
            "sinceRun": self.since_run,
            **self.counts,
            "deletions": self.deletions,
            "files": list(self.files),
        }


def export(tools: Tools, to: str, since_run: int | None = None) -> Exported:
    """What was written into the folder ``to``: NDJSON a kind, and at the end a manifest.

    With ``since_run`` only the studies of later runs, and a deletion of each that is gone. No server is asked: where
    `fhir.patients` is find, studies name the patient's identifier. Raises UsageError when files of an export are there.
    """
    snapshot = existing_lake(tools.settings, service_fingerprint(tools.settings.dicom.base_url))
    refuse_incomplete(snapshot)
    options = mapping_options(tools.settings, snapshot.lake.identity)
    source = source_of(snapshot, ledger.executions(ledger.open_executions(snapshot.lake)))
    server = server_fingerprint(tools.settings) if tools.settings.fhir.base_url else ""
    folder = TableFolder(*snapshot.lake.storage.filesystem(to), private=True)
    stamp = format_instant(from_datetime(tools.clock())).replace(":", "").replace("-", "")
    with storage_errors("export"):
        folder.filesystem.makedirs(folder.path, exist_ok=True)
        if folder.filesystem.exists(f"{folder.path}/{MANIFEST}"):
            raise UsageError("fhir export: the folder has an export already: name a new one")
        with ExitStack() as stack:
            writer = _Writer(folder, stack, stamp)
            deletions = _write(writer, snapshot, source, options, since_run or 0, server)
            done = Exported(source.run.run_id, since_run or 0, writer.totals(), deletions, writer.names())
        with folder.create(MANIFEST) as sink:  # last: without it a folder is no export
            sink.write(json.dumps(done.as_row(), indent=1).encode())
            sync_to_disk(sink)
    return done


class _Writer:
    """Files by kind, made when their first resource comes; the stack closes them."""

    def __init__(self, folder: TableFolder, stack: ExitStack, stamp: str) -> None:
        self._folder, self._stack, self._stamp = folder, stack, stamp
        self._files: dict[str, BinaryIO] = {}
        self._counts: Counter[str] = Counter()

    def write(self, kind: str, body: bytes) -> None:
        """Add one resource, which is one line of JSON."""
        if kind not in self._files:
            self._files[kind] = self._stack.enter_context(self._folder.create(self._name(kind)))
        self._files[kind].write(body + b"\n")
        self._counts[kind] += 1

    def totals(self) -> dict[str, int]:
        return {kind: self._counts[kind] for kind in KINDS}

    def names(self) -> tuple[str, ...]:
        return tuple(self._name(kind) for kind in KINDS if kind in self._files)

    def _name(self, kind: str) -> str:
        # Azure's $import takes an address that it has read before for done.
        return f"{kind}-{self._stamp}.ndjson"


def _write(
    writer: _Writer, snapshot: LakeSnapshot, source: Source, options: MappingOptions, since_run: int, server: str
) -> int:
    tables = study_tables(snapshot, source)
    living = study_keys(tables.fixed["study"])
    gone: list[str] = []
    # What was adopted keeps its id in files, too.
    record = record_of(open_sent(snapshot.lake), server) if server else {}
    if since_run:
        landed = landed_studies(snapshot, since_run, source.run.run_id)
        there = {key for key, _ in living}
        gone = sorted(_id_in(record, study_id(*key, options)) for key in landed - there)
        living = [one for one in living if one[0] in landed]
    mapper = Mapper(options, record, _subjects(tables, options, [key for key, _ in living]), Tally(), lambda *_: None)
    for one in (*mapper.endpoints(sorted({key.partition for key, _ in living})), *mapper.patients()):
        writer.write(one.kind, one.body)
    for part in studies(tables, living):
        headers = by_study(dose_headers(snapshot.table("change"), part) if options.dose else {})
        for study in part:
            for one in _resources(mapper.desired(study, headers.get((study.partition, study.uid), {}))):
                writer.write(one.kind, one.body)
    for identity in gone:
        writer.write("ImagingStudy", json.dumps(_deletion("ImagingStudy", identity)).encode())
    return len(gone)


def _id_in(record: Record, key: str) -> str:
    row = record.get(("ImagingStudy", key))
    return key if row is None or row.resource_id is None else row.resource_id


def _resources(desired: Desired) -> Iterator[Wanted]:
    yield desired.study
    yield from desired.observations


def _subjects(tables: StudyTables, options: MappingOptions, living: Sequence[StudyKey]) -> Subjects:
    """Our own patients where the settings want them in any case; else the identifiers alone, nobody being asked."""
    unasked = options if options.patients == "own" else replace(options, patients="find")
    found = patients_of(patients(tables, living), unasked)
    return resolved(found, unasked, {}, lambda keys: dict.fromkeys(keys, Found("none", None)), _LONG_AGO, _LONG_AGO)


def _deletion(kind: str, identity: str) -> dict[str, Any]:
    body: dict[str, Any] = {"resourceType": kind, "id": identity, "meta": {"extension": [_DELETED]}}
    # A line of an import must be a valid resource all the same.
    return body | {"status": "cancelled", "subject": {"display": "deleted"}}
