"""The end of a command: errors as one line on standard error, and as an exit code.

design/architecture.md: Command line and errors.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

import dicom_etl
from dicom_etl.cli.exit_trace import note_exit
from dicom_etl.core.errors import DicomEtlError, run_of
from dicom_etl.core.logs import format_stderr

_STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}


class Terminated(BaseException):
    """SIGTERM came; like KeyboardInterrupt it passes every handler of errors, and contexts close."""


def run_command(command: Callable[[], int], verb: str | None = None) -> int:
    """The exit code of ``command``, whatever happens in it; of a scheduled verb the metrics keep it.

    ``verb`` is what the process does where its first argument does not name it, as in a job.
    """
    end = _ended(command)
    words = sys.argv[1:]
    # A failure that a person has typed is known to that person. Whatever comes, also a second signal: the exit code is
    # the more important.
    with suppress(BaseException):
        if end.code == 0 or not sys.stderr.isatty():
            note_exit(verb or (words[0] if words else ""), end.code, words)
    # Last of all, behind what recording the exit may have logged: who is sent the end of a log finds the reason there.
    for line in end.lines:
        print(line, file=sys.stderr)  # noqa: T201
    return end.code


@dataclass(frozen=True, slots=True)
class _End:
    """The exit code, and what is to be said on standard error."""

    code: int
    lines: tuple[str, ...] = ()


def _ended(command: Callable[[], int]) -> _End:
    signal.signal(signal.SIGTERM, _terminate)
    # pyspark hands out timestamps in the process's zone, without saying which.
    os.environ["TZ"] = "UTC"
    time.tzset()
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        # A name that the output's encoding lacks is shown by its number: it must not end a command.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = command()
        sys.stdout.flush()
    except DicomEtlError as error:
        return _say(str(error), error.exit_code, error)
    except KeyboardInterrupt as error:
        return _say("interrupted; the next run goes on where this one stopped", 130, error)
    except Terminated as error:
        return _say("terminated; the next run goes on where this one stopped", 143, error)
    except BrokenPipeError:
        # The reader of our output went away (| head). Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _End(0)
    except OSError as error:
        return _storage_or_bug(error)
    except ModuleNotFoundError as error:
        wheel = f"./dicom_etl-{dicom_etl.__version__}-py3-none-any.whl"
        text = f"the package {error.name} is not installed: install the wheel's file with its extras, {wheel}[all]"
        return _say(text, 78, error)
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001  the one place: a bug, or a panic of delta-rs's, ends as one line
        return _bug(error)
    return _End(code)


def exit_process(code: int) -> NoReturn:
    """End this process with ``code``, without Python's own end.

    Threads of delta-rs may still be on their way out of a filesystem that is written in Python, as the one for Azure
    is: at Python's end they then abort the process, with 134 and its work done (ADR 11). In Databricks the process is
    the notebook's, and goes on.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    if "DATABRICKS_RUNTIME_VERSION" in os.environ:
        raise SystemExit(code)
    os._exit(code)


@contextmanager
def stop_when_asked() -> Iterator[threading.Event]:
    """An event that SIGTERM or SIGINT sets, for work that ends between two steps; a second signal ends it at once.

    Raises Terminated or KeyboardInterrupt at the end of the block when one came.
    """
    asked = threading.Event()
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def ask(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        asked.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt if came[0] == signal.SIGINT else Terminated


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated


def _storage_or_bug(error: OSError) -> _End:
    if error.errno not in _STORAGE:
        return _bug(error)
    code = errno.errorcode[error.errno or 0]
    return _say(f"the storage cannot be written ({code}): free space or repair it, and run again", 74, error)


def _bug(error: BaseException) -> _End:
    """One line with the class and the place; the message of a foreign exception may quote a patient."""
    ours = Path(dicom_etl.__file__).parent
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(ours)]
    place = f"{Path(frames[-1].filename).relative_to(ours)}:{frames[-1].lineno}" if frames else "?"
    what = f"internal error ({type(error).__name__} at {place})"
    return _say(f"{what}; please report it; the next run completes what this one left", 70, error)


def _say(text: str, code: int, error: BaseException) -> _End:
    """The exit code with the lines of the error; in JSON each line names the code, the class and the run."""
    named = {"exit_code": code, "error_class": type(error).__name__, "run_id": run_of(error)}
    return _End(code, tuple(_wrapped(format_stderr(line, **named)) for line in text.splitlines() or [""]))


def _wrapped(line: str) -> str:
    """On a terminal wrapped at words; a path or an address stays whole, to be copied."""
    if not sys.stderr.isatty():
        return line
    width = shutil.get_terminal_size().columns
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False) or line
