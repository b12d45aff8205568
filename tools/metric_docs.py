"""docs/metrics.md, from the metrics that `dicom_etl.commands.metrics` declares."""

from __future__ import annotations

from dicom_etl.commands.exit_metrics import EXIT_METRICS
from dicom_etl.commands.metrics import METRICS
from dicom_etl.commands.output_metrics import OUTPUT_METRICS
from dicom_etl.commands.prometheus import Metric

_HEAD = """# Metrics

For people who monitor `dicom-etl`. `make docs` generates this page from the metrics' declarations; do not edit it.

Set `metrics.prometheus_file` to a file that the textfile collector of node_exporter reads. Values come from the
ledger and from the state of the lake. Counters are sums over the whole ledger, so they never fall while the lake stays
the same. A metric whose value is not known is absent. The last two tell how commands ended, and are kept in the file
itself: no ledger knows of a wrong setting or a second writer. When the file is written, and which alerts to set:
[what to watch](operations.md#what-to-watch).

| metric | type | unit | meaning |
|---|---|---|---|
"""


def metrics_document() -> str:
    """The whole of docs/metrics.md."""
    return _HEAD + "".join(map(_row, (*METRICS, *OUTPUT_METRICS, *EXIT_METRICS)))


def _row(metric: Metric) -> str:
    label = f"{{{metric.label}}}" if metric.label else ""
    values = f" `{metric.label}` is {_listed(metric.label_values)}." if metric.label_values else ""
    return f"| `{metric.name}{label}` | {metric.kind} | {metric.unit} | {metric.description}{values} |\n"


def _listed(names: tuple[str, ...]) -> str:
    before = ", ".join(f"`{name}`" for name in names[:-1])
    return f"{before} or `{names[-1]}`" if before else f"`{names[-1]}`"
