"""Compares what the FHIR server holds with our record of it: ids and digests (`dicom-etl fhir verify`)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from dicom_etl.commands.fhir.marked import marked
from dicom_etl.commands.fhir.options import mapping_options, server_fingerprint
from dicom_etl.commands.fhir.update import Tools
from dicom_etl.core.errors import ServiceUnavailable
from dicom_etl.lake.lake_id import service_fingerprint
from dicom_etl.lake.open import existing_lake
from dicom_etl.outputs.fhir.bundle import Entry
from dicom_etl.outputs.fhir.digest import digest
from dicom_etl.outputs.fhir.facts import Json, MappingOptions
from dicom_etl.outputs.fhir.ids import meta
from dicom_etl.outputs.fhir.sending import sent
from dicom_etl.outputs.fhir.sent import Record, Sent, open_sent, record_of
from dicom_etl.outputs.fhir.server import FhirServer

KINDS: Final[tuple[str, ...]] = ("Endpoint", "Patient", "ImagingStudy", "Observation")
# What a server adds to a resource that it was given.
_ADDED: Final = ("text",)


@dataclass(frozen=True, slots=True)
class KindVerified:
    """Of one kind of resource: how many are equal, differ, lack, or are the server's alone though marked as ours.

    ``unsent`` are those that the server refused, or failed to take: they may be there as they were before.
    """

    kind: str
    equal: int
    differs: int
    missing: int
    unknown: int
    unsent: int

    @property
    def right(self) -> bool:
        return not (self.differs or self.missing or self.unknown or self.unsent)

    def as_row(self) -> dict[str, Any]:
        """By name, as a command prints it."""
        return {
            "kind": self.kind,
            "equal": self.equal,
            "differs": self.differs,
            "missing": self.missing,
            "unknown": self.unknown,
            "unsent": self.unsent,
            "right": self.right,
        }


def verify(tools: Tools) -> list[KindVerified]:
    """What the server has, by kind. Raises as ``update`` does; nothing is changed, and no claim taken."""
    snapshot = existing_lake(tools.settings, service_fingerprint(tools.settings.dicom.base_url))
    options = mapping_options(tools.settings, snapshot.lake.identity)
    record = record_of(open_sent(snapshot.lake), server_fingerprint(tools.settings))
    with tools.server() as server:
        counts = _compared(tools, server, record, options)
        for kind in KINDS:
            known = {str(row.resource_id) for row in record.values() if row.kind == kind and row.stands}
            counts[kind, "unknown"] = sum(one not in known for one in marked(server, kind, options))
    return [KindVerified(kind, *(counts[kind, word] for word in KindVerified.__slots__[1:])) for kind in KINDS]


def _compared(tools: Tools, server: FhirServer, record: Record, options: MappingOptions) -> Counter[tuple[str, str]]:
    counts: Counter[tuple[str, str]] = Counter()
    standing: dict[tuple[str, str], Sent] = {
        (row.kind, str(row.resource_id)): row for row in record.values() if row.kind in KINDS and row.stands
    }
    counts.update((row.kind, "unsent") for row in standing.values() if row.state != "sent")
    asked = (Entry("GET", row.kind, identity, None) for (_, identity), row in standing.items() if row.state == "sent")
    for entry, outcome in sent(server, asked, tools.settings.fhir):
        row = standing[entry.kind, entry.id]
        if outcome.body is None and outcome.status not in (404, 410):
            raise ServiceUnavailable(
                f"the FHIR server did not give a {entry.kind} (status {outcome.status}): run again"
            )
        counts[entry.kind, "missing" if outcome.body is None else _word(row, outcome.body, options)] += 1
    return counts


def _word(row: Sent, body: Json, options: MappingOptions) -> str:
    return "equal" if digest(as_sent(body, options)) == row.digest else "differs"


def as_sent(body: Json, options: MappingOptions) -> Json:
    """The resource without what servers add: version, time, narrative, the request's id behind ``meta.source``."""
    return {name: value for name, value in body.items() if name not in _ADDED} | {"meta": meta(options)}
