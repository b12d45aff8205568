"""Lets the FHIR server import an export by `$import`, and waits until it is done (`dicom-etl fhir import`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dicom_etl.commands.fhir.export import KINDS, MANIFEST
from dicom_etl.commands.fhir.update import Tools
from dicom_etl.core.errors import DataError, ProtocolError, UsageError
from dicom_etl.lake.delta.errors import storage_errors
from dicom_etl.lake.delta.folder import TableFolder
from dicom_etl.outputs.fhir.facts import Json
from dicom_etl.outputs.fhir.server import FhirServer
from dicom_etl.remote.storage import FilesystemOf, storage_of
from dicom_etl.remote.uri import is_remote, parse_abfs_uri

_POLL_SECONDS: Final = 5.0
_LONGEST_POLL_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Imported:
    """How many resources the server has imported, and how many it refused, in all files."""

    imported: int
    errors: int

    def as_row(self) -> dict[str, Any]:
        """By name, as a command prints it."""
        return {"imported": self.imported, "errors": self.errors}


def import_files(tools: Tools, folder: str, filesystem_of: FilesystemOf | None = None) -> Imported:
    """What became of the resources of the export in ``folder``, an abfss:// address that the server can read.

    ``filesystem_of`` stands in for the filesystem that the settings name. Raises UsageError for a folder that the
    server cannot read or that has no export, DataError when the server ends the import with an error, ProtocolError
    when its answer is none to an import.
    """
    if not is_remote(folder):
        raise UsageError("fhir import: name the export by its abfss:// address: the server itself reads it")
    files = _files(folder, filesystem_of or storage_of(tools.settings).filesystem)
    with tools.server() as server:
        path = server.start_async("/$import", parameters(folder, files))
        return _waited(tools, server, path)


def _files(folder: str, filesystem_of: FilesystemOf) -> list[str]:
    place = TableFolder(*filesystem_of(folder))
    with storage_errors("export"):
        if not place.filesystem.exists(f"{place.path}/{MANIFEST}"):
            raise UsageError(f"fhir import: the folder has no export ({MANIFEST} is missing): dicom-etl fhir export")
        with place.open(MANIFEST) as source:
            content = source.read()
    try:
        return [str(name) for name in json.loads(content)["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"fhir import: {MANIFEST} of the folder is damaged: export again") from error


def parameters(folder: str, files: list[str]) -> Json:
    """The body of `$import` (Azure Health Data Services: Import data)."""
    uri = parse_abfs_uri(folder)
    base = f"https://{uri.blob_host}/{uri.key}"
    inputs = [_input(name.partition("-")[0], f"{base}/{name}") for name in files]
    plain = {"inputFormat": "application/fhir+ndjson", "mode": "IncrementalLoad"}
    parameters = [{"name": name, "valueString": value} for name, value in plain.items()]
    return {"resourceType": "Parameters", "parameter": [*parameters, *inputs]}


def _input(kind: str, url: str) -> Json:
    if kind not in KINDS:
        raise UsageError("fhir import: the folder's manifest names a file that is none of an export")
    return {"name": "input", "part": [{"name": "type", "valueString": kind}, {"name": "url", "valueUri": url}]}


def _waited(tools: Tools, server: FhirServer, path: str) -> Imported:
    seconds = _POLL_SECONDS
    while True:
        polled = server.poll(path)
        if polled.status != 202:
            break
        tools.progress.step("import")
        tools.sleep(min(_LONGEST_POLL_SECONDS, polled.retry_after or seconds))
        seconds = min(_LONGEST_POLL_SECONDS, seconds * 1.5)
    if polled.status != 200 or polled.body is None:
        raise DataError(f"the FHIR server ended the import with an error (status {polled.status}); see its job's log")
    return Imported(_count(polled.body, "output"), _count(polled.body, "error"))


def _count(body: Mapping[str, Any], name: str) -> int:
    found = body.get(name, [])
    if not isinstance(found, list):
        raise ProtocolError("the FHIR server's answer to the import is none that $import gives")
    return sum(int(one.get("count", 0)) for one in found if isinstance(one, dict))
