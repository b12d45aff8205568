"""The state of a lake as metrics for Prometheus's textfile collector, from the ledger alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import get_args

from dicom_etl.commands.exit_metrics import exits_kept
from dicom_etl.commands.output_metrics import output_lines
from dicom_etl.commands.prometheus import Metric, metric_lines, write_metrics
from dicom_etl.core.clock import utc_now
from dicom_etl.core.errors import ConfigurationError, DicomEtlError
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import TICKS_PER_SECOND
from dicom_etl.lake import ledger
from dicom_etl.lake.ledger import READING_VERBS, Run
from dicom_etl.lake.status import Status, status_and_runs
from dicom_etl.outputs.execution import executions, open_executions
from dicom_etl.outputs.state import output_states

log = logging.getLogger(__name__)

OUTCOMES = ("inserted", "updated", "deleted", "superseded", "rejected")
STEPS = ("start", "fetch", "land", "merge", "rollup")


def _last(runs: Sequence[Run]) -> Run | None:
    """The newest run that read the feed and succeeded: a `maintain` that succeeds must not hide syncs that fail."""
    return next((run for run in reversed(runs) if run.status == "succeeded" and run.verb in READING_VERBS), None)


def _known(value: float | None) -> Mapping[str, float]:
    return {} if value is None else {"": value}


def _last_success(_status: Status, runs: Sequence[Run]) -> Mapping[str, float]:
    last = _last(runs)
    return {"": last.finished_at.timestamp() if last else 0}


def _last_maintain(_status: Status, runs: Sequence[Run]) -> Mapping[str, float]:
    done = (run for run in reversed(runs) if run.status == "succeeded" and run.verb == "maintain")
    return {"": next((run.finished_at.timestamp() for run in done), 0)}


def _last_steps(_status: Status, runs: Sequence[Run]) -> Mapping[str, float]:
    last = _last(runs)
    return {step: getattr(last, f"{step}_seconds") for step in STEPS} if last else {}


METRICS = (
    Metric(
        "dicom_etl_lake_info",
        "gauge",
        "",
        "Always 1; its label is the id of the lake that the other metrics describe.",
        lambda status, _runs: {str(status.lake_id): 1},
        "lake",
    ),
    Metric(
        "dicom_etl_lag_seconds",
        "gauge",
        "seconds",
        "How far the tables were behind when the file was written; it does not grow while nothing runs.",
        lambda status, _runs: _known(status.lag_seconds),
    ),
    Metric(
        "dicom_etl_last_success_timestamp_seconds",
        "gauge",
        "seconds since 1970",
        "When the newest sync or repair that succeeded ended; 0 before the first.",
        _last_success,
    ),
    Metric(
        "dicom_etl_last_maintain_timestamp_seconds",
        "gauge",
        "seconds since 1970",
        "When the newest maintain that succeeded ended, as the next sync tells; 0 before the first.",
        _last_maintain,
    ),
    Metric(
        "dicom_etl_covered_until_timestamp_seconds",
        "gauge",
        "seconds since 1970",
        "Every entry of the feed before this instant is in the tables.",
        lambda status, _runs: {"": status.covered_until / TICKS_PER_SECOND},
    ),
    Metric(
        "dicom_etl_windows_due",
        "gauge",
        "windows",
        "Windows that are due and not read yet.",
        lambda status, _runs: {"": status.windows_due},
    ),
    Metric(
        "dicom_etl_entries_total",
        "counter",
        "entries",
        "Entries of the feed that were read, by outcome.",
        lambda _status, runs: {outcome: sum(getattr(run, outcome) for run in runs) for outcome in OUTCOMES},
        "outcome",
        OUTCOMES,
    ),
    Metric(
        "dicom_etl_runs_total",
        "counter",
        "runs",
        "Runs that have ended, by status.",
        lambda _status, runs: {state: sum(run.status == state for run in runs) for state in get_args(ledger.Status)},
        "status",
        get_args(ledger.Status),
    ),
    Metric(
        "dicom_etl_retries_total",
        "counter",
        "requests",
        "Requests that were sent again, by runs that succeeded.",
        lambda _status, runs: {"": sum(run.retries for run in runs)},
    ),
    Metric(
        "dicom_etl_open_rejects",
        "gauge",
        "entries",
        "Entries that could not be used yet; absent when this user may not read the table rejected.",
        lambda status, _runs: _known(status.open_rejects),
    ),
    Metric(
        "dicom_etl_last_run_seconds",
        "gauge",
        "seconds",
        "Duration of the newest sync or repair that succeeded, by step; steps may overlap.",
        _last_steps,
        "step",
        STEPS,
    ),
)


def metrics_text(status: Status, runs: Sequence[Run]) -> str:
    """The metrics in Prometheus's text format; ``runs`` is the whole ledger, so that counters never fall.

    A metric without values is left out: an alert can ask for an absent one, not for a wrong one.
    """
    return "".join(metric_lines(metric, values) for metric in METRICS if (values := metric.values(status, runs)))


@contextmanager
def metrics_after(settings: Settings, clock: Callable[[], datetime] = utc_now) -> Iterator[Callable[[], None]]:
    """Writes `metrics.prometheus_file`, if one is set, when the block ends, however it ends.

    Gives a function that writes it meanwhile. That it cannot be written is a line in the log, once, and no run's
    failure.
    """
    last_failure = ""

    def refresh() -> None:
        nonlocal last_failure
        failed = _refresh(settings, clock) if settings.metrics.prometheus_file else ""
        if failed and failed != last_failure:
            log.warning("metrics not written", extra={"error": failed, "setting": "metrics.prometheus_file"})
        last_failure = failed

    try:
        yield refresh
    finally:
        refresh()


def _refresh(settings: Settings, clock: Callable[[], datetime]) -> str:
    """Writes the file; the name of the error that kept it from that, or nothing.

    Without a lake there is nothing to tell, and the command's own error says so.
    """
    try:
        file = Path(settings.metrics.prometheus_file).expanduser()
        status, runs, snapshot = status_and_runs(settings, clock=clock)
        outputs = output_states(runs, executions(open_executions(snapshot.lake)), clock())
        write_metrics(file, metrics_text(status, runs) + output_lines(outputs) + exits_kept(file))
    except ConfigurationError:
        return ""
    except (DicomEtlError, OSError, ValueError, RuntimeError) as error:
        # A name that can be no file's, or has the ~ of nobody, is a ValueError or a RuntimeError.
        return type(error).__name__
    return ""


def refreshed(runs: Iterable[Run], refresh: Callable[[], None]) -> Iterator[Run]:
    """The same runs, with the metrics written after each."""
    for run in runs:
        refresh()
        yield run
