"""What an execution of the output `fhir` has to do, by the logs and its own record alone: no request, no JVM."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow.compute as pc
from deltalake import DeltaTable

from dicom_etl.commands.fhir.options import NAME, mapping_options, options_digest, server_fingerprint
from dicom_etl.commands.fhir.source import Source, source_of
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import TICKS_PER_MICROSECOND
from dicom_etl.lake.delta.table import iterate_rows
from dicom_etl.lake.open import refuse_restored
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.outputs import execution as ledger
from dicom_etl.outputs.execution import Execution
from dicom_etl.outputs.fhir.facts import MappingOptions
from dicom_etl.outputs.fhir.rows import StudyKey
from dicom_etl.outputs.fhir.sent import NAME as SENT
from dicom_etl.outputs.fhir.sent import Record, last_execution, open_sent, put_back, record_of
from dicom_etl.outputs.follow import restored
from dicom_etl.outputs.stored_tags import NAMES


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done: ``since`` is the run that the server equals; ``record`` what it has of us.

    ``mode`` full: everything is computed and compared with the record; changed: the studies of new entries, those whose
    resources failed, and those whose patient the server did not have when it was asked last. ``succeeded_id`` is the
    id of the last execution that succeeded, ``last_id`` the highest that is known. ``distrusted``: the record was
    put back to an older state.
    """

    source: Source
    since: int
    mode: ledger.Mode
    options: MappingOptions
    digest: str
    server: str
    record: Record
    last_id: int
    succeeded_id: int
    distrusted: bool


def due(
    settings: Settings, snapshot: LakeSnapshot, now: datetime, *, full: bool = False, retry: bool = False
) -> Due | None:
    """What there is to do; None where the server has what the tables have, as far as our record tells."""
    server, options = server_fingerprint(settings), mapping_options(settings, snapshot.lake.identity)
    known = ledger.executions(ledger.open_executions(snapshot.lake))
    source = source_of(snapshot, known)
    sent = open_sent(snapshot.lake)
    last = ledger.last_succeeded(known, NAME)
    digest = options_digest(settings, options)
    record = record_of(sent, server)
    last_id = max(ledger.highest_id(known, NAME), last_execution(snapshot.lake, sent))
    distrusted = put_back(snapshot.lake, sent)
    mode = "full" if distrusted else _mode(known, last, source, digest, sent)
    since = 0 if last is None else last.to_run
    succeeded_id = 0 if last is None else last.execution_id
    found = Due(
        source, since, "full" if full else mode, options, digest, server, record, last_id, succeeded_id, distrusted
    )
    changed = mode != "changed" or since != source.run.run_id
    if not (full or changed or waiting(settings, record, now, retry)):
        return None
    refuse_restored(snapshot)
    return found


def _mode(
    known: Collection[Execution], last: Execution | None, source: Source, digest: str, sent: DeltaTable | None
) -> ledger.Mode:
    """How the keys are found; ``compare`` computes everything as ``full`` does, since rows changed without an entry."""
    if last is None or last.to_run == 0 or last.design_digest != digest:
        return "full"
    behind = last.to_run > source.run.run_id
    if behind or restored(last, {SENT: None if sent is None else sent.version()} | dict(source.tags.versions)):
        return "full"
    rows = NAMES[0]
    later = [one for one in known if one.output == "columns" and one.status == "succeeded"]
    later = [one for one in later if one.versions.get(rows, 0) > last.versions.get(rows, 0)]
    return "changed" if all(one.mode == "changed" for one in later) else "compare"


def waiting(settings: Settings, record: Record, now: datetime, retry: bool) -> frozenset[str]:
    """The keys of resources that are to be sent again, and of patients that are to be asked for again."""
    ttl = timedelta(microseconds=int(settings.fhir.patients_ttl) // TICKS_PER_MICROSECOND)
    again = ("failed", "refused") if retry else ("failed",)
    failed = (key for (_, key), row in record.items() if row.state in again)
    referred = {row.parent for row in record.values() if row.kind == "ImagingStudy" and row.stands}
    asked = (
        key
        for (kind, key), row in record.items()
        if settings.fhir.patients != "own"
        and kind == "PatientSearch"
        and key in referred
        and row.state in ("none", "several")
        and now - row.at >= ttl
    )
    return frozenset((*failed, *asked))


def landed_studies(snapshot: LakeSnapshot, since: int, until: int) -> set[StudyKey]:
    """The studies of what the runs in (since, until] read, by the files' bounds of run ids."""
    run_id = pc.field("runId")
    found: set[StudyKey] = set()
    columns = ["partitionName", "studyInstanceUid"]
    for batch in iterate_rows(snapshot.table("change"), columns, (run_id > since) & (run_id <= until)):
        pairs = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        found |= {StudyKey(partition, uid) for partition, uid in pairs if uid is not None}
    return found
