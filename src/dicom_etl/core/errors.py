"""The errors that end a command, each with its exit code (design/architecture.md: Command line and errors).

    DicomEtlError                 70  a bug
    ├── UsageError                64  the command line is wrong
    ├── DataError                 65  the tables or the data are not what they must be
    ├── ProtocolError             70  the service breaks its protocol
    │   └── RequestRefused            it does not take a request of this form
    ├── StorageError              74  storage is full, read-only, cannot be written
    ├── TemporaryError            75  try again later
    │   ├── ServiceUnavailable        throttled, refused, or failing to the end of the retries
    │   ├── AnotherWriter             somebody else holds the lake
    │   └── Superseded                a newer run has taken over
    ├── AccessDenied              77  401/403: a role assignment is missing
    └── ConfigurationError        78  settings, address, lake

Messages hold no value of a patient: no UIDs, no paths of files, no text of a foreign exception
(design/architecture.md: Patient data).
"""

from __future__ import annotations

from typing import ClassVar


class DicomEtlError(Exception):
    """Base of every error that is reported as one line; by itself it means a bug (70)."""

    exit_code: ClassVar[int] = 70


class UsageError(DicomEtlError):
    """The command line does not make sense (64)."""

    exit_code = 64


class DataError(DicomEtlError):
    """The tables are not what we write, or the data is refused (65)."""

    exit_code = 65


class ProtocolError(DicomEtlError):
    """The service answered something its protocol does not allow (70)."""

    exit_code = 70


class RequestRefused(ProtocolError):
    """The service does not take a request of this form: it answered 400 (70)."""


class StorageError(DicomEtlError):
    """The lake's storage is full, read-only or cannot be written (74)."""

    exit_code = 74


class TemporaryError(DicomEtlError):
    """A failure that passes; the same command may succeed later (75)."""

    exit_code = 75


class ServiceUnavailable(TemporaryError):
    """The service was throttled, unreachable or failing until the retries ended (75)."""


class AnotherWriter(TemporaryError):
    """Another run holds the claim of this lake (75)."""


class Superseded(TemporaryError):
    """A run with a higher id has written; this one changes nothing any more (75).

    ``committed``: its last commit is in the log all the same, so nobody may remove the files of it.
    """

    def __init__(self, text: str, *, committed: bool = False) -> None:
        super().__init__(text)
        self.committed = committed


class AccessDenied(DicomEtlError):
    """The service or the storage refused our identity (77)."""

    exit_code = 77


class UnknownIdentity(AccessDenied):
    """The storage does not know our key or token (77); no role assignment helps."""


class ConfigurationError(DicomEtlError):
    """A setting, an address or the lake itself is wrong (78)."""

    exit_code = 78


class OutputClosed(BrokenPipeError):
    """The reader of standard output has stopped (``| head``): the end of the command, and no failure of it (0).

    Not a plain BrokenPipeError, as which the end of Spark's JVM may come too.
    """


def name_run(error: BaseException, run_id: int) -> None:
    """Let the error, of whatever class, know the run that it ended; the first one named stays."""
    getattr(error, "__dict__", {}).setdefault("run_id", run_id)


def run_of(error: BaseException | None) -> int | None:
    """The run that the error ended, or that which lies behind it; None where no run was claimed."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(run_id := getattr(error, "run_id", None), int):
            return run_id
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None
