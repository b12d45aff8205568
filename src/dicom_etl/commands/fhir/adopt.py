"""Takes over ImagingStudy resources that DICOMcast left in the FHIR server (`dicom-etl fhir adopt`)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from dicom_etl.commands.fhir.options import NAME, mapping_options, server_fingerprint
from dicom_etl.commands.fhir.source import source_of, study_tables
from dicom_etl.commands.fhir.update import Tools
from dicom_etl.core.attributes import DEFAULT_PARTITION
from dicom_etl.core.errors import ConfigurationError
from dicom_etl.lake.lake_id import service_fingerprint
from dicom_etl.lake.open import existing_lake, refuse_incomplete
from dicom_etl.outputs import execution as ledger
from dicom_etl.outputs.claim import claimed
from dicom_etl.outputs.fhir.facts import Json, MappingOptions
from dicom_etl.outputs.fhir.ids import study_id
from dicom_etl.outputs.fhir.rows import StudyKey, study_keys
from dicom_etl.outputs.fhir.sent import Record, Recorder, Sent, last_execution, open_sent, record_of
from dicom_etl.outputs.fhir.server import FhirServer

_SYSTEM: Final = "urn:dicom:uid"
_VERSION: Final = 2
# Identifiers in one search: an address of some 4 000 characters.
_AT_ONCE: Final = 40


@dataclass(frozen=True, slots=True)
class Adopted:
    """What was found: studies taken over, those that several resources claim, and those of another source."""

    adopted: int
    several: int
    foreign: int

    def as_row(self) -> dict[str, Any]:
        """By name, as a command prints it."""
        return {"adopted": self.adopted, "several": self.several, "foreign": self.foreign}


def adopt(tools: Tools) -> Adopted:
    """What was taken over: resources with the identifier of a living study and our service as their `meta.source`.

    They keep their ids, and the next `dicom-etl fhir` writes them as ours. Studies that we have sent already stay as
    they are. DICOMcast knew no partitions, so only studies of the default one are looked for.
    """
    snapshot = existing_lake(tools.settings, service_fingerprint(tools.settings.dicom.base_url))
    refuse_incomplete(snapshot)
    lake, server_name = snapshot.lake, server_fingerprint(tools.settings)
    options = mapping_options(tools.settings, lake.identity)
    known = ledger.executions(ledger.open_executions(lake))
    tables = study_tables(snapshot, source_of(snapshot, known))
    last_id = max(ledger.highest_id(known, NAME), last_execution(lake, open_sent(lake)))
    with (
        tools.server() as server,
        claimed(lake, NAME, last_id, clock=tools.clock, sleep=tools.sleep, pulse=server.client.pulse) as execution_id,
    ):
        record = record_of(open_sent(lake), server_name)
        recorder = Recorder(lake, server_name, execution_id, record, tools.monotonic)
        wanted = {
            f"urn:oid:{key.uid}": key
            for key, _ in study_keys(tables.fixed["study"])
            if key.partition == DEFAULT_PARTITION and not _is_ours(record, study_id(*key, options))
        }
        found = _claims(server, wanted)
        ours = {key: [one for one in its if _is_from(one, options)] for key, its in found.items()}
        once = {key: its[0] for key, its in ours.items() if len(its) == 1}
        recorder.add(_row(tools, key, one, options) for key, one in once.items())
        recorder.flush()
    several = sum(len(its) > 1 for its in ours.values())
    return Adopted(len(once), several, sum(bool(found[key]) and not its for key, its in ours.items()))


def _claims(server: FhirServer, wanted: dict[str, StudyKey]) -> dict[StudyKey, list[Json]]:
    found: dict[StudyKey, list[Json]] = {}
    for part in _batched(sorted(wanted)):
        identifiers = ",".join(f"{_SYSTEM}|{value}" for value in part)
        for resource in server.search("ImagingStudy", (("identifier", identifiers), ("_count", "100"))):
            named = _identifiers(resource) & wanted.keys()
            # One resource for two studies can become neither.
            for value in named & set(part) if len(named) == 1 else ():
                found.setdefault(wanted[value], []).append(resource)
    return found


def _is_ours(record: Record, key: str) -> bool:
    row = record.get(("ImagingStudy", key))
    return row is not None and row.stands


def _batched(values: list[str]) -> Iterator[list[str]]:
    for at in range(0, len(values), _AT_ONCE):
        yield values[at : at + _AT_ONCE]


def _identifiers(resource: Json) -> set[str]:
    """The values that the resource has by our system; others may match a search, too."""
    identifiers = resource.get("identifier")
    found = identifiers if isinstance(identifiers, list) else []
    return {str(one.get("value")) for one in found if isinstance(one, dict) and one.get("system") == _SYSTEM}


def _is_from(resource: Json, options: MappingOptions) -> bool:
    # A server may put the id of the request that wrote it behind the source.
    meta = resource.get("meta")
    source = str(meta.get("source", "")).partition("#")[0] if isinstance(meta, dict) else ""
    try:
        return (
            service_fingerprint(source.rstrip("/").removesuffix(f"/v{_VERSION}")) == options.source.partition("://")[2]
        )
    except ConfigurationError:  # no address
        return False


def _row(tools: Tools, key: StudyKey, resource: Json, options: MappingOptions) -> Sent:
    return Sent("ImagingStudy", study_id(*key, options), str(resource["id"]), "adopted", tools.clock())
