"""Whether everything is there that a run needs: settings, service, storage, machine, each check by itself."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import httpx

from dicom_etl.commands.doctor.check import CheckResult, problem
from dicom_etl.commands.doctor.fhir import fhir_findings
from dicom_etl.commands.doctor.machine import machine_findings, memory_finding, metrics_findings
from dicom_etl.commands.doctor.service import Resolve, service_findings
from dicom_etl.commands.doctor.storage import storage_findings
from dicom_etl.core.clock import utc_now
from dicom_etl.core.errors import ConfigurationError, DicomEtlError
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake.delta.errors import storage_error
from dicom_etl.lake.paths import LakePaths, lake_paths
from dicom_etl.remote.storage import FilesystemOf
from dicom_etl.tables.engine.jars import FOLDER

_NEED_SETTINGS = ("address", "connection", "clock", "token", "role", "lake.root", "lake", "metrics", "memory")


def doctor(
    load: Callable[[], Settings],
    *,
    filesystem_of: FilesystemOf | None = None,
    clock: Callable[[], datetime] = utc_now,
    resolve: Resolve = socket.getaddrinfo,
    transport: httpx.BaseTransport | None = None,
    jars: Path = FOLDER,
) -> Iterator[CheckResult]:
    """All findings, each given when it is known, the most basic first; changes nothing and leaves nothing behind.

    ``load`` gives the settings or raises ConfigurationError; then only the machine can be looked at.
    ``filesystem_of`` stands in for the filesystems that the settings name.
    """
    try:
        settings = load()
    except ConfigurationError as error:
        for line in str(error).splitlines():
            yield CheckResult("settings", "problem", line, error.exit_code)
        for check in _NEED_SETTINGS:
            yield CheckResult(check, "warning", "not checked: see settings")
    else:
        paths, missing = _lake_paths(settings)
        yield from missing or [CheckResult("settings", "ok", "complete")]
        yield from service_findings(
            settings.dicom, settings.feed.delay, clock=clock, resolve=resolve, transport=transport
        )
        if paths is None:
            yield CheckResult("lake.root", "warning", "not checked: see settings")
        else:
            yield from storage_findings(settings, paths, filesystem_of or paths.storage.filesystem, uuid.uuid4().hex)
        yield from fhir_findings(settings.fhir, transport)
        yield from metrics_findings(settings.metrics)
        yield memory_finding(settings.spark)
    yield from machine_findings(jars)


def _lake_paths(settings: Settings) -> tuple[LakePaths | None, list[CheckResult]]:
    """Where the lake lies, if that can be told, and the settings that are missing or cannot be."""
    missing = []
    if not settings.dicom.base_url:
        text = "dicom.base_url is not set: name the address of the DICOM service"
        missing.append(problem("settings", ConfigurationError(text)))
    try:
        return lake_paths(settings), missing
    except DicomEtlError as error:
        return None, [*missing, problem("settings", error)]
    except OSError as error:
        return None, [*missing, problem("settings", storage_error(error, "lake.root", writing=True))]
