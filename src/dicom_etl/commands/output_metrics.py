"""How far each output is behind the tables, as metrics, from the ledgers alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dicom_etl.commands.exit_metrics import not_of_the_lake
from dicom_etl.commands.prometheus import Metric, metric_lines

if TYPE_CHECKING:
    from dicom_etl.outputs.state import OutputState

OUTPUTS = ("columns",)


LAG = Metric(
    "dicom_etl_output_lag_seconds",
    "gauge",
    "seconds",
    "For how long there has been a run that the output lacks; 0 where it has what the tables have.",
    not_of_the_lake,
    "output",
    OUTPUTS,
)
FAILING = Metric(
    "dicom_etl_output_failing",
    "gauge",
    "",
    "1 when the newest execution of the output ended with an error, else 0.",
    not_of_the_lake,
    "output",
    OUTPUTS,
)
OUTPUT_METRICS = (LAG, FAILING)


def output_lines(states: Sequence[OutputState]) -> str:
    """The metrics of the outputs in Prometheus's format; nothing where no output has been executed."""
    if not states:
        return ""
    lags = {state.output: state.lag_seconds for state in states}
    failing = {state.output: int(state.failed is not None) for state in states}
    return metric_lines(LAG, lags) + metric_lines(FAILING, failing)
