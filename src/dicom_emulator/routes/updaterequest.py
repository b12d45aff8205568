"""What a bulk update asks for: studies, a change, and UIDs that change.

design/service-protocol.md: Bulk update, Change of UIDs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicom_emulator.dicom.dicomjson import element_json
from dicom_emulator.dicom.elements import Element
from dicom_emulator.dicom.validation import comment
from dicom_emulator.dicom.vr_rules import full_violation
from dicom_emulator.http.errors import BadRequest
from dicom_emulator.state.uids import is_valid_uid

MOST_STUDIES = 50

_UPDATABLE_KEYWORDS = (
    "AccessionNumber", "BranchOfService", "BreedRegistrationNumber",
    "ConfidentialityConstraintOnPatientDataDescription", "CountryOfResidence", "EthnicGroup",
    "IssuerOfPatientID", "MedicalRecordLocator", "MilitaryRank", "Occupation", "OtherPatientIDs",
    "OtherPatientNames", "PatientAddress", "PatientAge", "PatientBirthDate", "PatientBirthName",
    "PatientBirthTime", "PatientBreedDescription", "PatientComments", "PatientID",
    "PatientMotherBirthName", "PatientName", "PatientReligiousPreference", "PatientSex", "PatientSize",
    "PatientSpeciesDescription", "PatientTelephoneNumbers", "PatientWeight", "QualityControlSubject",
    "ReferringPhysicianName", "RegionOfResidence", "ResponsibleOrganization", "ResponsiblePerson",
    "ResponsiblePersonRole", "StudyDescription", "TypeOfPatientID",
)  # fmt: skip
UPDATABLE = frozenset(tag_for_keyword(keyword) for keyword in _UPDATABLE_KEYWORDS)
"""The tags a change dataset may have (design/service-protocol.md: Bulk update)."""


_UIDS = {0x0020000D: "study", 0x0020000E: "series", 0x00080018: "sop"}


@dataclass(frozen=True)
class UpdateRequest:
    """Studies without padding, and the change as DICOM JSON the way metadata writes it.

    `new_uids` are those in the change, by level (study, series, sop); `series` and `sop` narrow the instances.
    """

    studies: tuple[str, ...]
    change: Mapping[str, Any]
    new_uids: Mapping[str, str] = field(default_factory=dict)
    series: str | None = None
    sop: str | None = None


class BadChange(Exception):
    """A change dataset with tags or values that are not taken; `comments` say which."""

    def __init__(self, comments: list[str]) -> None:
        super().__init__("bad change dataset")
        self.comments = comments


def read_request(body: bytes) -> UpdateRequest:
    """The request in a body. Raises BadRequest (400, text) and BadChange (400, DICOM JSON)."""
    try:
        document = json.loads(body)
    except ValueError:
        raise BadRequest("The request body is not valid JSON.") from None
    fields = {str(name).lower(): value for name, value in document.items()} if isinstance(document, dict) else {}
    studies, change = fields.get("studyinstanceuids"), fields.get("changedataset")
    if not isinstance(studies, list) or not 1 <= len(studies) <= MOST_STUDIES:
        raise BadRequest(f"Between 1 and {MOST_STUDIES} studyInstanceUids are required.")
    if not all(isinstance(uid, str) and is_valid_uid(uid) for uid in studies):
        raise BadRequest("DICOM Identifier 'StudyInstanceUID' is invalid.")
    if not isinstance(change, dict):
        raise BadRequest("The changeDataset is required.")
    studies = tuple(dict.fromkeys(uid.rstrip(" ") for uid in studies))
    series, sop = (_filter(fields.get(name)) for name in ("seriesinstanceuid", "sopinstanceuid"))
    return _uids_checked(UpdateRequest(studies, changed := _change_json(change), _new_uids(changed), series, sop))


def _filter(uid: Any) -> str | None:
    if uid is not None and not (isinstance(uid, str) and is_valid_uid(uid)):
        raise BadRequest("DICOM Identifier is invalid.")
    return None if uid is None else str(uid).rstrip(" ")


def _new_uids(change: Mapping[str, Any]) -> dict[str, str]:
    elements = {level: change[f"{tag:08X}"] for tag, level in _UIDS.items() if f"{tag:08X}" in change}
    return {level: str((element.get("Value") or [""])[0]).rstrip(" ") for level, element in elements.items()}


def _uids_checked(asked: UpdateRequest) -> UpdateRequest:
    """What the service's documentation asks of a change of UIDs. Raises BadRequest (400)."""
    if asked.new_uids and len(asked.studies) > 1:
        raise BadRequest("Only one study can be updated when UIDs change.")
    if (asked.sop is not None or "sop" in asked.new_uids) and asked.series is None:
        raise BadRequest("The seriesInstanceUid is required.")
    if not all(is_valid_uid(uid) for uid in asked.new_uids.values()):
        raise BadRequest("DICOM Identifier is invalid.")
    return asked


def _change_json(change: Mapping[str, Any]) -> dict[str, Any]:
    comments, result = [], {}
    for name, member in change.items():
        tag = tag_for_keyword(name) or _tag(name)
        if tag not in UPDATABLE and tag not in _UIDS:
            shown = f"({name[:4]},{name[4:]})".lower()
            comments.append(f"DICOM100: {shown} - The attribute is not supported by bulk update.")
            continue
        element = _element(dictionary_VR(tag), member)
        reason = "The value is not DICOM JSON of its VR." if element is None else full_violation(element)
        if element is None or reason is not None:
            comments.append(comment(tag, str(reason)))
        else:
            result[f"{tag:08X}"] = element_json(element)
    if comments:
        raise BadChange(comments)
    return dict(sorted(result.items()))


def _tag(name: str) -> int:
    try:
        return int(name, 16)
    except ValueError:
        return -1


def _element(vr: str, member: Any) -> Element | None:
    """The element of a DICOM JSON member; None when VR or values are not those of its tag."""
    if not isinstance(member, dict) or member.get("vr", vr) != vr:
        return None
    values = member.get("Value", [])
    if not isinstance(values, list):
        return None
    texts = [_text(vr, value) for value in values]
    return None if None in texts else Element(vr, tuple(texts))


def _text(vr: str, value: Any) -> str | None:
    if value is None:
        return ""
    if vr == "PN":
        if not isinstance(value, dict):
            return None
        groups = [str(value.get(group, "")) for group in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(groups).rstrip("=")
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
