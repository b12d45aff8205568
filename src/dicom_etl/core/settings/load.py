"""Loads the settings from four layers, and names every wrong key at once (design/architecture.md: Settings)."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta

from dicom_etl.core.errors import ConfigurationError
from dicom_etl.core.settings.model import DECLARED, SECTIONS, Duration, Instant, Settings
from dicom_etl.core.settings.rules import contradictions
from dicom_etl.core.timerange import from_datetime, parse_duration, parse_instant

ENVIRONMENT_PREFIX = "DICOM_ETL__"
CONFIG_VARIABLE = "DICOM_ETL_CONFIG"
LOCAL_FILE = Path("conf/local.toml")
_LIKE_A_KEY = re.compile(r"[A-Za-z_]{1,30}(\.[A-Za-z_]{1,30}){0,2}")


@dataclass(frozen=True, slots=True)
class _Value:
    value: Any
    origin: str


def load_settings(
    config: str | Path | None = None,
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


def readable_setting(
    key: str,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
) -> Any:
    """One setting, unchecked, for when the settings as a whole cannot be read; None where no layer names it.

    A text of ``--set`` or a file that cannot be read counts as absent, and the other layers still answer.
    """
    environment = os.environ if environment is None else environment
    layers: list[Callable[[], dict[str, _Value]]] = [partial(_from_overrides, [text]) for text in reversed(overrides)]
    layers += [
        partial(_from_environment, environment),
        partial(_from_file, _config_file(config, environment, folder or Path())),
    ]
    for read in layers:
        with suppress(ConfigurationError):
            if setting := read().get(key):
                return setting.value
    return None


def _default_text() -> str:
    return resources.files("dicom_etl.core.settings").joinpath("default.toml").read_text(encoding="utf-8")


def _config_file(config: str | Path | None, environment: Mapping[str, str], folder: Path) -> Path | None:
    if config is not None:
        return Path(config)
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
        # Jupyter, cron and services start in folders of their own.
        hint = "" if path.is_absolute() else f" (a relative path: looked for in {Path.cwd()})"
        raise ConfigurationError(f"{path}: cannot read the configuration file: {reason}{hint}") from error
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
        if isinstance(content, dict) and (content or section in SECTIONS):
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
        if key not in DECLARED:
            # What looks like no key may be a secret: one in base64 ends with the = of an override.
            named = f"{key}: " if _LIKE_A_KEY.fullmatch(key) else ""
            problems.append(f"{given.origin}: {named}unknown setting{_nearest(key)}")
            continue
        try:
            good[key] = msgspec.convert(given.value, DECLARED[key].type, dec_hook=_decode)
            DECLARED[key].check(good[key])
        except (msgspec.ValidationError, ValueError) as error:
            problems.append(f"{given.origin}: {key}: {_expected(key, error)}")
    problems += [] if problems else contradictions(good, {key: given.origin for key, given in values.items()})
    if problems:
        raise ConfigurationError("\n".join(problems))
    sections: dict[str, Any] = {
        name: section(**{field.name: good[f"{name}.{field.name}"] for field in msgspec.structs.fields(section)})
        for name, section in SECTIONS.items()
    }
    return Settings(**sections, origins={key: values[key].origin for key in DECLARED})


def _nearest(key: str) -> str:
    return f"; did you mean {difflib.get_close_matches(key, DECLARED, n=1, cutoff=0.0)[0]}?"


def _expected(key: str, error: Exception) -> str:
    """What the setting must be, in words; never the value, it may be a secret put in the wrong place."""
    declared = DECLARED[key]
    if get_origin(declared.plain) is Literal:
        choices = get_args(declared.plain)
        return "expected " + ("one of " if len(choices) > 1 else "") + ", ".join(str(c) for c in choices)
    if get_origin(declared.plain) is list:
        return _expected_list(*get_args(declared.plain))
    if get_origin(declared.plain) is dict and isinstance(error, msgspec.ValidationError):
        return 'expected a table of texts, such as { "HOSP" = "urn:oid:1.2.3" }'
    if declared.bounds is not None:
        return f"expected a number {_bounds(declared.bounds)}"
    if declared.plain in _WORDS and isinstance(error, msgspec.ValidationError):
        return _WORDS[declared.plain]
    return str(error)


def _expected_list(member: Any) -> str:
    if get_origin(member) is Literal:
        return "expected a list of " + ", ".join(f'"{choice}"' for choice in get_args(member)) + ", or an empty one: []"
    return 'expected a list of texts, such as ["KVP"]'


_WORDS = {bool: "expected true or false", str: "expected text"}


def _bounds(meta: Meta) -> str:
    if meta.ge is not None and meta.le is not None:
        return f"from {meta.ge} to {meta.le}"
    low = f"of at least {meta.ge}" if meta.ge is not None else f"above {meta.gt}"
    return low if meta.le is None else f"{low} and at most {meta.le:g}"


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
