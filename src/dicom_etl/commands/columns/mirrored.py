"""The column of an extended query tag of the service: the same tag, level and type."""

from __future__ import annotations

from dicom_etl.core.errors import UsageError
from dicom_etl.dicomweb.query_tags import QueryTag
from dicom_etl.outputs.columns.tagpath import tag_path
from dicom_etl.outputs.columns.vr import TYPES, rule_of

# What is written behind the colon for a type, where no dictionary knows the VR.
_MODIFIERS = {"string": "text", "long": "long", "double": "double", "date": "date", "timestamp": "timestamp"}


def mirrored_text(tag: QueryTag) -> str:
    """The tag as `columns add` takes it. Raises UsageError for one that can be no column."""
    written = _written(tag)
    return f"{written} level={tag.level.lower()}"


def _written(tag: QueryTag) -> str:
    """A private tag is typed by the service's VR, and so is one that no dictionary has; PS3.6 says it of all others."""
    name = tag.path.strip()
    number = f"{name[:4]},{name[4:]}" if _is_number(name) else name
    if tag.private_creator:
        number += f'@"{tag.private_creator.strip()}"'
    rule = rule_of(tag.vr)
    if rule is None:
        raise UsageError(f"{number}: the service says VR {tag.vr}, of which there is no column")
    typed = f"{number}:{_MODIFIERS[TYPES[rule.forms[rule.default]]]}"
    if tag.private_creator and _is_path(typed):
        return typed
    return number if _is_path(number) else typed


def _is_number(text: str) -> bool:
    return len(text) == 8 and all(digit in "0123456789abcdefABCDEF" for digit in text)


def _is_path(text: str) -> bool:
    try:
        tag_path(text)
    except UsageError:
        return False
    return True
