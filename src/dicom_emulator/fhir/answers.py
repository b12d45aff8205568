"""A request, alone or within a bundle, and its answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dicom_emulator.fhir.rules import Problem

Json = dict[str, Any]
FHIR_JSON = "application/fhir+json; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Ask:
    """One interaction: `path` below the base, such as `ImagingStudy/1`; `headers` in lower case."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    resource: object = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, a resource or none, and headers in lower case."""

    status: int
    resource: Json | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """An interaction that is refused: its status and the problems that are said in the OperationOutcome."""

    def __init__(self, status: int, code: str, where: str = "", value: object = None) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.problems: list[Problem] = [Problem(code, where, value)]


def outcome(problems: Iterable[Problem], quoting: str) -> Json:
    """An OperationOutcome which, as servers do, quotes what is wrong in its diagnostics and texts."""
    issues = []
    for problem in problems:
        quoted = " ".join(filter(None, [problem.where, str(problem.value or ""), quoting]))
        issues.append(
            {
                "severity": "error",
                "code": problem.code,
                "details": {"text": f"{problem.code}: {quoted}"},
                "diagnostics": quoted or problem.code,
                "expression": [problem.where or "Resource"],
            }
        )
    return {"resourceType": "OperationOutcome", "issue": issues}
