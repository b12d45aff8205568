"""What pydicom reads of a file, in the form that a tag column should have it."""

from __future__ import annotations

from datetime import date
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.multival import MultiValue

from dicom_etl.core.errors import UsageError
from dicom_etl.outputs.columns.tagpath import TagPath, tag_path

BINARY = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))


def path_of(element: DataElement) -> TagPath | None:
    """The column's path for a value of a file; None where there is no column for it."""
    tag = element.tag
    text = f"{tag.group:04X},{tag.element:04X}"
    if tag.is_private:
        if element.private_creator is None:
            return None
        text = f'{tag.group:04X},xx{tag.element & 0xFF:02X}@"{str(element.private_creator).strip(" ")}"'
    try:
        return tag_path(text)
    except UsageError:
        return None


def expected(element: DataElement, path: TagPath) -> Any:
    """The first value as the column should have it, from pydicom's own types."""
    value = element.value
    first = value[0] if isinstance(value, MultiValue | list) and len(value) else value
    if first is None or isinstance(first, MultiValue | list) or not str(first).strip(" \0"):
        return None
    if path.form == "long":
        return int(first)
    if path.form in ("decimal", "float"):
        return float(first)
    if element.VR == "PN":
        return first.alphabetic.strip(" \0") or None
    text = str(first).strip(" \0")
    if path.form == "date":
        return date(int(text[:4]), int(text[4:6]), int(text[6:])) if len(text) == 8 and text.isdecimal() else None
    if path.form == "time":
        digits = text.replace(":", "")
        parts = [digits[at : at + 2] for at in (0, 2, 4) if digits[at : at + 2]]
        return ":".join(parts) + digits[6:] if digits.replace(".", "").isdecimal() else None
    if element.VR == "AT":
        return f"{int(first):08X}"
    return text
