"""What the service indexes of one attribute of a data set: its first value, or why it cannot.

design/service-protocol.md: Extended query tags.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dicom_emulator.dicom.vr_rules import index_violation

UNEXPECTED_VR = "The extended query tag VR is not expected."
_PN_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_BLOCKS = range(0x10, 0x100)

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute by its tag (8 hex digits) and VR; a private one by its creator, in whatever block a file has it."""

    path: str
    vr: str
    private_creator: str | None = None

    def place(self, dataset: Json) -> str | None:
        """The name of its element in DICOM JSON; None when a private one has no block there."""
        if self.private_creator is None:
            return self.path
        group, element = self.path[:4], self.path[6:]
        blocks = (block for block in _BLOCKS if _first(dataset.get(f"{group}00{block:02X}")) == self.private_creator)
        block = next(blocks, None)
        return None if block is None else f"{group}{block:02X}{element}"

    def value(self, dataset: Json) -> Any:
        """The first value, as it is in DICOM JSON; None when there is none, or the index cannot take it."""
        return None if self.violation(dataset) else self._first_value(dataset)

    def violation(self, dataset: Json) -> str | None:
        """Why the index cannot take its value; null and empty are no violation, and not indexed."""
        element = self._element(dataset)
        value = self._first_value(dataset)
        if element is None or value is None:
            return None
        if element.get("vr") != self.vr:
            return UNEXPECTED_VR
        return index_violation(self.vr, _text(value))

    def _element(self, dataset: Json) -> Json | None:
        name = self.place(dataset)
        element = None if name is None else dataset.get(name)
        return element if isinstance(element, dict) else None

    def _first_value(self, dataset: Json) -> Any:
        return _first(self._element(dataset))


def _first(element: Json | None) -> Any:
    value = next(iter((element or {}).get("Value", ())), None)
    return None if value in ("", {}) else value


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "=".join(str(value.get(group, "")) for group in _PN_GROUPS).rstrip("=")
    return str(value)
