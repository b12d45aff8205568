"""The exit code of a command goes into the metrics file, also where no settings and no lake could be read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from dicom_etl.commands.exit_metrics import VERBS, record_exit
from dicom_etl.core.clock import utc_now
from dicom_etl.core.settings.load import readable_setting

log = logging.getLogger(__name__)

_NO_END = {"--dry-run", "--help", "-h"}


def note_exit(verb: str, code: int, words: Sequence[str], clock: Callable[[], datetime] = utc_now) -> None:
    """Record how ``verb`` ended in the file of `metrics.prometheus_file`, if one is named; only of scheduled verbs.

    ``words`` are the command line. The file's name is looked for in it, in the environment and in the settings file,
    each as far as it can be read. Where only a settings file names it that cannot be read, nothing can be recorded.
    A failure is a line in the log.
    """
    if verb not in VERBS or _NO_END & set(words):
        return
    config = [Path(word) for word in _given("--config", words)]
    file = readable_setting("metrics.prometheus_file", config[-1] if config else None, _given("--set", words))
    if not file or not isinstance(file, str):
        return
    try:
        record_exit(Path(file).expanduser(), verb, code, clock())
    except (OSError, ValueError, RuntimeError) as error:
        log.warning(
            "exit code not recorded", extra={"error": type(error).__name__, "setting": "metrics.prometheus_file"}
        )


def _given(option: str, words: Sequence[str]) -> list[str]:
    """The values of an option, whatever else is wrong with the command line."""
    values: list[str] = []
    for word, following in pairwise((*words, "")):
        name, equals, value = word.partition("=")
        if name == option and (equals or following):
            values.append(value if equals else following)
    return values
