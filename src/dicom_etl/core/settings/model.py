"""The settings by section: each with its type and its check (design/architecture.md: Settings).

A new setting is a field here and a line with a comment in default.toml; all else follows from the two.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta

from dicom_etl.core.settings import rules
from dicom_etl.core.timerange import format_duration, format_instant


class Duration(int):
    """A length of time in ticks of 100 ns, written ``90s``, ``15m``, ``1h`` or ``2d``."""


class Instant(int):
    """Ticks of 100 ns since 1970 UTC, written as RFC 3339 with a zone."""


Count = Annotated[int, Meta(ge=1)]
# What lies further back cannot be computed by all who are asked to.
_HUNDRED_YEARS_DAYS = 36500
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Folder = Annotated[str, rules.check_folder]
TablePath = Annotated[str, rules.check_table_path]
FabricId = Annotated[str, rules.check_id]
Name = Annotated[str, rules.check_name]
TokenVariable = Annotated[str, rules.check_token_variable]


class Dicom(msgspec.Struct, frozen=True):
    base_url: Annotated[str, rules.check_service_root]
    api_version: Literal[2]
    auth: Literal["none", "azure", "token"]
    token_env: TokenVariable
    connections: Annotated[int, Meta(ge=1, le=64)]
    timeout_seconds: Seconds
    retry_seconds: Seconds


class Feed(msgspec.Struct, frozen=True):
    batch_size: Annotated[int, Meta(ge=1, le=200)]
    start: Instant
    window: Annotated[Duration, rules.check_above_zero]
    delay: Duration
    look_back: Duration
    max_entries_per_run: Count


class Lake(msgspec.Struct, frozen=True):
    root: Folder
    private_root: Folder
    instance_path: TablePath
    series_path: TablePath
    study_path: TablePath
    layout: Literal["clustered", "partitioned"]
    keep_metadata: bool
    deletion_vectors: bool


class Storage(msgspec.Struct, frozen=True):
    auth: Literal["azure", "key"]
    key_env: Annotated[str, rules.check_key_variable]
    endpoint: Annotated[str, rules.check_endpoint]


class Maintenance(msgspec.Struct, frozen=True):
    retention_hours: Annotated[int, Meta(ge=1, le=_HUNDRED_YEARS_DAYS * 24)]
    allow_short_retention: bool
    change_retention_days: Annotated[int, Meta(ge=0, le=_HUNDRED_YEARS_DAYS)]
    keep_live_headers: bool


class Columns(msgspec.Struct, frozen=True):
    root: Folder
    tags: list[str]
    identifying: bool


class Outputs(msgspec.Struct, frozen=True):
    after_sync: list[Literal["columns", "fhir"]]
    settle: Annotated[Duration, rules.check_above_zero]


class Files(msgspec.Struct, frozen=True):
    root: Folder


class Spark(msgspec.Struct, frozen=True):
    master: Annotated[str, rules.check_master]
    driver_memory: Annotated[str, rules.check_memory]
    shuffle_partitions: Count


class Metrics(msgspec.Struct, frozen=True):
    prometheus_file: str


class Fabric(msgspec.Struct, frozen=True):
    workspace: FabricId
    lakehouse: FabricId
    connection: FabricId
    schema: Name
    files_name: Name
    api_url: Annotated[str, rules.check_address]
    auth: Literal["azure", "token"]
    token_env: TokenVariable


class Fhir(msgspec.Struct, frozen=True):
    base_url: Annotated[str, rules.check_optional_address]
    auth: Literal["none", "azure", "token"]
    token_env: TokenVariable
    patients: Literal["find", "find_or_create", "own"]
    patients_ttl: Annotated[Duration, rules.check_above_zero]
    issuers: Annotated[dict[str, str], rules.check_issuers]
    default_system: Annotated[str, rules.check_uri]
    timezone: Annotated[str, rules.check_zone]
    instances: Literal["auto", "all", "none"]
    dose: bool
    strict_modality: bool
    bundle_entries: Annotated[int, Meta(ge=1, le=500)]
    connections: Annotated[int, Meta(ge=1, le=64)]
    timeout_seconds: Seconds
    retry_seconds: Seconds
    id_key_env: Annotated[str, rules.check_optional_variable]
    root: Folder


class Settings(msgspec.Struct, frozen=True):
    """All settings, checked. ``origins`` maps each ``section.key`` to the place its value came from."""

    dicom: Dicom
    feed: Feed
    lake: Lake
    storage: Storage
    maintenance: Maintenance
    columns: Columns
    outputs: Outputs
    files: Files
    spark: Spark
    metrics: Metrics
    fabric: Fabric
    fhir: Fhir
    origins: dict[str, str]

    @property
    def digest(self) -> str:
        """Twelve hex digits that change when a setting changes; for the ledger."""
        body = "\n".join(f"{key}={value!r}" for key, value, _ in flat(self))
        return hashlib.sha256(body.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Declared:
    """One setting as its field declares it: the type to convert to, that type without annotations, and the rest."""

    type: Any
    plain: Any
    bounds: Meta | None
    checks: tuple[Callable[[Any], None], ...]

    def check(self, value: Any) -> None:
        """Raises ValueError, in the words of a message, when a value of the right type makes no sense."""
        for check in self.checks:
            check(value)


def _declared(wanted: Any) -> Declared:
    plain, *notes = get_args(wanted) if get_origin(wanted) is Annotated else (wanted,)
    bounds = next((note for note in notes if isinstance(note, Meta)), None)
    return Declared(wanted, plain, bounds, tuple(note for note in notes if callable(note)))


SECTIONS: dict[str, type[msgspec.Struct]] = {
    field.name: field.type for field in msgspec.structs.fields(Settings) if isinstance(field.type, type(msgspec.Struct))
}
DECLARED: dict[str, Declared] = {
    f"{name}.{field.name}": _declared(field.type)
    for name, section in SECTIONS.items()
    for field in msgspec.structs.fields(section)
}


def flat(settings: Settings) -> list[tuple[str, Any, str]]:
    """``(section.key, value, origin)`` of every setting, in the order of default.toml."""
    return [(key, _get(settings, key), settings.origins[key]) for key in DECLARED]


def shown(value: Any) -> str:
    """A setting as a person would write it in a file."""
    if isinstance(value, Instant):
        return format_instant(value)
    if isinstance(value, Duration):
        return format_duration(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _get(settings: Settings, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(settings, section), name)
