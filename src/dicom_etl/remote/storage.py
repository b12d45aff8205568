"""How the lake's storage is spoken to: by fsspec, by delta-rs, and by Hadoop under Spark.

design/spark.md: Azure storage.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from dicom_etl.core.errors import ConfigurationError
from dicom_etl.core.settings.model import Settings
from dicom_etl.remote.identity import STORAGE_SCOPE, AsyncCredential, Credential, access_token, azure_credential
from dicom_etl.remote.uri import AbfsUri, is_remote, parse_abfs_uri

FilesystemOf = Callable[[str], tuple[AbstractFileSystem, str]]
"""The filesystem that holds ``uri``, and its path there."""

# Without bounds Hadoop tries for half an hour, and delta-rs for three minutes a request
# (design/spark.md: Azure storage).
_BOUNDED = {
    "fs.azure.io.retry.max.retries": "5",
    "fs.azure.io.retry.backoff.interval": "500",
    "fs.azure.io.retry.min.backoff.interval": "500",
    "fs.azure.io.retry.max.backoff.interval": "4000",
    "fs.azure.static.retry.for.connection.timeout.enabled": "false",
    "fs.azure.http.connection.timeout": "5000",
    "fs.azure.http.read.timeout": "30000",
    "fs.azure.oauth.token.fetch.retry.max.retries": "3",
    # Its hook goes on trying when the storage is gone, and keeps the JVM alive.
    "fs.azure.metrics.collection.enabled": "false",
    "fs.azure.networking.library": "JDK_HTTP_URL_CONNECTION",
}
_DELTA_BOUNDED = {"max_retries": "5", "retry_timeout": "30s", "timeout": "60s", "connect_timeout": "10s"}
_EMULATOR_ADDRESS = "AZURITE_BLOB_STORAGE_URL"
_READ_TIMEOUT_SECONDS = 60
_CONNECTION_TIMEOUT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Storage:
    """The identity for all accounts that a lake uses; local folders need none.

    ``key`` is an account's key, ``credential`` one of azure-identity: one of the two where an address is used.
    ``endpoint`` stands in for the accounts' own hosts (Azurite).
    """

    key: str | None = field(default=None, repr=False)
    credential: Credential | None = None
    endpoint: str = ""

    def __post_init__(self) -> None:
        # delta-rs takes the emulator's address from this variable only. Set here and not for each table: a command
        # makes its storage before any of its threads, and others must not read the environment meanwhile.
        if self.endpoint and os.environ.get(_EMULATOR_ADDRESS) != self.endpoint:
            os.environ[_EMULATOR_ADDRESS] = self.endpoint

    def filesystem(self, uri: str) -> tuple[AbstractFileSystem, str]:
        """The filesystem that holds ``uri``, and its path there."""
        if not is_remote(uri):
            return LocalFileSystem(), str(LocalFileSystem._strip_protocol(uri))
        azure = parse_abfs_uri(uri)
        return self._azure_filesystem(azure), azure.key

    def delta(self, uri: str) -> dict[str, str] | None:
        """What delta-rs needs to open a table there; None for a local one. A token in it is new enough for one use."""
        if not is_remote(uri):
            return None
        azure = parse_abfs_uri(uri)
        options = {
            **_DELTA_BOUNDED,
            "account_name": azure.account,
            # Said, or else AZURE_STORAGE_ENDPOINT, AZURE_STORAGE_USE_EMULATOR and AZURE_SKIP_SIGNATURE would decide
            # where the token goes, or whether one is sent.
            "azure_storage_endpoint": f"https://{azure.blob_host}",
            "azure_storage_use_emulator": "false",
            "azure_skip_signature": "false",
        }
        if self.endpoint:
            # As the emulator: else object_store lists by a parameter (startFrom) that Azurite does not know, and every
            # second commit fails.
            options |= {"azure_storage_use_emulator": "true", "allow_http": "true"}
        if self.credential is not None:
            return {**options, "bearer_token": access_token(self.credential, STORAGE_SCOPE, "the storage").token}
        return {**options, "account_key": self.key or ""}

    def hadoop(self, uris: tuple[str, ...], token_address: str = "") -> dict[str, str]:
        """Hadoop's settings for these URIs; ``token_address`` is where the JVM gets its tokens."""
        accounts = {parse_abfs_uri(uri).dfs_host for uri in uris if is_remote(uri)}
        options = dict(_BOUNDED) if accounts else {}
        if accounts and self.endpoint:
            options |= _like_azurite(self.endpoint)
        for host in sorted(accounts):
            options |= self._hadoop_identity(host, token_address)
        return options

    def _hadoop_identity(self, host: str, token_address: str) -> dict[str, str]:
        if self.credential is None:
            return {f"fs.azure.account.auth.type.{host}": "SharedKey", f"fs.azure.account.key.{host}": self.key or ""}
        return {
            f"fs.azure.account.auth.type.{host}": "OAuth",
            f"fs.azure.account.oauth.provider.type.{host}": "org.apache.hadoop.fs.azurebfs.oauth2.MsiTokenProvider",
            f"fs.azure.account.oauth2.msi.endpoint.{host}": token_address,
            f"fs.azure.account.oauth2.msi.tenant.{host}": "any",
            f"fs.azure.account.oauth2.client.id.{host}": "",
        }

    def _azure_filesystem(self, uri: AbfsUri) -> AbstractFileSystem:
        return _own_identity()(
            **self._adlfs_identity(uri),
            # A listing that is remembered would hide a claim made elsewhere meanwhile.
            use_listings_cache=False,
            connection_timeout=_CONNECTION_TIMEOUT_SECONDS,
            read_timeout=_READ_TIMEOUT_SECONDS,
        )

    def _adlfs_identity(self, uri: AbfsUri) -> dict[str, Any]:
        if self.credential is not None:
            host = self.endpoint.partition("://")[2]
            account_host = f"{host}/{uri.account}" if host else uri.blob_host
            asynchronous = AsyncCredential(self.credential)
            return {"account_name": uri.account, "account_host": account_host, "credential": asynchronous}
        if self.endpoint:
            parts = {
                "DefaultEndpointsProtocol": self.endpoint.partition("://")[0],
                "AccountName": uri.account,
                "AccountKey": self.key or "",
                "BlobEndpoint": f"{self.endpoint}/{uri.account}",
            }
            return {"connection_string": ";".join(f"{name}={value}" for name, value in parts.items())}
        return {"account_name": uri.account, "account_host": uri.blob_host, "account_key": self.key}


# What adlfs takes from variables of its own when it is not given: with AZURE_STORAGE_CONNECTION_STRING set, as many
# apps have it, the claims would lie in that string's account, and its tables in ours.
_NOT_FROM_VARIABLES = (
    "connection_string",
    "account_key",
    "sas_token",
    "client_id",
    "client_secret",
    "tenant_id",
)


@cache
def _own_identity() -> type[AbstractFileSystem]:
    """adlfs's filesystem with the identity that it is given, and no other."""
    from adlfs import AzureBlobFileSystem  # noqa: PLC0415 - half a second that a local lake does not need

    class OwnIdentity(AzureBlobFileSystem):  # type: ignore[misc]
        def __init__(self, **given: Any) -> None:
            self._given = given
            super().__init__(**given)

        def do_connect(self) -> None:
            for name in _NOT_FROM_VARIABLES:
                setattr(self, name, self._given.get(name))
            super().do_connect()
            _retry_soon(self.service_client)

    return OwnIdentity


def _retry_soon(client: Any) -> None:
    """Four tries more within 20 s, where the client's own three take a minute and a half; adlfs takes no other policy.

    A run that fails touches the storage some times more: its file is removed, its row recorded, its claim released.
    """
    with suppress(AttributeError):  # another version keeps it elsewhere: then it is slow, and nothing worse
        policy = client._config.retry_policy
        policy.total_retries, policy.initial_backoff, policy.increment_base = 4, 1, 2


def _like_azurite(endpoint: str) -> dict[str, str]:
    """A flat namespace behind one address, told by its path and not by its host (design/spark.md: Azurite)."""
    scheme, _, host = endpoint.partition("://")
    return {
        "fs.azure.abfs.endpoint": host,
        "fs.azure.always.use.https": "true" if scheme == "https" else "false",
        "fs.azure.account.hns.enabled": "false",
        "fs.azure.fns.account.service.type": "BLOB",
    }


def storage_of(
    settings: Settings,
    environment: Mapping[str, str] | None = None,
    credential: Callable[[], Credential] = azure_credential,
) -> Storage:
    """The storage that the settings name; nothing is asked for a token yet.

    Raises ConfigurationError when an account's key is wanted and its variable is not set, and for addresses that one
    of the three libraries would take for another.
    """
    wanted = settings.storage
    outputs = (settings.columns.root, settings.fhir.root)
    roots = (settings.lake.root, settings.lake.private_root, settings.files.root, *outputs)
    if not any(is_remote(root) for root in roots):
        return Storage()
    problems = _problems(settings)
    if problems:
        raise ConfigurationError("\n".join(problems))
    endpoint = wanted.endpoint.rstrip("/")
    if wanted.auth == "azure":
        return Storage(credential=credential(), endpoint=endpoint)
    key = (os.environ if environment is None else environment).get(wanted.key_env, "").strip()
    if not key:
        raise ConfigurationError("storage.auth is key, but the variable that storage.key_env names is not set")
    try:
        base64.b64decode(key, validate=True)
    except ValueError:  # not chained: it is a secret all the same
        raise ConfigurationError("the variable that storage.key_env names holds no account key") from None
    return Storage(key=key, endpoint=endpoint)


# delta-rs encodes others once more than the other two, and so opens another folder.
_SAME_FOR_ALL = re.compile(r"abfss?://[\w./=+,@$-]*", re.ASCII)


def _problems(settings: Settings) -> list[str]:
    """One line for each setting of the storage that cannot be used, without its value."""
    problems = []
    tables = {
        "lake.root": settings.lake.root,
        "lake.private_root": settings.lake.private_root,
        "columns.root": settings.columns.root,
        "fhir.root": settings.fhir.root,
    }
    for key, root in tables.items():
        if is_remote(root) and not _SAME_FOR_ALL.fullmatch(root.strip()):
            problems.append(f"{settings.origins[key]}: {key}: expected letters, digits, _ - . = + , only in the path")
    wrong = _wrong_endpoint(settings.storage.endpoint, settings.storage.auth)
    if wrong:
        problems.append(f"{settings.origins['storage.endpoint']}: storage.endpoint: {wrong}")
    return problems


def _wrong_endpoint(endpoint: str, auth: str) -> str | None:
    if not endpoint:
        return None
    if not re.fullmatch(r"https?://[A-Za-z0-9._-]+(:\d{1,5})?/?", endpoint):
        return "expected an address such as http://127.0.0.1:10000, without the account's name"
    if auth == "azure" and urlsplit(endpoint).scheme != "https":
        return "expected https://, a token is sent to this address"
    return None
