"""What a setting must mean, beyond having the right type: each check raises ValueError in the words of a message."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_LABEL = re.compile(r"[\w-]{1,63}", re.ASCII)
# Spark asks for 450 MiB of the heap that Java reports, which is less than what it is given.
_LEAST_MEMORY_BYTES = 512 << 20


def check_token_variable(name: str) -> None:
    _check_variable(name, "token")


def check_key_variable(name: str) -> None:
    _check_variable(name, "key")


def _check_variable(name: str, content: str) -> None:
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", name):
        raise ValueError(f"expected the name of a variable in capitals, not the {content} itself")


def check_optional_variable(name: str) -> None:
    if name:
        _check_variable(name, "secret")


# A scheme and something behind it without blanks, as RFC 3986 has it.
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`]+", re.ASCII)


def check_uri(value: str) -> None:
    if value and not _URI.fullmatch(value):
        raise ValueError("expected a URI such as urn:oid:1.2.3 or https://hospital.example.org/patients")


def check_issuers(issuers: Mapping[str, str]) -> None:
    for issuer, uri in issuers.items():
        if not issuer.strip() or not uri or not _URI.fullmatch(uri):
            raise ValueError('expected a URI for each issuer: { "HOSP" = "urn:oid:1.2.3" }')


def check_zone(name: str) -> None:
    if not name:
        return
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("expected the name of a time zone, such as Europe/Berlin") from error


def check_above_zero(ticks: int) -> None:
    if ticks <= 0:
        raise ValueError("expected a duration above 0")


# Our own JVM listens on loopback only, and its jars and log settings are files of this host: executors elsewhere would
# be waited for until somebody looks. Another word would end a run after it has read the feed.
_MASTER = re.compile(r"local(\[(\*|0*[1-9]\d*)(\s*,\s*\d+)?\])?", re.ASCII)


def check_master(value: str) -> None:
    if not _MASTER.fullmatch(value):
        raise ValueError(
            "expected local[*] or local[2]; a cluster hands its session in: run jobs/sync.py there by spark-submit"
        )


def memory_bytes(value: str) -> int:
    """A size as Java takes it, such as 2g, in bytes. Raises ValueError for another text."""
    size = re.fullmatch(r"(\d{1,12})([kmgt])", value, re.IGNORECASE | re.ASCII)
    if size is None:
        raise ValueError("expected a size such as 2g")
    return int(size[1]) << 10 * (1 + "kmgt".index(size[2].lower()))


def check_memory(value: str) -> None:
    if memory_bytes(value) < _LEAST_MEMORY_BYTES:
        raise ValueError("expected at least 512m, with less Spark does not start")


def check_name(value: str) -> None:
    if not re.fullmatch(r"(\w[\w-]{0,99})?", value, re.ASCII):
        raise ValueError("expected a name of letters, digits, _ and -")


def check_id(value: str) -> None:
    if value and not re.fullmatch(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", value):
        raise ValueError("expected an id such as cfafbeb1-8037-4d0c-896e-a46fb27ff229")


def check_service_root(address: str) -> None:
    if not address:
        return
    check_address(address)
    if re.search(r"/v\d[^/]*/?$", urlsplit(address).path):
        raise ValueError("expected the service root, without the version")


def check_optional_address(address: str) -> None:
    if address:
        check_address(address)


def check_address(address: str) -> None:
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
    if not _is_host(parts):
        raise ValueError("expected an address with the name of a host")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("expected an address without user, password, query or fragment")


def _is_host(parts: SplitResult) -> bool:
    """Whether httpx and the resolver can encode the host: one that they cannot would end in an error of their own."""
    name = parts.hostname or ""
    if "[" in parts.netloc or _is_ip(name):
        return _is_ip(name)
    try:
        encoded = name if re.fullmatch(r"[a-z][\w.-]*", name, re.ASCII) and "xn--" not in name else _encoded(name)
    except UnicodeError:
        return False
    return len(encoded) <= 253 and all(re.fullmatch(_LABEL, label) for label in encoded.removesuffix(".").split("."))


def _encoded(name: str) -> str:
    """A host as httpx sends it. Raises UnicodeError for one that cannot be encoded, or decoded again."""
    import httpx  # noqa: PLC0415 - a quarter of a second that plain names do not need

    try:
        url = httpx.URL(scheme="https", host=name)
        _ = url.host  # decodes xn--
    except httpx.InvalidURL as error:
        raise UnicodeError from error
    return url.raw_host.decode("ascii")


def check_endpoint(value: str) -> None:
    if re.search(r"[?#@\s]", value):
        raise ValueError("expected an address such as http://127.0.0.1:10000, without the account's name")


def check_folder(uri: str) -> None:
    """A secret in an address would be shown by `config`: only the storage's identity opens it."""
    if "\0" in uri:
        raise ValueError("expected a folder, or abfss://container@account.dfs.core.windows.net/path")
    scheme, _, rest = uri.partition("://")
    if rest and scheme != "file" and (re.search(r"[?#]", rest) or ":" in rest.partition("/")[0].rpartition("@")[0]):
        raise ValueError("expected an address without password, query or fragment")


def check_table_path(path: str) -> None:
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
    if _is_open_to_others(good["fhir.base_url"]):
        problems.append(
            f"{origins['fhir.base_url']}: fhir.base_url: expected https://, patients are sent to this address"
        )
    if "fhir" in good["outputs.after_sync"] and "columns" not in good["outputs.after_sync"]:
        problems.append(
            f"{origins['outputs.after_sync']}: outputs.after_sync: fhir is made of the tag tables, which must follow "
            'the same sync: ["columns", "fhir"]'
        )
    if good["maintenance.retention_hours"] < 168 and not good["maintenance.allow_short_retention"]:
        origin = origins["maintenance.retention_hours"]
        problems.append(
            f"{origin}: maintenance.retention_hours: expected at least 168; less can take files from under "
            "a reader (maintenance.allow_short_retention = true allows it)"
        )
    return problems


def _is_open_to_others(address: str) -> bool:
    """Whether what is sent there can be read on the way."""
    parts = urlsplit(address)
    return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def is_loopback(host: str) -> bool:
    """Whether the host name stands for this machine."""
    return host == "localhost" or (_is_ip(host) and ip_address(host).is_loopback)


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
