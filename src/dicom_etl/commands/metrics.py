"""The state of a lake as metrics for Prometheus's textfile collector, from the ledger alone."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

from dicom_etl.core.clock import utc_now
from dicom_etl.core.errors import DicomEtlError
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import TICKS_PER_SECOND
from dicom_etl.lake import ledger
from dicom_etl.lake.ledger import READING_VERBS, Run
from dicom_etl.lake.status import Status, status_and_runs

log = logging.getLogger(__name__)

OUTCOMES = ("inserted", "updated", "deleted", "superseded", "rejected")
STEPS = ("start", "fetch", "land", "merge", "rollup")


@dataclass(frozen=True, slots=True)
class _Metric:
    """One metric; ``values`` by the value of ``label``, or under "" without one. Empty: it is not known."""

    name: str
    kind: Literal["gauge", "counter"]
    told: str
    values: Mapping[str, float]
    label: str = ""


def metrics_text(found: Status, runs: Sequence[Run]) -> str:
    """The metrics in Prometheus's text format; ``runs`` is the whole ledger, so that counters never fall."""
    return "".join(_lines(metric) for metric in _metrics(found, runs))


def _metrics(found: Status, runs: Sequence[Run]) -> Iterator[_Metric]:
    yield _Metric(
        "dicom_etl_lake_info",
        "gauge",
        "Always 1; its label is the id of the lake that the other metrics tell of.",
        {str(found.lake_id): 1},
        "lake",
    )
    reading = [run for run in runs if run.status == "succeeded" and run.verb in READING_VERBS]
    last = reading[-1] if reading else None
    yield _gauge("lag_seconds", "How far the tables are behind, when this was written.", found.lag_seconds)
    yield _gauge(
        "last_success_timestamp_seconds",
        "When the newest sync or repair that succeeded ended; 0 before the first.",
        last.finished_at.timestamp() if last else 0,
    )
    yield _gauge(
        "covered_until_timestamp_seconds",
        "Everything of the feed before this instant is in the tables.",
        found.covered_until / TICKS_PER_SECOND,
    )
    yield _gauge("windows_due", "Windows that are due and not read yet.", found.windows_due)
    yield _Metric(
        "dicom_etl_entries_total",
        "counter",
        "Entries of the feed that were read, by what became of them.",
        {outcome: sum(getattr(run, outcome) for run in runs) for outcome in OUTCOMES},
        "outcome",
    )
    yield _Metric(
        "dicom_etl_runs_total",
        "counter",
        "Runs that have ended, by how.",
        {state: sum(run.status == state for run in runs) for state in get_args(ledger.Status)},
        "status",
    )
    retries = sum(run.retries for run in runs)
    yield _Metric("dicom_etl_retries_total", "counter", "Requests that were sent again.", {"": retries})
    yield _gauge("open_rejects", "Entries that could not be used yet.", found.open_rejects)
    yield _Metric(
        "dicom_etl_last_run_seconds",
        "gauge",
        "What the newest sync or repair that succeeded took, by step; steps may overlap.",
        {step: getattr(last, f"{step}_seconds") for step in STEPS} if last else {},
        "step",
    )


def _gauge(name: str, told: str, value: float | None) -> _Metric:
    return _Metric(f"dicom_etl_{name}", "gauge", told, {} if value is None else {"": value})


def _lines(metric: _Metric) -> str:
    """Nothing for a metric without values: an absent one can be asked for, a wrong one cannot."""
    if not metric.values:
        return ""
    samples = (_sample(metric, of, value) for of, value in metric.values.items())
    return f"# HELP {metric.name} {metric.told}\n# TYPE {metric.name} {metric.kind}\n" + "".join(samples)


def _sample(metric: _Metric, of: str, value: float) -> str:
    labels = f'{{{metric.label}="{of}"}}' if metric.label else ""
    return f"{metric.name}{labels} {value!r}\n"


def write_metrics(file: Path, text: str) -> None:
    """Put the file into place by one rename: who reads meanwhile has the old one, or the new one. Raises OSError.

    Its mode follows the umask, since the collector is another user. The folder may be open to others (/tmp): nobody can
    foresee the name that is written, or have it lead elsewhere.
    """
    # Not *.prom: the collector reads those.
    scratch = file.with_name(f".{file.name}.{secrets.token_hex(8)}.tmp")
    opened = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        with open(opened, "w", encoding="utf-8") as written:
            written.write(text)
        os.replace(scratch, file)
    finally:
        scratch.unlink(missing_ok=True)


@contextmanager
def metrics_after(settings: Settings, clock: Callable[[], datetime] = utc_now) -> Iterator[Callable[[], None]]:
    """Writes `metrics.prometheus_file`, if one is set, when the block ends, however it ends.

    Gives a function that writes it meanwhile. That it cannot be written is a line in the log, once, and no run's
    failure.
    """
    told = ""

    def refresh() -> None:
        nonlocal told
        failed = _refresh(settings, clock) if settings.metrics.prometheus_file else ""
        if failed and failed != told:
            log.warning("metrics not written", extra={"error": failed, "setting": "metrics.prometheus_file"})
        told = failed

    try:
        yield refresh
    finally:
        refresh()


def _refresh(settings: Settings, clock: Callable[[], datetime]) -> str:
    """Writes the file; the name of the error that kept it from that, or nothing."""
    try:
        text = metrics_text(*status_and_runs(settings, clock=clock))
        write_metrics(Path(settings.metrics.prometheus_file).expanduser(), text)
    except (DicomEtlError, OSError, ValueError, RuntimeError) as error:
        # A name that can be no file's, or has the ~ of nobody, is a ValueError or a RuntimeError. Without a lake there
        # is nothing to tell.
        return type(error).__name__
    return ""


def refreshed(runs: Iterable[Run], refresh: Callable[[], None]) -> Iterator[Run]:
    """The same runs, with the metrics written after each."""
    for run in runs:
        refresh()
        yield run
