"""Whose lake it is: decided when `run` is created, and kept in its properties.

design/architecture.md: Identity of a lake.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from dicom_etl.core.errors import ConfigurationError, DataError
from dicom_etl.core.settings.rules import is_loopback

SCHEMA_VERSION = 1

LAKE_ID = "dicomEtl.lakeId"
SERVICE = "dicomEtl.service"
SCHEMA = "dicomEtl.schemaVersion"

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class LakeIdentity:
    """One lake holds one service. ``service`` is its fingerprint, readable: a host name is no secret."""

    lake_id: uuid.UUID
    service: str
    schema_version: int = SCHEMA_VERSION

    def app_id(self, table: str) -> str:
        """The name under which a table's log keeps the id of the last run that wrote to it."""
        return f"{self.lake_id}/{table}"

    @property
    def properties(self) -> dict[str, str]:
        """The table properties that keep it."""
        return {LAKE_ID: str(self.lake_id), SERVICE: self.service, SCHEMA: str(self.schema_version)}


def new_identity(service: str) -> LakeIdentity:
    """The identity of a lake that is made now, for the service with this fingerprint."""
    return LakeIdentity(uuid.uuid4(), service)


def check_identity(properties: Mapping[str, str], service: str | None = None) -> LakeIdentity:
    """The identity in a table's properties; ``service`` is the expected fingerprint, if there is one.

    Raises DataError (65) when the table is not ours or of a newer schema, ConfigurationError (78) when the
    lake holds another service.
    """
    try:
        identity = LakeIdentity(uuid.UUID(properties[LAKE_ID]), properties[SERVICE], int(properties[SCHEMA]))
    except (KeyError, ValueError) as error:
        raise DataError("a table of this lake was not made by dicom-etl: set lake.root to another folder") from error
    if identity.schema_version > SCHEMA_VERSION:
        raise DataError(
            f"this lake has schema {identity.schema_version}, this version knows up to {SCHEMA_VERSION}: "
            "upgrade dicom-etl"
        )
    if service is not None and identity.service != service:
        raise ConfigurationError(
            f"this lake holds another service, {identity.service}, not {service}: "
            "set lake.root to a lake of its own, or dicom.base_url to the service that it holds"
        )
    return identity


def check_owner(name: str, properties: Mapping[str, str], identity: LakeIdentity) -> None:
    """Raise DataError when the table with these properties is not one of this lake, else as ``check_identity`` does."""
    if LAKE_ID not in properties:
        raise DataError(f"the table {name} was not made by dicom-etl: take it over by sync --adopt, or move it away")
    if properties[LAKE_ID] != str(identity.lake_id):
        raise DataError(f"the table {name} belongs to another lake: give each lake paths of its own")
    check_identity(properties, identity.service)


def service_fingerprint(base_url: str) -> str:
    """Host name in lower case, port and path of the service's root: ``dicom.example.org:8443/root``.

    The port is left out when it is the scheme's own. On loopback it never counts (a local service gets
    another one at each start), and all names of loopback are one, ``localhost``.
    Raises ConfigurationError when there is no address.
    """
    parts = urlsplit(base_url)
    host = (parts.hostname or "").rstrip(".")
    if not host:
        raise ConfigurationError("dicom.base_url is not set: name the address of the DICOM service")
    path = parts.path.rstrip("/")
    if is_loopback(host):
        return f"localhost{path}"
    name = f"[{host}]" if ":" in host else host
    if parts.port in (None, _DEFAULT_PORTS.get(parts.scheme)):
        return f"{name}{path}"
    return f"{name}:{parts.port}{path}"
