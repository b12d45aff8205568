"""Brings the outputs of a lake up to its last run, one after the other."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from pyspark.sql import SparkSession

from dicom_etl.commands.columns.update import Tools, update_in
from dicom_etl.commands.fhir import update as fhir
from dicom_etl.core.clock import utc_now
from dicom_etl.core.errors import DataError, DicomEtlError
from dicom_etl.core.progress import NullProgress, Progress
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake.open import existing_lake
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.outputs.execution import Execution
from dicom_etl.outputs.failures import failure_recorded
from dicom_etl.tables.engine.session import Engine

log = logging.getLogger(__name__)


def _fhir(tools: Tools, snapshot: LakeSnapshot) -> Execution | None:
    return fhir.update_in(fhir.Tools(tools.settings, tools.progress, tools.clock, tools.sleep), snapshot)


# Each brings one output up to the last run, in an engine that is kept; in this order, as one is made of another.
FOLLOWERS: dict[str, Callable[[Tools, LakeSnapshot], Execution | None]] = {"columns": update_in, "fhir": _fhir}


def brought_up(
    settings: Settings,
    *,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Execution]:
    """The executions that brought the outputs up to the last run: those of ``outputs.after_sync``, or all."""
    names: Sequence[str] = settings.outputs.after_sync or configured(settings)
    snapshot = existing_lake(settings)
    with Engine(settings.spark, spark, snapshot.lake.paths) as engine:
        return follow(Tools(settings, engine, progress or NullProgress(), clock, sleep), snapshot, names)


def not_taken(execution: Execution | None) -> DicomEtlError | None:
    """The error that tells of resources which the other side did not take; each has a row of its own by then."""
    if execution is None or not (execution.counts.refused or execution.counts.failed):
        return None
    counts = execution.counts
    log.warning(
        "output not taken whole", extra={"output": execution.output, "refused": counts.refused, "failed": counts.failed}
    )
    return DataError(
        f"{execution.output}: {counts.refused} resources were refused and {counts.failed} failed: see its state table"
    )


def configured(settings: Settings) -> list[str]:
    """The outputs that have what they need."""
    return [name for name in FOLLOWERS if name != "fhir" or settings.fhir.base_url]


def follow(tools: Tools, snapshot: LakeSnapshot, names: Sequence[str]) -> list[Execution]:
    """The executions of these outputs; none of those that are up to date.

    All of them are tried; then the first error is raised, and has a row in `output`.
    Nothing of it touches the lake's own tables, or coverage.
    """
    done: list[Execution] = []
    first: DicomEtlError | None = None
    for name in (one for one in FOLLOWERS if one in names):
        try:
            with failure_recorded(snapshot, name, clock=tools.clock, sleep=tools.sleep):
                execution = FOLLOWERS[name](tools, snapshot)
        except DicomEtlError as error:
            log.warning("output failed", extra={"output": name, "error_class": type(error).__name__})
            first = first or error
        else:
            done += [] if execution is None else [execution]
            first = first or not_taken(execution)
    if first is not None:
        raise first
    return done
