"""How each scheduled command ended last, as metrics: kept in the file itself, since no ledger knows of all ends."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_etl.commands.prometheus import Metric, metric_lines, write_metrics

if TYPE_CHECKING:
    from dicom_etl.lake.ledger import Run
    from dicom_etl.lake.status import Status

# What a scheduler runs. A query or an upload that a person mistypes must not alert.
VERBS = ("sync", "watch", "verify", "repair", "maintain", "columns", "outputs")


def not_of_the_lake(_status: Status, _runs: Sequence[Run]) -> Mapping[str, float]:
    """No values: those of the metric come from elsewhere than the lake's state and ledger."""
    return {}


EXIT_CODE = Metric(
    "dicom_etl_last_exit_code",
    "gauge",
    "",
    "Exit code of the command that ended last, by its verb, but a failure typed on a terminal; absent before any.",
    not_of_the_lake,
    "verb",
    VERBS,
)
EXIT_TIME = Metric(
    "dicom_etl_last_exit_timestamp_seconds",
    "gauge",
    "seconds since 1970",
    "When that command ended; a process that is killed writes neither.",
    not_of_the_lake,
    "verb",
    VERBS,
)
EXIT_METRICS = (EXIT_CODE, EXIT_TIME)

_SAMPLE = re.compile(rf'({EXIT_CODE.name}|{EXIT_TIME.name})\{{verb="([a-z]+)"\}} (\S+)')
_NAME = re.compile(rf"(?:# (?:HELP|TYPE) )?(?:{EXIT_CODE.name}|{EXIT_TIME.name})\b")


def record_exit(file: Path, verb: str, code: int, ended_at: datetime) -> None:
    """Put the exit code of ``verb`` into the metrics file; all that else stands there stays as it is.

    A file that is not there is made. Raises OSError, or ValueError for a name that no file can have.
    """
    text = _text(file)
    others = "".join(line + "\n" for line in text.splitlines() if not _NAME.match(line))
    codes, times = _samples(text)
    codes[verb], times[verb] = code, ended_at.timestamp()
    write_metrics(file, others + _lines(codes, times))


def exits_kept(file: Path) -> str:
    """The exit codes and times that stand in the metrics file, in its format; nothing where there are none.

    Raises OSError and ValueError as reading the file does.
    """
    return _lines(*_samples(_text(file)))


def _text(file: Path) -> str:
    # One that another user wrote cannot be read, but replaced: old exit codes go, and not the metrics.
    with suppress(FileNotFoundError, PermissionError):
        return file.read_text(encoding="utf-8", errors="replace")
    return ""


def _samples(text: str) -> tuple[dict[str, float], dict[str, float]]:
    """Codes and times by verb; a line that is not ours is left out."""
    samples: dict[str, dict[str, float]] = {EXIT_CODE.name: {}, EXIT_TIME.name: {}}
    for name, verb, value in (match.groups() for match in map(_SAMPLE.fullmatch, text.splitlines()) if match):
        if verb in VERBS:
            with suppress(ValueError, OverflowError):
                samples[name][verb] = int(value) if name == EXIT_CODE.name else float(value)
    return samples[EXIT_CODE.name], samples[EXIT_TIME.name]


def _lines(codes: Mapping[str, float], times: Mapping[str, float]) -> str:
    return "".join(
        metric_lines(metric, values) for metric, values in ((EXIT_CODE, codes), (EXIT_TIME, times)) if values
    )
