"""Bulk update of studies: `POST /v2/studies/$bulkUpdate` (service-protocol §4.5)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from dicom_etl.emulator.answers import dicom_json, plain_json
from dicom_etl.emulator.bodies import read_body
from dicom_etl.emulator.dicomjson import element_json
from dicom_etl.emulator.elements import Element
from dicom_etl.emulator.errors import BadRequest, Conflict, NotFound
from dicom_etl.emulator.holdings import Instance
from dicom_etl.emulator.jsontext import loads
from dicom_etl.emulator.parameters import refuse_tags
from dicom_etl.emulator.rewriting import NotRewritable, rewrite_file
from dicom_etl.emulator.routing import partition_of, service_of, version_of
from dicom_etl.emulator.service import DicomService, Metadata
from dicom_etl.emulator.stow import failed_attributes
from dicom_etl.emulator.uids import InstanceKey, is_valid_uid
from dicom_etl.emulator.validation import comment
from dicom_etl.emulator.vr_rules import full_violation

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
"""The tags a change dataset may have (Core/Features/Update/UpdateTags.cs and AD)."""


@dataclass(frozen=True)
class UpdateRequest:
    """Studies without padding, and the change as DICOM JSON the way metadata writes it."""

    studies: tuple[str, ...]
    change: Mapping[str, Any]


class BadChange(Exception):
    """A change dataset with tags or values that are not taken; `comments` say which."""

    def __init__(self, comments: list[str]) -> None:
        super().__init__("bad change dataset")
        self.comments = comments


async def post_bulk_update(request: Request) -> Response:
    """202 with the operation's id and href; 400, 404 (API v1), or 409 while another update runs."""
    if version_of(request) < 2:
        raise NotFound("")
    refuse_tags(request)
    service, partition = service_of(request), partition_of(request)
    try:
        asked = read_request(await read_body(request, service.options.max_body_bytes))
    except BadChange as error:
        return dicom_json({"00741048": failed_attributes(error.comments)}, 400)
    if service.operations.is_running("update"):
        raise Conflict("There is already an active update operation.")
    work = partial(update_studies, service, partition, asked)
    polls, now = service.options.operation_polls, service.clock.now_ticks()
    operation = await run_in_threadpool(service.operations.start, "update", polls, now, work)
    href = f"{str(request.base_url).rstrip('/')}/v{request.path_params['version']}/operations/{operation.id}"
    return plain_json({"id": operation.id, "href": href}, 202, {"location": href})


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
    return UpdateRequest(tuple(dict.fromkeys(uid.rstrip(" ") for uid in studies)), _change_json(change))


def update_studies(service: DicomService, partition: str, asked: UpdateRequest) -> tuple[bool, dict[str, Any]]:
    """Applies the change study by study; returns whether all succeeded, and the operation's results.

    A study is changed whole or not at all; unknown studies count for nothing.
    """
    updated = failed = instances = 0
    for study in asked.studies:
        held = service.instances(partition, study)
        try:
            rows = service.update_together([_changed(one, asked.change) for one in held]) if held else []
        except (NotRewritable, KeyError, OSError):
            failed += 1
            continue
        updated += bool(rows)
        instances += len(rows)
    results: dict[str, Any] = {
        "studyProcessed": updated + failed,
        "studyUpdated": updated,
        "studyFailed": failed,
        "instanceUpdated": instances,
    }
    if failed:
        results["errors"] = [f"Failed to update {failed} of the studies."]
    return failed == 0, results


def _changed(instance: Instance, change: Mapping[str, Any]) -> tuple[InstanceKey, Metadata, bytes | None]:
    """Key, metadata with the change overlaid, and the file with the change written into it."""
    metadata: dict[str, Any] = loads(instance.current.metadata) | dict(change)
    file = instance.current.file
    return (
        instance.key,
        dict(sorted(metadata.items())),
        None if file is None else rewrite_file(file, change),
    )


def _change_json(change: Mapping[str, Any]) -> dict[str, Any]:
    comments, result = [], {}
    for name, member in change.items():
        tag = tag_for_keyword(name) or _tag(name)
        if tag not in UPDATABLE:
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
