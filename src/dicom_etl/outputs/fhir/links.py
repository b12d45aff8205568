"""Addresses in a server's answers: what follows them sends our token, so they must lead below the configured base."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from dicom_etl.core.errors import ConfigurationError

_PORTS = {"http": 80, "https": 443}


def path_below(base_url: str, link: str) -> str:
    """The path and query of a link, relative to the base.

    Raises ConfigurationError when it leads to another scheme, host, port or path: the token goes to one server only
    (design/architecture.md: Patient data).
    """
    base = urlsplit(base_url.rstrip("/"))
    try:
        target = urlsplit(urljoin(f"{base_url.rstrip('/')}/", link))
        stays = _origin(target) == _origin(base) and "@" not in target.netloc
    except ValueError:
        stays = False
    # What one reader of an address takes for a part of the host, another takes for a part of the path.
    if not stays or re.search(r"[\\\s\x00-\x1f\x7f]", link) or not _is_below(base.path, target.path):
        raise ConfigurationError(
            "fhir.base_url: the FHIR server's links lead to another address; set the one under which the server knows "
            "itself, and check what it is told of a proxy before it"
        )
    return target.path[len(base.path) :] + (f"?{target.query}" if target.query else "")


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def _is_below(base: str, path: str) -> bool:
    if any(unquote(segment) in (".", "..") for segment in path.split("/")):
        return False
    return path == base or path.startswith(f"{base}/")
