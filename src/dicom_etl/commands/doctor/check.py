"""What one check of `doctor` found: fine, worth a look, or a problem with its exit code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from dicom_etl.core.errors import DicomEtlError
from dicom_etl.lake.delta.errors import storage_error

State = Literal["ok", "warning", "problem"]

# Configuration, access, unavailable, storage, data, protocol: the first must be solved before the others.
_MOST_BASIC_FIRST = (78, 77, 75, 74, 65, 70)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of `doctor`. ``text`` says what to do, unless the state is ok; only a problem has an exit code."""

    check: str
    state: State
    text: str
    exit_code: int = 0

    def as_row(self) -> dict[str, Any]:
        """By name, as a command prints it."""
        return {"check": self.check, "state": self.state, "text": self.text, "exitCode": self.exit_code}


def problem(check: str, error: DicomEtlError) -> CheckResult:
    """What an error of ours means for a check, whose name is not said twice."""
    return CheckResult(check, "problem", str(error).removeprefix(f"{check}: "), error.exit_code)


def run_check(check: str, look: Callable[[], CheckResult]) -> CheckResult:
    """What ``look`` finds; an error of ours, or of the disk, is its problem and nobody else's."""
    try:
        return look()
    except DicomEtlError as error:
        return problem(check, error)
    except OSError as error:
        return problem(check, storage_error(error, check, writing=True))


def exit_code(findings: Iterable[CheckResult]) -> int:
    """0 when there is no problem, else the code of the most basic one."""
    codes = {finding.exit_code for finding in findings if finding.state == "problem"}
    return next((code for code in _MOST_BASIC_FIRST if code in codes), 0)
