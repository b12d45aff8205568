"""Whether the service takes a file: required attributes, VR rules, and what API v1 and v2 make of failures.

design/service-protocol.md: DICOM JSON, STOW-RS. The open server: StoreDatasetValidator.cs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dicom_emulator.dicom.elements import Element, Elements
from dicom_emulator.dicom.vr_rules import full_violation, minimum_violation
from dicom_emulator.state.uids import is_valid_uid

SOP_CLASS_UID = 0x00080016
SOP_INSTANCE_UID = 0x00080018
PATIENT_ID = 0x00100020
STUDY_INSTANCE_UID = 0x0020000D
SERIES_INSTANCE_UID = 0x0020000E

KEY_UIDS = (STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID)

INDEXED_VRS = {
    0x00080020: "DA",
    0x00080050: "SH",
    0x00080060: "CS",
    0x00080090: "PN",
    0x00081030: "LO",
    0x00081090: "LO",
    0x00100010: "PN",
    PATIENT_ID: "LO",
    0x00100030: "DA",
    STUDY_INSTANCE_UID: "UI",
    SERIES_INSTANCE_UID: "UI",
    SOP_INSTANCE_UID: "UI",
    0x00400244: "DA",
}
"""The attributes that the service indexes for search, and their VRs (QueryLimit.cs)."""


@dataclass
class Validation:
    """What is wrong with a file: `errors` refuse it, `warnings` (by tag, in order) only tell.

    Texts have the form `DICOM100: (gggg,eeee) - reason`.
    """

    errors: dict[int, str] = field(default_factory=dict)
    warnings: dict[int, str] = field(default_factory=dict)
    several_values: bool = False
    """An indexed single-value attribute has several values (HTTP Warning header)."""

    def without_invalid(self, elements: Elements) -> Elements:
        """The attributes that metadata keeps: those warned about are gone, from the top level only.

        design/service-protocol.md: DICOM JSON.
        """
        doomed = self.warnings.keys() - set(KEY_UIDS)
        return {tag: element for tag, element in elements.items() if tag not in doomed}


def tag_text(tag: int) -> str:
    """`(gggg,eeee)`, lower-case."""
    return f"({tag >> 16:04x},{tag & 0xFFFF:04x})"


def comment(tag: int, reason: str) -> str:
    """The service's words about one attribute."""
    return f"DICOM100: {tag_text(tag)} - {reason}"


def validate(
    elements: Elements, version: int, required_study: str | None, more_indexed: Mapping[int, str] | None = None
) -> Validation:
    """Checks a file for API v1 or v2; `required_study` is the study UID of the URL, if any.

    `more_indexed` are the extended query tags of the standard, and their VRs.
    """
    indexed = INDEXED_VRS | dict(more_indexed or {})
    result = Validation(several_values=any(len(elements[tag].values) > 1 for tag in indexed.keys() & elements.keys()))
    for tag, reason in _unusable(elements, version, required_study):
        result.errors.setdefault(tag, comment(tag, reason))
    if version == 1:
        for tag in indexed.keys() & elements.keys():
            _note(result.errors, tag, minimum_violation(elements[tag], indexed[tag]))
        return result
    for tag in (*KEY_UIDS, SOP_CLASS_UID, PATIENT_ID):
        if tag in elements:
            _note(result.errors, tag, minimum_violation(elements[tag], elements[tag].vr))
    for tag, element in _walk(elements):
        empty = _is_empty_patient_id(tag, element)
        _note(result.warnings, tag, _missing(tag) if empty else full_violation(element))
    return result


def _unusable(elements: Elements, version: int, required_study: str | None) -> Iterator[tuple[int, str]]:
    """What refuses a file in both versions: a required attribute missing, no UID, another study's."""
    for tag in (SOP_CLASS_UID, *KEY_UIDS):
        if not first_text(elements, tag):
            yield tag, _missing(tag)
    if PATIENT_ID not in elements or (version == 1 and not first_text(elements, PATIENT_ID)):
        yield PATIENT_ID, _missing(PATIENT_ID)
    for tag in (SOP_CLASS_UID, *KEY_UIDS):
        text = first_text(elements, tag)
        if text and not is_valid_uid(text):
            yield tag, "Content does not validate VR UI: it is not a valid identifier."
    study = first_text(elements, STUDY_INSTANCE_UID)
    if required_study is not None and study and study.rstrip(" ") != required_study:
        yield STUDY_INSTANCE_UID, "The StudyInstanceUid in the payload does not match the specified one."


def first_text(elements: Elements, tag: int) -> str:
    """The first value of a text attribute, `""` when it has none."""
    element = elements.get(tag)
    return str(element.values[0]) if element is not None and element.values else ""


def _missing(tag: int) -> str:
    return f"The required tag '{tag_text(tag)}' is missing."


def _is_empty_patient_id(tag: int, element: Element) -> bool:
    return tag == PATIENT_ID and not any(str(value).strip() for value in element.values)


def _walk(elements: Elements) -> Iterator[tuple[int, Element]]:
    """Every element but sequences themselves, nested ones too."""
    for tag, element in elements.items():
        if element.vr == "SQ":
            for item in element.values:
                yield from _walk(item)
        else:
            yield tag, element


def _note(comments: dict[int, str], tag: int, reason: str | None) -> None:
    if reason is not None:
        comments.setdefault(tag, comment(tag, reason))
