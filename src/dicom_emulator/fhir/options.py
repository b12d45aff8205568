"""What can be chosen when a FHIR server starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class FhirOptions:
    """The server's fixed properties; clock and faults are set while it runs. Defaults are as Azure's where it tells."""

    fhir_version: str = "4.0.1"

    tokens: Mapping[str, str] | None = None
    """Bearer tokens and their roles (`owner` writes, `reader` does not, `nobody`); None: none is asked for."""

    most_entries: int = 500
    max_body_bytes: int = 64 << 20
    """A bundle with more, or longer, is refused with 413."""

    page_size: int = 50
    """How many resources a page of a search has at most, unless `_count` asks for fewer."""

    refuse_whole: bool = False
    """Whether one entry that is refused makes the whole bundle 422, as some servers have it."""

    mismatch_status: int = 412
    """The answer to an `If-Match` of another version; HAPI's is 409."""

    keep_referenced: bool = False
    """Whether a resource that others refer to cannot be deleted (409)."""

    loose_identifiers: bool = False
    """Whether identifiers are found whatever their case, and whatever their system."""

    quoting: str = ""
    """What every OperationOutcome quotes beside the value that it is about; tests put a name there."""

    linked_base: str | None = None
    """The address that links begin with; None: the one that was asked."""

    operation_polls: int = 1
    """How often an `$import` answers that it is running before it is done."""

    meet: int = 1
    patience_seconds: float = 5.0
    """A bundle is answered when so many are in flight at once, or after so long."""
