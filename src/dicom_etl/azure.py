"""Identity: the tokens for the DICOM service."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.identity import CredentialUnavailableError, DefaultAzureCredential

from dicom_etl.errors import AccessDenied, ConfigurationError, ServiceUnavailable
from dicom_etl.settings import Dicom

# The same for all instances of the service (service-protocol §1).
DICOM_SCOPE = "https://dicom.healthcareapis.azure.com/.default"

TokenSource = Callable[[bool], str]


def dicom_tokens(dicom: Dicom, environment: Mapping[str, str] | None = None) -> TokenSource | None:
    """A function that gives a bearer token (a new one when asked to renew), or None for ``auth = "none"``."""
    if dicom.auth == "none":
        return None
    if dicom.auth == "token":
        return _from_environment(dicom.token_env, os.environ if environment is None else environment)
    return _from_azure_identity()


def _from_environment(name: str, environment: Mapping[str, str]) -> TokenSource:
    token = environment.get(name, "").strip()
    if not token:
        # The name is not repeated: somebody may have put the token itself there.
        raise ConfigurationError("dicom.auth is token, but the variable that dicom.token_env names is not set")
    return lambda _renew: token


def _from_azure_identity() -> TokenSource:
    credential = DefaultAzureCredential()

    def token(_renew: bool) -> str:
        # azure-identity keeps the token and renews it before it expires.
        try:
            return credential.get_token(DICOM_SCOPE).token
        except (CredentialUnavailableError, ClientAuthenticationError) as error:
            raise AccessDenied(
                "no Azure identity gave a token for the DICOM service: sign in (az login), or give this machine "
                "a managed identity or a service principal"
            ) from error
        except AzureError as error:
            raise ServiceUnavailable("the identity's token could not be fetched; run again later") from error

    return token
