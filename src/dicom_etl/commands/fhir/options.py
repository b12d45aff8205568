"""What the FHIR resources of one lake depend on beside its tables, from the settings and the lake's identity."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Final
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from dicom_etl.core.errors import ConfigurationError
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake.lake_id import LakeIdentity, service_fingerprint
from dicom_etl.outputs.fhir.facts import MappingOptions
from dicom_etl.outputs.fhir.mapping import MAPPING_VERSION

NAME: Final = "fhir"
_LEAST_KEY: Final = 16


def mapping_options(
    settings: Settings, identity: LakeIdentity, environment: Mapping[str, str] | None = None
) -> MappingOptions:
    """The options of this lake's resources.

    Raises ConfigurationError when `dicom.base_url` is not set, or the secret of ``fhir.id_key_env`` is not there.
    """
    fhir, address = settings.fhir, settings.dicom.base_url.rstrip("/")
    if not address:
        raise ConfigurationError("dicom.base_url: is not set; the resources name the DICOM service as their source")
    return MappingOptions(
        service_url=f"{address}/v{settings.dicom.api_version}",
        # Not as the setting spells it: another spelling would give every resource another id.
        source=f"{urlsplit(address).scheme}://{identity.service}",
        lake=str(identity.lake_id),
        key=_id_key(fhir.id_key_env, identity, os.environ if environment is None else environment),
        issuers=dict(fhir.issuers),
        default_system=fhir.default_system or None,
        zone=ZoneInfo(fhir.timezone) if fhir.timezone else None,
        patients=fhir.patients,
        instances=fhir.instances,
        dose=fhir.dose,
        strict_modality=fhir.strict_modality,
    )


def _id_key(variable: str, identity: LakeIdentity, environment: Mapping[str, str]) -> bytes:
    if not variable:
        return str(identity.lake_id).encode()
    secret = environment.get(variable, "").strip()
    if len(secret) < _LEAST_KEY:
        raise ConfigurationError(
            f"fhir.id_key_env: the variable that it names is not set, or shorter than {_LEAST_KEY} characters"
        )
    return secret.encode()


def options_digest(settings: Settings, options: MappingOptions) -> str:
    """Sixteen hex digits that change with the mapping, with what it depends on, and with the server."""
    parts = asdict(options) | {
        "zone": options.zone.key if options.zone else None,
        "key": hashlib.sha256(options.key).hexdigest(),
        "mapping": MAPPING_VERSION,
        "server": server_fingerprint(settings),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def server_fingerprint(settings: Settings) -> str:
    """Host name, port and path of the FHIR server. Raises ConfigurationError when no address is set."""
    address = settings.fhir.base_url
    if not address:
        raise ConfigurationError("fhir.base_url: is not set; give the address of a FHIR R4 server (docs/fhir.md)")
    # On loopback a port tells one server from another here: none of them comes back at another one.
    port = urlsplit(address).port
    fingerprint = service_fingerprint(address)
    return f"{fingerprint}:{port}" if fingerprint.startswith("localhost") and port else fingerprint
