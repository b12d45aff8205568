"""What the statuses of a FHIR server mean for a whole request."""

from __future__ import annotations

from typing import NoReturn

from dicom_etl.core.errors import AccessDenied, ConfigurationError, ProtocolError
from dicom_etl.outputs.fhir.issues import issue_code
from dicom_etl.remote.http.request import HttpRequest
from dicom_etl.remote.http.response import HttpResponse, raise_if_retryable

# Statuses of a whole bundle that lie in what stands in it, so that its halves may pass.
_OF_THE_CONTENT = frozenset({400, 409, 412, 413, 422})
_ROLES = {"$import": "FHIR Data Importer", "$export": "FHIR Data Exporter"}
WRITER_ROLE = "FHIR Data Contributor"


class BundleRefused(ProtocolError):
    """The server refuses a bundle as a whole: it is too large, or one entry is refused and the server says so of all.

    ``issue`` is a code of FHIR's IssueType.
    """

    def __init__(self, status: int, issue: str | None) -> None:
        super().__init__(f"the FHIR server refuses a whole batch (status {_text(status, issue)})")
        self.status = status
        self.issue = issue


def raise_for_status(request: HttpRequest, response: HttpResponse, host: str) -> NoReturn:
    """Raises the error that an unexpected status means: RetryableError where another attempt may help.

    AccessDenied (401, 403), ConfigurationError (a redirect, 404), BundleRefused, ProtocolError for the rest.
    """
    status = response.status
    issue = issue_code(response.body)
    text = _text(status, issue)
    raise_if_retryable(response, text)
    if status in (401, 403):
        raise denied(text, request, host)
    if 300 <= status < 400:
        raise ConfigurationError(
            f"fhir.base_url: {host} redirects ({text}) and redirects are not followed; set the address of the FHIR "
            "server itself"
        )
    if status in (404, 410):
        raise ConfigurationError(f"fhir.base_url: there is no FHIR server at this address of {host} ({text})")
    is_bundle = request.method == "POST" and not request.path
    if is_bundle and status in _OF_THE_CONTENT:
        raise BundleRefused(status, issue)
    if is_bundle and status in (405, 501):
        raise ConfigurationError(
            f"fhir.base_url: the FHIR server at {host} takes no batch bundles at this address ({text}); set the "
            "address that its capability statement (/metadata) lies under"
        )
    raise ProtocolError(f"the FHIR server at {host} answered status {text} to a {request.method} request")


def denied(text: str, request: HttpRequest, host: str) -> AccessDenied:
    """The error for a token that the server does not accept, or that does not cover the request."""
    role = next((role for name, role in _ROLES.items() if name in request.path), WRITER_ROLE)
    assign = f"assign the role {role} on the FHIR service to this identity"
    if text.startswith("401"):
        return AccessDenied(
            f"{host} does not accept the token ({text}); check fhir.auth and the identity's sign-in, or renew the "
            f"token in the variable of fhir.token_env, and {assign}"
        )
    return AccessDenied(f"{host} denies access ({text}); {assign}")


def _text(status: int, issue: str | None) -> str:
    return f"{status}, {issue}" if issue else str(status)
