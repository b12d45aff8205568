"""docs/exit-codes.md, from the classes of errors."""

from __future__ import annotations

import re
from collections.abc import Iterator

from dicom_etl.core.errors import DicomEtlError

_HEAD = """# Exit codes

For people who run `dicom-etl` by a scheduler. `make docs` generates this page from the classes of errors; do not edit
it.

A command prints its result on standard output and one line about an error on standard error. A scheduler may run a
command again after 74 and 75. After 64, 65, 70, 77 and 78 a person must act first: [how
urgent each is](be-woken.md#how-urgent-is-it). The [runbook](runbook.md) has what to look at for each class. With
`--log-format json` the line has `exit_code`, `error_class` and `run_id`, null where no run was claimed.

| code | meaning | what to do |
|---|---|---|
"""

_CLASSES = """
## Classes of errors

The column `errorClass` of the table [`run`](tables.md#run), and `lastError` of `dicom-etl status`, name the class.
`Killed` and `Unrecorded` are no classes: the [next run](runbook.md#killed-or-out-of-memory) writes them for one that
ended without its row.

| class | kind of | code | meaning |
|---|---|---|---|
"""

# Codes without an error of ours.
_OTHERS = {
    0: ("done; nothing was due, or all that was due is done", "nothing"),
    1: ("`status --max-lag`: the tables are further behind than that", "look at `lastError` of `dicom-etl status`"),
    130: ("interrupted (SIGINT); the claim is released", "nothing: the next run goes on"),
    143: ("terminated (SIGTERM); the claim is released", "nothing: the next run goes on"),
}
# What the codes of errors.py mean to the one who runs a command.
_ERRORS = {
    64: ("the command line is wrong", "correct it; nothing was read or written"),
    65: (
        "data: a table is damaged or not ours, `verify` found differences, `sync --strict` rejected an entry, the "
        "service refused uploads, `retrieve` did not get a file",
        "read the line",
    ),
    70: ("a bug, or a service that breaks its protocol", "report it"),
    74: ("the storage is full, read-only or cannot be written", "free or repair it"),
    75: ("throttled, unavailable, or another writer is at work", "nothing: the next run goes on"),
    77: ("the service or the storage refused our identity", "assign the role that `dicom-etl doctor` names"),
    78: ("configuration: file, key, value, address, no lake there, another service's lake", "read the line"),
}

_CODE_IN_TEXT = re.compile(r" \(\d+\)")


def exit_codes_document() -> str:
    """The whole of docs/exit-codes.md. Raises KeyError for a code that is not described."""
    codes = {error.exit_code: _ERRORS[error.exit_code] for error in _errors(DicomEtlError)}
    rows = [f"| {code} | {meaning} | {action} |" for code, (meaning, action) in sorted((codes | _OTHERS).items())]
    return _HEAD + "\n".join(rows) + "\n" + _CLASSES + "\n".join(map(_row, _errors(DicomEtlError))) + "\n"


def _errors(base: type[DicomEtlError]) -> Iterator[type[DicomEtlError]]:
    """The class and all below it that errors.py defines, each parent before its children."""
    yield base
    for error in base.__subclasses__():
        if error.__module__ == DicomEtlError.__module__:
            yield from _errors(error)


def _row(error: type[DicomEtlError]) -> str:
    kind = error.__base__ if error is not DicomEtlError else None
    summary = _CODE_IN_TEXT.sub("", (error.__doc__ or "").splitlines()[0])
    return f"| `{error.__name__}` | {f'`{kind.__name__}`' if kind else ''} | {error.exit_code} | {summary} |"
