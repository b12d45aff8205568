"""Log lines on standard error: constant texts with fields (``extra=``), as text or as JSON.

Fields hold counts, ids and names of ours only; values of patients, UIDs and paths never.
design/architecture.md: Patient data.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Literal, TextIO

LogFormat = Literal["text", "json"]

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def configure_logging(log_format: LogFormat, *, quiet: bool = False) -> None:
    """Send our own log lines to standard error, and those of all libraries nowhere; ``quiet``: warnings, as sentences.

    A library's line can quote a URL, a predicate or an argument, and with it a patient.
    """
    handler = _StandardError()
    handler.setFormatter(_Json() if log_format == "json" else _Sentence() if quiet else _Text())
    for name in ("dicom_etl", "dicom_emulator"):
        ours = logging.getLogger(name)
        ours.handlers[:] = [handler]
        ours.setLevel(logging.WARNING if quiet else logging.INFO)
        ours.propagate = False
    logging.getLogger().handlers[:] = [logging.NullHandler()]
    logging.captureWarnings(True)
    warnings.simplefilter("ignore")


def configure_as_asked(words: Iterable[str]) -> None:
    """As a command line asks that cannot be parsed, so that the line about it looks as asked."""
    given = list(words)
    if "--log-format=json" in given or ("--log-format", "json") in pairwise(given):
        configure_logging("json")


def quiet_libraries() -> None:
    """Have the clients of others log warnings only, unless somebody has set their level.

    At INFO, which notebooks like to turn on for everything, they print each address, and in it UIDs and paths.
    """
    for name in ("httpx", "httpcore", "azure"):
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.WARNING)


def format_stderr(text: str, **fields: object) -> str:
    """A line for standard error that is no event of the work, such as what ended it, as the lines beside it look.

    The ``fields`` are for programs: they stand in JSON only.
    """
    handlers = logging.getLogger("dicom_etl").handlers
    if handlers and isinstance(handlers[0].formatter, _Json):
        record = logging.LogRecord("dicom_etl", logging.ERROR, "", 0, text, None, None)
        vars(record).update(fields)
        return handlers[0].formatter.format(record)
    return f"dicom-etl: {text}"


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to whatever standard error is by then: a progress line on the terminal puts itself in between."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, _value: TextIO) -> None: ...


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {key}={_word(value)}" for key, value in _fields(record).items())
        return f"{_moment(record)} {record.levelname:<7} {record.getMessage()}{fields}"


class _Sentence(logging.Formatter):
    """For a person at a terminal, between results."""

    def format(self, record: logging.LogRecord) -> str:
        fields = ", ".join(f"{key} {value}" for key, value in _fields(record).items())
        return f"dicom-etl: {record.getMessage()}" + (f" ({fields})" if fields else "")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        body = {
            "time": _moment(record),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
            **_fields(record),
        }
        return json.dumps(body, default=str)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller gave as ``extra``."""
    return {key: value for key, value in record.__dict__.items() if key not in _STANDARD}


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{record.msecs:03.0f}Z"


def _word(value: object) -> str:
    text = f"{value:.2f}" if isinstance(value, float) else str(value)
    return json.dumps(text) if " " in text else text
