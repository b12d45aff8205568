"""What a setting must mean, beyond having the right type."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

_NAMES_OF_SECRETS = {"dicom.token_env": "token", "fabric.token_env": "token", "storage.key_env": "key"}


def check_meaning(key: str, value: Any) -> None:
    """Raise ValueError, in the words of a message, when a setting of the right type makes no sense."""
    if value == math.inf:
        raise ValueError("expected a finite number")
    if key in _NAMES_OF_SECRETS and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", value):
        raise ValueError(f"expected the name of a variable in capitals, not the {_NAMES_OF_SECRETS[key]} itself")
    if key == "feed.window" and value <= 0:
        raise ValueError("expected a duration above 0")
    if key == "dicom.base_url" and value:
        _check_address(value)
    if key == "fabric.api_url":
        _check_address(value, versioned=True)
    if key in ("fabric.workspace", "fabric.lakehouse", "fabric.connection") and value:
        _check_id(value)
    if key in ("fabric.schema", "fabric.files_name") and not re.fullmatch(r"(\w[\w-]{0,99})?", value, re.ASCII):
        raise ValueError("expected a name of letters, digits, _ and -")
    if key in ("lake.instance_path", "lake.series_path", "lake.study_path"):
        _check_table_path(value)
    if key == "spark.driver_memory" and not re.fullmatch(r"\d+[kmgtKMGT]", value):
        raise ValueError("expected a size such as 2g")


def _check_id(value: str) -> None:
    if not re.fullmatch(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", value):
        raise ValueError("expected an id such as cfafbeb1-8037-4d0c-896e-a46fb27ff229")


def _check_address(address: str, *, versioned: bool = False) -> None:
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
    if not versioned and re.search(r"/v\d[^/]*/?$", parts.path):
        raise ValueError("expected the service root, without the version")


def _check_table_path(path: str) -> None:
    parts = path.split("/")
    if not path or path.startswith("/") or any(p in ("", ".", "..") for p in parts) or "://" in path:
        raise ValueError("expected a path below lake.root, such as instance")
    if not re.fullmatch(r"[A-Za-z0-9_./=-]+", path) or parts[0].startswith("_"):
        raise ValueError("expected letters, digits, _ - . / only, and no leading _")


def contradictions(good: Mapping[str, Any], origins: Mapping[str, str]) -> list[str]:
    """One line for each pair of settings that do not go together."""
    problems = []
    for key in ("dicom.base_url", "fabric.api_url"):
        sends_token = key == "fabric.api_url" or good["dicom.auth"] != "none"
        if sends_token and _is_open_to_others(good[key]):
            problems.append(f"{origins[key]}: {key}: expected https://, a token is sent to this address")
    if good["maintenance.retention_hours"] < 168 and not good["maintenance.allow_short_retention"]:
        origin = origins["maintenance.retention_hours"]
        problems.append(
            f"{origin}: maintenance.retention_hours: expected at least 168; less can take files from under "
            "a reader (maintenance.allow_short_retention = true allows it)"
        )
    root, private = good["lake.root"].rstrip("/"), good["lake.private_root"].rstrip("/")
    for key in ("lake.instance_path", "lake.series_path", "lake.study_path"):
        if private and _within(private, f"{root}/{good[key]}"):
            problems.append(f"{origins['lake.private_root']}: lake.private_root: lies in the folder of a shared table")
    taken = ["run", "change", "rejected"]
    for key in ("lake.instance_path", "lake.series_path", "lake.study_path"):
        if any(_within(good[key], other) or _within(other, good[key]) for other in taken):
            problems.append(f"{origins[key]}: {key}: expected a folder that no other table uses")
        taken.append(good[key])
    return problems


def _is_open_to_others(address: str) -> bool:
    """Whether what is sent there can be read on the way."""
    parts = urlsplit(address)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


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
