"""Identity: tokens of Azure for the DICOM service, the storage and Fabric."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from azure.core.credentials import AccessToken
from azure.core.exceptions import AzureError, ClientAuthenticationError

from dicom_etl.errors import AccessDenied, ConfigurationError, ServiceUnavailable
from dicom_etl.settings import Dicom, Fabric

# The same for all instances of the service (service-protocol §1), and for all accounts.
DICOM_SCOPE = "https://dicom.healthcareapis.azure.com/.default"
STORAGE_SCOPE = "https://storage.azure.com/.default"
FABRIC_SCOPE = "https://api.fabric.microsoft.com/.default"

TokenSource = Callable[[bool], str]


class Credential(Protocol):
    """What gives tokens: any credential of azure-identity. It keeps them and renews them before they expire."""

    def get_token(self, *scopes: str, **options: Any) -> AccessToken: ...


def azure_credential() -> Credential:
    """A managed identity, a workload identity, a service principal by its variables, or `az login`: what is there."""
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - half a second that a local lake does not need

    return DefaultAzureCredential()


def access_token(credential: Credential, scope: str, audience: str) -> AccessToken:
    """A token that holds for some minutes at least; ``audience`` says for whom, in words.

    Raises AccessDenied when no identity gives one, ServiceUnavailable when it cannot be fetched now.
    """
    try:
        return credential.get_token(scope)
    except ClientAuthenticationError as error:  # CredentialUnavailableError is one
        raise AccessDenied(
            f"no Azure identity gave a token for {audience}: sign in (az login), or give this machine "
            "a managed identity or a service principal"
        ) from error
    except AzureError as error:
        raise ServiceUnavailable("the identity's token could not be fetched; run again later") from error


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


def _from_environment(section: str, name: str, environment: Mapping[str, str] | None) -> TokenSource:
    token = (os.environ if environment is None else environment).get(name, "").strip()
    if not token:
        # The name is not repeated: somebody may have put the token itself there.
        raise ConfigurationError(f"{section}.auth is token, but the variable that {section}.token_env names is not set")
    return lambda _renew: token


def azure_tokens(scope: str, audience: str) -> TokenSource:
    """A function that gives a bearer token of the Azure identity that is there."""
    credential = azure_credential()
    return lambda _renew: access_token(credential, scope, audience).token
