"""The client of the DICOM service that the settings name, and what the service's statuses mean.

design/service-protocol.md: Addresses and errors.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import NoReturn

import httpx
import msgspec

from dicom_etl.core.clock import utc_now
from dicom_etl.core.errors import (
    AccessDenied,
    ConfigurationError,
    ProtocolError,
    RequestRefused,
    ServiceUnavailable,
)
from dicom_etl.core.settings.model import Dicom
from dicom_etl.remote.http.client import HttpClient
from dicom_etl.remote.http.endpoint import Endpoint
from dicom_etl.remote.http.request import HttpRequest
from dicom_etl.remote.http.response import HttpResponse, raise_if_retryable
from dicom_etl.remote.identity import TokenSource


def connect(
    settings: Dicom,
    token: TokenSource | None = None,
    *,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], datetime] = utc_now,
    transport: httpx.BaseTransport | None = None,
) -> HttpClient:
    """A client of the service that ``settings`` names; nothing is sent yet.

    ``token`` is None where the service wants none. Raises ConfigurationError when no address is set.
    """
    if not settings.base_url:
        raise ConfigurationError("dicom.base_url: is not set; give the address of the DICOM service")
    endpoint = Endpoint(
        "the DICOM service",
        settings.base_url,
        "dicom.base_url",
        raise_for_status,
        token,
        connections=settings.connections,
        timeout_seconds=settings.timeout_seconds,
        retry_seconds=settings.retry_seconds,
        retry_key="dicom.retry_seconds",
    )
    return HttpClient(endpoint, sleep=sleep, monotonic=monotonic, wall_clock=wall_clock, transport=transport)


def raise_for_status(request: HttpRequest, response: HttpResponse, host: str) -> NoReturn:
    """Raises the error that a status means which the request does not expect.

    RetryableError for what another attempt may solve, AccessDenied (401, 403), ConfigurationError (a redirect, 404, an
    unknown version), ServiceUnavailable (424), RequestRefused (400) and ProtocolError for the rest.
    """
    status = response.status
    raise_if_retryable(response, str(status))
    if status in (401, 403):
        raise AccessDenied(_denied(status, request.method, host))
    if 300 <= status < 400:
        raise ConfigurationError(
            f"dicom.base_url: {host} redirects ({status}) and redirects are not followed; "
            "set the address of the DICOM service itself"
        )
    if status == 404:
        raise ConfigurationError(f"dicom.base_url: there is no DICOM service at this address of {host} (404)")
    if status == 400 and _is_version_error(response):
        raise ConfigurationError(f"dicom.api_version: {host} does not know this version of the API (400)")
    if status == 424:
        raise ServiceUnavailable(
            f"the DICOM service at {host} cannot reach its own storage or key (424); check its access to the data lake"
        )
    error = RequestRefused if status == 400 else ProtocolError
    raise error(f"the DICOM service at {host} answered status {status} to a {request.method} request")


def _denied(status: int, method: str, host: str) -> str:
    if status == 401:
        return (
            f"{host} does not accept the token (401); check dicom.auth and the identity's sign-in, or renew the token "
            "in the variable of dicom.token_env"
        )
    role = "DICOM Data Reader (or DICOM Data Owner)" if method == "GET" else "DICOM Data Owner"
    return f"{host} denies access (403); assign the role {role} to this identity"


def _is_version_error(response: HttpResponse) -> bool:
    """The versioning library answers with a JSON object that has ``error``; the service itself with text."""
    try:
        return "error" in msgspec.json.decode(response.body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
