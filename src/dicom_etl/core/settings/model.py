"""The settings of one command, each with the place it came from (design/architecture.md: Settings)."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from dicom_etl.core.errors import ConfigurationError
from dicom_etl.core.settings.rules import check_meaning, contradictions
from dicom_etl.core.timerange import format_duration, format_instant, from_datetime, parse_duration, parse_instant

ENVIRONMENT_PREFIX = "DICOM_ETL__"
_LIKE_A_KEY = re.compile(r"[A-Za-z_]{1,30}(\.[A-Za-z_]{1,30}){0,2}")
CONFIG_VARIABLE = "DICOM_ETL_CONFIG"
LOCAL_FILE = Path("conf/local.toml")


class Duration(int):
    """A length of time in ticks of 100 ns, written ``90s``, ``15m``, ``1h`` or ``2d``."""


class Instant(int):
    """Ticks of 100 ns since 1970 UTC, written as RFC 3339 with a zone."""


Count = Annotated[int, Meta(ge=1)]
# What lies further back cannot be computed by all who are asked to.
_HUNDRED_YEARS_DAYS = 36500
Seconds = Annotated[float, Meta(gt=0)]


class Dicom(msgspec.Struct, frozen=True):
    base_url: str
    api_version: Literal[2]
    auth: Literal["none", "azure", "token"]
    token_env: str
    connections: Annotated[int, Meta(ge=1, le=64)]
    timeout_seconds: Seconds
    retry_seconds: Seconds


class Feed(msgspec.Struct, frozen=True):
    batch_size: Annotated[int, Meta(ge=1, le=200)]
    start: Instant
    window: Duration
    delay: Duration
    look_back: Duration
    max_entries_per_run: Count


class Lake(msgspec.Struct, frozen=True):
    root: str
    private_root: str
    instance_path: str
    series_path: str
    study_path: str
    layout: Literal["clustered", "partitioned"]
    keep_metadata: bool
    deletion_vectors: bool


class Storage(msgspec.Struct, frozen=True):
    auth: Literal["azure", "key"]
    key_env: str
    endpoint: str


class Maintenance(msgspec.Struct, frozen=True):
    retention_hours: Annotated[int, Meta(ge=1, le=_HUNDRED_YEARS_DAYS * 24)]
    allow_short_retention: bool
    change_retention_days: Annotated[int, Meta(ge=0, le=_HUNDRED_YEARS_DAYS)]


class Files(msgspec.Struct, frozen=True):
    root: str


class Spark(msgspec.Struct, frozen=True):
    master: str
    driver_memory: str
    shuffle_partitions: Count


class Metrics(msgspec.Struct, frozen=True):
    prometheus_file: str


class Fabric(msgspec.Struct, frozen=True):
    workspace: str
    lakehouse: str
    connection: str
    schema: str
    files_name: str
    api_url: str
    auth: Literal["azure", "token"]
    token_env: str


class Settings(msgspec.Struct, frozen=True):
    """All settings, checked. ``origins`` maps each ``section.key`` to the place its value came from."""

    dicom: Dicom
    feed: Feed
    lake: Lake
    storage: Storage
    maintenance: Maintenance
    files: Files
    spark: Spark
    metrics: Metrics
    fabric: Fabric
    origins: dict[str, str]

    @property
    def digest(self) -> str:
        """Twelve hex digits that change when a setting changes; for the ledger."""
        body = "\n".join(f"{key}={value!r}" for key, value, _ in flat(self))
        return hashlib.sha256(body.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class _Value:
    value: Any
    origin: str


_SECTIONS: dict[str, type[msgspec.Struct]] = {
    "dicom": Dicom,
    "feed": Feed,
    "lake": Lake,
    "storage": Storage,
    "maintenance": Maintenance,
    "files": Files,
    "spark": Spark,
    "metrics": Metrics,
    "fabric": Fabric,
}
_TYPES: dict[str, Any] = {
    f"{name}.{field.name}": field.type
    for name, section in _SECTIONS.items()
    for field in msgspec.structs.fields(section)
}


def load_settings(
    config: Path | None = None,
    overrides: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Settings:
    """The settings of this command.

    ``config`` is the file of ``--config``, ``overrides`` are ``section.key=value`` texts of ``--set``;
    ``environment`` and ``folder`` (for ./conf/local.toml) are those of the process unless given.
    Raises ConfigurationError with one line per wrong key, all of them at once.
    """
    environment = os.environ if environment is None else environment
    values = _from_toml(_default_text(), "default")
    for layer in (
        _from_file(_config_file(config, environment, folder or Path())),
        _from_environment(environment),
        _from_overrides(overrides),
    ):
        values |= layer
    return _checked(values)


def flat(settings: Settings) -> list[tuple[str, Any, str]]:
    """``(section.key, value, origin)`` of every setting, in the order of default.toml."""
    return [(key, _get(settings, key), settings.origins[key]) for key in _TYPES]


def shown(value: Any) -> str:
    """A setting as a person would write it in a file."""
    if isinstance(value, Instant):
        return format_instant(value)
    if isinstance(value, Duration):
        return format_duration(value)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _get(settings: Settings, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(settings, section), name)


def _default_text() -> str:
    return resources.files("dicom_etl.core.settings").joinpath("default.toml").read_text(encoding="utf-8")


def _config_file(config: Path | None, environment: Mapping[str, str], folder: Path) -> Path | None:
    if config is not None:
        return config
    if named := environment.get(CONFIG_VARIABLE):
        return Path(named)
    local = folder / LOCAL_FILE
    return local if local.is_file() else None


def _from_file(path: Path | None) -> dict[str, _Value]:
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise ConfigurationError(f"{path}: cannot read the configuration file: {reason}") from error
    return _from_toml(text, str(path))


def _from_toml(text: str, origin: str) -> dict[str, _Value]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{origin}: is not TOML: {error}") from error
    except (ValueError, RecursionError) as error:  # thousands of digits or of brackets
        raise ConfigurationError(f"{origin}: is not TOML: a value that nobody can mean") from error
    values: dict[str, _Value] = {}
    for section, content in document.items():
        if isinstance(content, dict) and (content or section in _SECTIONS):
            values |= {f"{section}.{key}": _Value(value, origin) for key, value in content.items()}
        else:
            values[section] = _Value(content, origin)
    return values


def _from_environment(environment: Mapping[str, str]) -> dict[str, _Value]:
    return {
        name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("__", "."): _Value(_toml_or_text(text), name)
        for name, text in environment.items()
        if name.startswith(ENVIRONMENT_PREFIX)
    }


def _from_overrides(overrides: Iterable[str]) -> dict[str, _Value]:
    values: dict[str, _Value] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise ConfigurationError("--set: expected section.key=value")  # not repeated: it may be a secret
        values[key.strip()] = _Value(_toml_or_text(text.strip()), "--set")
    return values


def _toml_or_text(text: str) -> Any:
    """The TOML value of ``text``, or the text itself; a date-time stays text, TOML would cut its 7th digit."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, KeyError, RecursionError):
        return text
    return value if isinstance(value, str | int | float | list | dict) else text


def _checked(values: dict[str, _Value]) -> Settings:
    problems: list[str] = []
    good: dict[str, Any] = {}
    for key, given in values.items():
        if key not in _TYPES:
            # What looks like no key may be a secret: one in base64 ends with the = of an override.
            named = f"{key}: " if _LIKE_A_KEY.fullmatch(key) else ""
            problems.append(f"{given.origin}: {named}unknown setting{_nearest(key)}")
            continue
        try:
            good[key] = msgspec.convert(given.value, _TYPES[key], dec_hook=_decode)
            check_meaning(key, good[key])
        except (msgspec.ValidationError, ValueError) as error:
            problems.append(f"{given.origin}: {key}: {_expected(key, error)}")
    problems += [] if problems else contradictions(good, {key: given.origin for key, given in values.items()})
    if problems:
        raise ConfigurationError("\n".join(problems))
    sections: dict[str, Any] = {
        name: section(**{field.name: good[f"{name}.{field.name}"] for field in msgspec.structs.fields(section)})
        for name, section in _SECTIONS.items()
    }
    return Settings(**sections, origins={key: values[key].origin for key in _TYPES})


def _nearest(key: str) -> str:
    return f"; did you mean {difflib.get_close_matches(key, _TYPES, n=1, cutoff=0.0)[0]}?"


def _expected(key: str, error: Exception) -> str:
    """What the setting must be, in words; never the value, it may be a secret put in the wrong place."""
    wanted = _TYPES[key]
    choices = getattr(wanted, "__args__", ()) if getattr(wanted, "__origin__", None) is Literal else ()
    if choices:
        return "expected " + ("one of " if len(choices) > 1 else "") + ", ".join(str(c) for c in choices)
    meta = next((m for m in getattr(wanted, "__metadata__", ()) if isinstance(m, Meta)), None)
    if meta is not None:
        return f"expected a number {_bounds(meta)}"
    if wanted in _WORDS and isinstance(error, msgspec.ValidationError):
        return _WORDS[wanted]
    return str(error)


_WORDS = {bool: "expected true or false", str: "expected text"}


def _bounds(meta: Meta) -> str:
    if meta.ge is not None and meta.le is not None:
        return f"from {meta.ge} to {meta.le}"
    return f"of at least {meta.ge}" if meta.ge is not None else f"above {meta.gt}"


def _decode(wanted: type, value: Any) -> Any:
    if wanted is Duration:
        return Duration(parse_duration(value))
    if wanted is Instant:
        return Instant(_instant(value))
    raise NotImplementedError(wanted)


def _instant(value: object) -> int:
    """Ticks; what lies before 1970 is 1970: the template begins with the year 1, and no feed is that old."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return max(0, from_datetime(value))
    return max(0, parse_instant(value if isinstance(value, str) else ""))
