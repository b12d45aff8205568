"""Addresses of studies, series and instances below the service's root.

design/service-protocol.md: QIDO-RS, WADO-RS.
"""

from __future__ import annotations

import re
from urllib.parse import quote

VERSION = "/v2"
_UID = re.compile(r"[0-9.]{0,63}[0-9]")


def is_uid(text: str | None) -> bool:
    """Whether the service takes this as a UID in a path; it refuses (400) what is none.

    design/service-protocol.md: STOW-RS.
    """
    return text is not None and _UID.fullmatch(text) is not None


def route(partition: str | None, *parts: str) -> str:
    """The path of ``parts`` in a partition; without one, where the service has no partitions."""
    segments = ("partitions", partition, *parts) if partition else parts
    return "/".join((VERSION, *(quote(part, safe="") for part in segments)))


def instance_route(partition: str | None, study: str, series: str, instance: str) -> str:
    return route(partition, "studies", study, "series", series, "instances", instance)
