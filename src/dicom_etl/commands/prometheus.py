"""Prometheus's text format, and the file that its textfile collector reads."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from dicom_etl.lake.ledger import Run
    from dicom_etl.lake.status import Status


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: what `docs/metrics.md` says of it, and how it follows from a status and the whole ledger.

    ``values`` gives them by the value of ``label``, one of ``label_values``, or under "" without a label. It gives
    none when the metric is not known.
    """

    name: str
    kind: Literal["gauge", "counter"]
    unit: str
    description: str
    values: Callable[[Status, Sequence[Run]], Mapping[str, float]]
    label: str = ""
    label_values: tuple[str, ...] = ()


def metric_lines(metric: Metric, values: Mapping[str, float]) -> str:
    """The metric with its samples in Prometheus's text format, ``values`` by the value of its label."""
    samples = (_sample(metric, label_value, value) for label_value, value in values.items())
    return f"# HELP {metric.name} {metric.description}\n# TYPE {metric.name} {metric.kind}\n" + "".join(samples)


def _sample(metric: Metric, label_value: str, value: float) -> str:
    labels = f'{{{metric.label}="{label_value}"}}' if metric.label else ""
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
