"""UIDs as the service takes them, and the key of an instance."""

from __future__ import annotations

import re
from typing import NamedTuple

from dicom_emulator.http.errors import BadRequest

DEFAULT_PARTITION = "Microsoft.Default"
_UID = re.compile(r"[0-9.]*[0-9]")


class InstanceKey(NamedTuple):
    """What identifies an instance; UIDs without padding. The same SOP UID in another series is another."""

    partition: str
    study: str
    series: str
    sop: str


def instance_key(study: str, series: str, sop: str, partition: str = DEFAULT_PARTITION) -> InstanceKey:
    """The key of an instance, by default in the one partition of a service without data partitions."""
    return InstanceKey(partition, study, series, sop)


def is_valid_uid(text: str) -> bool:
    """Digits and dots, a digit last, at most 64; trailing spaces and leading zeros are let through.

    design/service-protocol.md: STOW-RS (UidValidation).
    """
    trimmed = text.rstrip(" ")
    return len(trimmed) <= 64 and _UID.fullmatch(trimmed) is not None


def uid_from_path(name: str, text: str) -> str:
    """The UID of a URL segment, without padding. Raises BadRequest (400) when it is none."""
    if not is_valid_uid(text):
        raise BadRequest(
            f"DICOM Identifier '{name}' is invalid. Value length should not exceed the maximum length of 64 "
            "characters. Value should contain characters in '0'-'9' and '.'. "
            "Each component must start with non-zero number."
        )
    return text.rstrip(" ")
