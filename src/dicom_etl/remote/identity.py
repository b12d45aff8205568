"""Identity: tokens of Azure for the DICOM service, the storage, Fabric and the FHIR service."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import urlsplit

from azure.core.credentials import AccessToken
from azure.core.exceptions import AzureError, ClientAuthenticationError, ServiceResponseError

from dicom_etl.core.errors import AccessDenied, ConfigurationError, DicomEtlError, ServiceUnavailable
from dicom_etl.core.settings.model import Dicom, Fabric, Fhir

# The same for all instances of the service (design/service-protocol.md: Tokens and roles), and for all accounts.
DICOM_SCOPE = "https://dicom.healthcareapis.azure.com/.default"
STORAGE_SCOPE = "https://storage.azure.com/.default"
FABRIC_SCOPE = "https://api.fabric.microsoft.com/.default"

TokenSource = Callable[[bool], str]

# azure-identity waits five minutes for each of four tries: a login that a firewall swallows would hold a run for 20.
_BOUNDS = {"connection_timeout": 10, "read_timeout": 20, "retry_connect": 1, "retry_read": 1}
# What urllib3 says of a login or an identity's endpoint that does not answer. DefaultAzureCredential makes of it the
# same error as of a wrong secret, and keeps its text only.
_UNREACHABLE = re.compile(r"HTTPS?Connection(Pool)?\(|[Tt]imed out|Connection (refused|reset|aborted)")
# MSAL's minute, and some seconds.
_BUSY_SECONDS = 75.0
# Every machine is asked for its identity there; where there is none, a proxy on the way answers for it.
_IMDS = "169.254.169.254"
_OF_A_PROXY = (502, 503, 504)
# Entra's number of what it refused; the rest of its text names tenants and applications.
_REFUSAL = re.compile(r"\bAADSTS\d+\b")


class Credential(Protocol):
    """What gives tokens: any credential of azure-identity. It keeps them and renews them before they expire."""

    def get_token(self, *scopes: str, **options: Any) -> AccessToken: ...


def azure_credential() -> Credential:
    """A managed identity, a workload identity, a service principal by its variables, or `az login`: what is there.

    Raises ConfigurationError for variables that cannot be an identity, such as a certificate's file that is not there.
    """
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - half a second that a local lake does not need

    try:
        return BusyAwareCredential(lambda hook: DefaultAzureCredential(**_BOUNDS, raw_response_hook=hook))
    except (ValueError, OSError) as error:
        raise ConfigurationError(
            f"the environment's AZURE_ variables cannot be an identity ({type(error).__name__}): check those that are "
            "set of AZURE_TENANT_ID, AZURE_CLIENT_CERTIFICATE_PATH, AZURE_AUTHORITY_HOST and AZURE_TOKEN_CREDENTIALS"
        ) from error


class BusyAwareCredential:
    """A credential that tells a login, or a managed identity, that is busy from one that refuses.

    The error's text does not: of 429 and 503, once the tries are over, azure-identity says the same as of a 400. A busy
    answer counts for a while, as MSAL keeps it for a minute and gives it again without asking.
    """

    def __init__(
        self, make: Callable[[Callable[[Any], None]], Credential], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._busy_until = 0.0
        self._monotonic = monotonic
        self._source = make(self._note)

    def _note(self, answer: Any) -> None:
        parts = urlsplit(answer.http_request.url)
        # After a refusal MSAL looks an authority's other names up, and that goes well.
        if "/discovery/" in parts.path or "/.well-known/" in parts.path:
            return
        status = answer.http_response.status_code
        busy = status in (408, 429) or (status >= 500 and not (status in _OF_A_PROXY and parts.hostname == _IMDS))
        self._busy_until = self._monotonic() + _BUSY_SECONDS if busy else 0.0

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        try:
            return self._source.get_token(*scopes, **options)
        except ClientAuthenticationError as error:
            if self._monotonic() < self._busy_until:
                raise ServiceResponseError("the login is busy") from error
            raise


def access_token(credential: Credential, scope: str, audience: str) -> AccessToken:
    """A token that holds for some minutes at least; ``audience`` says for whom, in words.

    Raises AccessDenied when no identity gives one, ServiceUnavailable when it cannot be fetched now,
    ConfigurationError when the login's certificate is not trusted.
    """
    try:
        return credential.get_token(scope)
    except (AzureError, OSError, ValueError) as error:  # also a token file that is gone, an answer that is no JSON
        raise _to_domain_error(error, audience) from error


def _to_domain_error(error: Exception, audience: str) -> DicomEtlError:
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return ConfigurationError(
            "this machine does not trust the certificate of the login that gives its tokens: put the certificates that "
            "it, or a proxy on the way, is signed with into a file and name that in REQUESTS_CA_BUNDLE"
        )
    if not isinstance(error, ClientAuthenticationError) or _was_valid_before(error) or _UNREACHABLE.search(text):
        return ServiceUnavailable("the identity's token could not be fetched; run again later")
    refusal = _REFUSAL.search(text)
    return AccessDenied(
        f"no Azure identity gave a token for {audience}{f' ({refusal.group()})' if refusal else ''}: sign in "
        "(az login), or give this machine a managed identity or a service principal"
    )


def _was_valid_before(error: ClientAuthenticationError) -> bool:
    """DefaultAzureCredential lets this error through only from the identity that gave it a token before."""
    from azure.identity import CredentialUnavailableError  # noqa: PLC0415 - as above

    return isinstance(error, CredentialUnavailableError)


@dataclass(frozen=True, slots=True)
class AsyncCredential:
    """The same credential for libraries that await it, such as adlfs."""

    source: Credential

    async def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        return await asyncio.to_thread(self.source.get_token, *scopes, **options)

    async def close(self) -> None:
        """Nothing: the source lives longer than one filesystem."""

    async def __aenter__(self) -> AsyncCredential:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing, as ``close``."""


def dicom_tokens(dicom: Dicom, environment: Mapping[str, str] | None = None) -> TokenSource | None:
    """A function that gives a bearer token (a new one when asked to renew), or None for ``auth = "none"``."""
    if dicom.auth == "none":
        return None
    if dicom.auth == "token":
        return _from_environment("dicom", dicom.token_env, environment)
    return azure_tokens(DICOM_SCOPE, "the DICOM service")


def fabric_tokens(fabric: Fabric, environment: Mapping[str, str] | None = None) -> TokenSource:
    """The same for Fabric, which is never asked without a token."""
    if fabric.auth == "token":
        return _from_environment("fabric", fabric.token_env, environment)
    return azure_tokens(FABRIC_SCOPE, "Microsoft Fabric")


def fhir_tokens(fhir: Fhir, environment: Mapping[str, str] | None = None) -> TokenSource | None:
    """The same for the FHIR server. Each of Azure's FHIR services is an audience of its own, named by its address."""
    if fhir.auth == "none":
        return None
    if fhir.auth == "token":
        return _from_environment("fhir", fhir.token_env, environment)
    return azure_tokens(f"{_origin(fhir.base_url)}/.default", "the FHIR service")


def _origin(address: str) -> str:
    """Scheme and host as Entra knows them: in lower case, and without the port that https has anyhow."""
    parts = urlsplit(address)
    port = f":{parts.port}" if parts.port not in (None, 443) else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}"


def _from_environment(section: str, name: str, environment: Mapping[str, str] | None) -> TokenSource:
    token = (os.environ if environment is None else environment).get(name, "").strip()
    if not token:
        # The name is not repeated: somebody may have put the token itself there.
        raise ConfigurationError(f"{section}.auth is token, but the variable that {section}.token_env names is not set")
    return lambda _renew: token


def azure_tokens(scope: str, audience: str) -> TokenSource:
    """A function that gives a bearer token of the Azure identity that is there."""
    credential = azure_credential()

    def token(renew: bool) -> str:
        nonlocal credential
        if renew:
            # A credential gives the token it keeps until shortly before its end, refused or not; a new one has none.
            credential = azure_credential()
        return access_token(credential, scope, audience).token

    return token
