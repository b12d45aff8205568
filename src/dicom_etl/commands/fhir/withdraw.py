"""Deletes everything of ours from the FHIR server (`dicom-etl fhir withdraw`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from dicom_etl.commands.fhir.marked import DELETED_IN_ORDER, marked
from dicom_etl.commands.fhir.options import NAME, mapping_options, options_digest, server_fingerprint
from dicom_etl.commands.fhir.send import Sender
from dicom_etl.commands.fhir.update import Tools
from dicom_etl.lake.lake_id import service_fingerprint
from dicom_etl.lake.open import existing_lake
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.outputs import execution as ledger
from dicom_etl.outputs.claim import claimed
from dicom_etl.outputs.execution import Execution
from dicom_etl.outputs.failures import failure_recorded
from dicom_etl.outputs.fhir import sent as sent_table
from dicom_etl.outputs.fhir.facts import MappingOptions
from dicom_etl.outputs.fhir.sent import Kind, Record, Recorder, Sent, last_execution, open_sent, record_of
from dicom_etl.outputs.fhir.server import FhirServer


def withdraw(tools: Tools) -> Execution:
    """The execution's row: what our record has, and what bears this lake's mark, is deleted.

    The next `dicom-etl fhir` sends everything again. What DICOMcast made and was adopted is deleted, too; a Patient
    that is not ours is not. Raises as ``update`` does.
    """
    snapshot = existing_lake(tools.settings, service_fingerprint(tools.settings.dicom.base_url))
    lake = snapshot.lake
    known = ledger.executions(ledger.open_executions(lake))
    last_id = max(ledger.highest_id(known, NAME), last_execution(lake, open_sent(lake)))
    with (
        failure_recorded(snapshot, NAME, clock=tools.clock, sleep=tools.sleep),
        tools.server() as server,
        claimed(lake, NAME, last_id, clock=tools.clock, sleep=tools.sleep, pulse=server.client.pulse) as execution_id,
    ):
        done = _withdrawn(tools, snapshot, server, execution_id)
        ledger.record(lake, done)
        return done


def _withdrawn(tools: Tools, snapshot: LakeSnapshot, server: FhirServer, execution_id: int) -> Execution:
    lake, fingerprint = snapshot.lake, server_fingerprint(tools.settings)
    options = mapping_options(tools.settings, lake.identity)
    record = record_of(open_sent(lake), fingerprint)
    recorder = Recorder(lake, fingerprint, execution_id, record, tools.monotonic)
    sender = Sender(tools.settings.fhir, server, recorder, tools.clock, retry=True)
    row = Execution(
        output=NAME,
        execution_id=execution_id,
        mode="full",
        status="succeeded",
        from_run=0,
        to_run=0,  # so that the next execution sends everything
        started_at=tools.clock(),
        finished_at=tools.clock(),
        design_digest=options_digest(tools.settings, options),
    )
    try:
        for kind in DELETED_IN_ORDER:
            sender.delete(list(_ours(tools, server, kind, record, options)))
        _forget_searches(recorder)
    finally:
        recorder.flush()
    sent = sent_table.open_sent(lake)
    return replace(
        row,
        finished_at=tools.clock(),
        counts=sender.totals(),
        versions={} if sent is None else {sent_table.NAME: sent.version()},
        details=Counter(sender.kinds) | {"requests": server.client.requests},
    )


def _ours(tools: Tools, server: FhirServer, kind: Kind, record: Record, options: MappingOptions) -> Iterator[Sent]:
    recorded = [row for row in record.values() if row.kind == kind and row.stands]
    yield from recorded
    known = {row.resource_id for row in recorded}
    for identity in marked(server, kind, options):
        if identity not in known:
            yield Sent(kind, identity, identity, "sent", tools.clock())


def _forget_searches(recorder: Recorder) -> None:
    searches = [row for (kind, _), row in recorder.record.items() if kind == "PatientSearch"]
    recorder.add(replace(row, state="deleted", resource_id=None) for row in searches)
