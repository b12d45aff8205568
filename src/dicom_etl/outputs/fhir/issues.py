"""The codes of an OperationOutcome (FHIR R4 IssueType): the one thing of it that quotes nobody's data."""

from __future__ import annotations

import msgspec

ISSUE_TYPES = frozenset(
    {
        "invalid",
        "structure",
        "required",
        "value",
        "invariant",
        "security",
        "login",
        "unknown",
        "expired",
        "forbidden",
        "suppressed",
        "processing",
        "not-supported",
        "duplicate",
        "multiple-matches",
        "not-found",
        "deleted",
        "too-long",
        "code-invalid",
        "extension",
        "too-costly",
        "business-rule",
        "conflict",
        "transient",
        "lock-error",
        "no-store",
        "exception",
        "timeout",
        "incomplete",
        "throttled",
        "informational",
    }
)


class _Issue(msgspec.Struct):
    code: str = ""


class _OperationOutcome(msgspec.Struct):
    issue: list[_Issue] = []


_DECODER = msgspec.json.Decoder(_OperationOutcome)


def issue_code(body: bytes | msgspec.Raw) -> str | None:
    """The code of the first issue; None when the body is no OperationOutcome, or its code is none of FHIR's."""
    try:
        issues = _DECODER.decode(body).issue
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return issues[0].code if issues and issues[0].code in ISSUE_TYPES else None
