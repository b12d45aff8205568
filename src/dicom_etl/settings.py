"""The settings of one command, each with the place it came from (architecture §6)."""

from __future__ import annotations

import difflib
import hashlib
import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from dicom_etl.errors import ConfigurationError
from dicom_etl.window import TICKS_PER_SECOND, format_instant, from_datetime, parse_instant

ENVIRONMENT_PREFIX = "DICOM_ETL__"
CONFIG_VARIABLE = "DICOM_ETL_CONFIG"
LOCAL_FILE = Path("conf/local.toml")


class Duration(int):
    """A length of time in ticks of 100 ns, written ``90s``, ``15m``, ``1h`` or ``2d``."""


class Instant(int):
    """Ticks of 100 ns since 1970 UTC, written as RFC 3339 with a zone."""


Count = Annotated[int, Meta(ge=1)]
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


class Maintenance(msgspec.Struct, frozen=True):
    retention_hours: Annotated[int, Meta(ge=1)]
    allow_short_retention: bool
    change_retention_days: Annotated[int, Meta(ge=0)]


class Files(msgspec.Struct, frozen=True):
    root: str


class Spark(msgspec.Struct, frozen=True):
    master: str
    driver_memory: str
    shuffle_partitions: Count


class Metrics(msgspec.Struct, frozen=True):
    prometheus_file: str


class Settings(msgspec.Struct, frozen=True):
    """All settings, checked. ``origins`` maps each ``section.key`` to the place its value came from."""

    dicom: Dicom
    feed: Feed
    lake: Lake
    maintenance: Maintenance
    files: Files
    spark: Spark
    metrics: Metrics
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
    "maintenance": Maintenance,
    "files": Files,
    "spark": Spark,
    "metrics": Metrics,
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
    return resources.files("dicom_etl").joinpath("default.toml").read_text(encoding="utf-8")


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
            raise ConfigurationError(f"--set {key}: expected section.key=value")
        values[key.strip()] = _Value(_toml_or_text(text.strip()), "--set")
    return values


def _toml_or_text(text: str) -> Any:
    """The TOML value of ``text``, or the text itself; a date-time stays text, TOML would cut its 7th digit."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return text
    return value if isinstance(value, str | int | float | list | dict) else text


def _checked(values: dict[str, _Value]) -> Settings:
    problems: list[str] = []
    good: dict[str, Any] = {}
    for key, given in values.items():
        if key not in _TYPES:
            problems.append(f"{given.origin}: {key}: unknown setting{_nearest(key)}")
            continue
        try:
            good[key] = msgspec.convert(given.value, _TYPES[key], dec_hook=_decode)
            _check_meaning(key, good[key])
        except (msgspec.ValidationError, ValueError) as error:
            problems.append(f"{given.origin}: {key}: {_expected(key, error)}")
    problems += [] if problems else _contradictions(good, values)
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


def _check_meaning(key: str, value: Any) -> None:
    if value == math.inf:
        raise ValueError("expected a finite number")
    if key == "feed.window" and value <= 0:
        raise ValueError("expected a duration above 0")
    if key == "dicom.base_url" and value:
        _check_address(value)
    if key in ("lake.instance_path", "lake.series_path", "lake.study_path"):
        _check_table_path(value)
    if key == "spark.driver_memory" and not re.fullmatch(r"\d+[kmgtKMGT]", value):
        raise ValueError("expected a size such as 2g")


def _check_address(address: str) -> None:
    # urlsplit takes blanks, and drops line ends without a word.
    if re.search(r"[\s\x00-\x1f\x7f]", address):
        raise ValueError("expected an address without blanks")
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError as error:
        raise ValueError("expected an address such as https://ws-name.dicom.azurehealthcareapis.com") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected an address that starts with https:// (or http:// on loopback)")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("expected an address without user, password, query or fragment")
    if re.search(r"/v\d[^/]*/?$", parts.path):
        raise ValueError("expected the service root, without the version")


def _check_table_path(path: str) -> None:
    parts = path.split("/")
    if not path or path.startswith("/") or any(p in ("", ".", "..") for p in parts) or "://" in path:
        raise ValueError("expected a path below lake.root, such as instance")
    if not re.fullmatch(r"[A-Za-z0-9_./=-]+", path) or parts[0].startswith("_"):
        raise ValueError("expected letters, digits, _ - . / only, and no leading _")


def _contradictions(good: dict[str, Any], values: dict[str, _Value]) -> list[str]:
    problems = []
    if good["dicom.auth"] != "none" and good["dicom.base_url"]:
        parts = urlsplit(good["dicom.base_url"])
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            origin = values["dicom.base_url"].origin
            problems.append(f"{origin}: dicom.base_url: expected https://, a token is sent to this address")
    if good["maintenance.retention_hours"] < 168 and not good["maintenance.allow_short_retention"]:
        origin = values["maintenance.retention_hours"].origin
        problems.append(
            f"{origin}: maintenance.retention_hours: expected at least 168; less can take files from under "
            "a reader (maintenance.allow_short_retention = true allows it)"
        )
    taken = ["run", "change", "rejected"]
    for key in ("lake.instance_path", "lake.series_path", "lake.study_path"):
        if any(_within(good[key], other) or _within(other, good[key]) for other in taken):
            problems.append(f"{values[key].origin}: {key}: expected a folder that no other table uses")
        taken.append(good[key])
    return problems


def _within(path: str, other: str) -> bool:
    return path == other or path.startswith(other + "/")


def is_loopback(host: str) -> bool:
    """Whether the host name stands for this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _decode(wanted: type, value: Any) -> Any:
    if wanted is Duration:
        return Duration(parse_duration(value))
    if wanted is Instant:
        return Instant(_instant(value))
    raise NotImplementedError(wanted)


_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(value: object) -> int:
    """Ticks of ``90s``, ``15m``, ``1h`` or ``2d``; raises ValueError for anything else."""
    match = re.fullmatch(r"(\d{1,9})([smhd])", value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("expected a duration such as 90s, 15m or 1h")
    return int(match.group(1)) * _UNIT_SECONDS[match.group(2)] * TICKS_PER_SECOND


def format_duration(ticks: int) -> str:
    """The duration in the largest unit that writes it whole: ``15m``."""
    seconds = ticks // TICKS_PER_SECOND
    unit = next(u for u in ("d", "h", "m", "s") if seconds % _UNIT_SECONDS[u] == 0)
    return f"{seconds // _UNIT_SECONDS[unit]}{unit}" if seconds else "0s"


def _instant(value: object) -> int:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return from_datetime(value)
    return parse_instant(value if isinstance(value, str) else "")
