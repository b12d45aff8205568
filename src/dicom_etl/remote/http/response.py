"""What an answer's status means: the one place where statuses become errors.

design/service-protocol.md: Addresses and errors.
"""

from __future__ import annotations

from dataclasses import dataclass

import httpx
import msgspec

from dicom_etl.core.errors import AccessDenied, ConfigurationError, ProtocolError, ServiceUnavailable
from dicom_etl.remote.http.retry import RETRYABLE_STATUSES, Failure, Kind

NOT_JSON = "an answer that is not JSON"
_JSON_TYPES = ("application/json", "application/dicom+json")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer with its whole body; ``retry_after`` in seconds."""

    status: int
    headers: httpx.Headers
    body: bytes
    retry_after: float | None = None


def judge(answer: Answer, method: str, expected: frozenset[int], json: bool, host: str) -> None:
    """Returns for a status the caller expects, and raises the error that any other one means.

    Raises Failure for what another attempt may solve, AccessDenied (401, 403), ConfigurationError (a
    redirect, 404, an unknown version), ServiceUnavailable (424) and ProtocolError for the rest.
    """
    status = answer.status
    if status in expected:
        if json and status == 200 and _media_type(answer) not in _JSON_TYPES:
            raise Failure(NOT_JSON, Kind.FAILING, answer.retry_after)
        return
    if status in RETRYABLE_STATUSES:
        # A 5xx may lie in what was asked for even when it says when to come back: its wait is honoured, and it counts
        # as failing (design/service-protocol.md: Pages that fail).
        kind = Kind.THROTTLED if status == 429 else Kind.FAILING
        raise Failure(f"status {status}", kind, answer.retry_after)
    if status in (401, 403):
        raise AccessDenied(_denied(status, method, host))
    if 300 <= status < 400:
        raise ConfigurationError(
            f"dicom.base_url: {host} redirects ({status}) and redirects are not followed; "
            "set the address of the DICOM service itself"
        )
    if status == 404:
        raise ConfigurationError(f"dicom.base_url: there is no DICOM service at this address of {host} (404)")
    if status == 400 and _is_version_error(answer):
        raise ConfigurationError(f"dicom.api_version: {host} does not know this version of the API (400)")
    if status == 424:
        raise ServiceUnavailable(
            f"the DICOM service at {host} cannot reach its own storage or key (424); check its access to the data lake"
        )
    raise ProtocolError(f"the DICOM service at {host} answered status {status} to a {method} request")


def _denied(status: int, method: str, host: str) -> str:
    if status == 401:
        return (
            f"{host} does not accept the token (401); check dicom.auth and the identity's sign-in, or renew the token "
            "in the variable of dicom.token_env"
        )
    role = "DICOM Data Reader (or DICOM Data Owner)" if method == "GET" else "DICOM Data Owner"
    return f"{host} denies access (403); assign the role {role} to this identity"


def _media_type(answer: Answer) -> str:
    content_type: str = answer.headers.get("content-type", "")
    return content_type.partition(";")[0].strip().lower()


def _is_version_error(answer: Answer) -> bool:
    """The versioning library answers with a JSON object that has ``error``; the service itself with text."""
    try:
        return "error" in msgspec.json.decode(answer.body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
