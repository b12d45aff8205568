"""STOW-RS: files become instances, and the answer says what became of each (design/service-protocol.md: STOW-RS)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from dicom_emulator.dicom.dicomjson import NotWritable, dataset_json
from dicom_emulator.dicom.elements import Elements, NotDicom, read_file
from dicom_emulator.dicom.validation import KEY_UIDS, SOP_CLASS_UID, Validation, first_text, validate
from dicom_emulator.http.answers import dicom_json, require_dicom_json
from dicom_emulator.http.bodies import read_body
from dicom_emulator.http.errors import (
    BadRequest,
    FailedDependency,
    InstanceExists,
    InstancePending,
    UnsupportedMediaType,
)
from dicom_emulator.http.multipart import read_parts
from dicom_emulator.http.parameters import refuse_tags
from dicom_emulator.http.routing import partition_of, resource_root, service_of, version_of
from dicom_emulator.state.service import DicomService
from dicom_emulator.state.uids import InstanceKey, uid_from_path

PROCESSING_FAILURE = 272
VALIDATION_FAILURE = 43264
ALREADY_EXISTS = 45070
PENDING = 45071
VALIDATION_WARNING = 1
SOP_CLASS_MISMATCH = 45063

_DICOM = "application/dicom"
_SEVERAL_VALUES = "One or more indexed DICOM attributes have multiple values; only the first is indexed."
_PREAMBLE = bytes(128)


@dataclass(frozen=True)
class Stored:
    """What became of one file; `failure` is None when it was stored.

    `comments` are the reasons (of the failure, or the warnings), without other attributes' values than
    those they complain about.
    """

    sop_class_uid: str
    sop_instance_uid: str
    key: InstanceKey | None = None
    failure: int | None = None
    warning: int | None = None
    comments: tuple[str, ...] = ()
    several_values: bool = False


async def post_studies(request: Request) -> Response:
    """`POST /studies` and `/studies/{study}`: 200, 202, 204 or 409 with one item per file."""
    version, service = version_of(request), service_of(request)
    refuse_tags(request)
    require_dicom_json(request)
    media_type = request.headers.get("content-type", "")
    study = request.path_params.get("study")
    required_study = None if study is None else uid_from_path("StudyInstanceUid", study)
    partition = partition_of(request, create=True)
    body_type(media_type)
    body = await read_body(request, service.options.max_body_bytes)
    files = read_files(media_type, body)
    if not files:
        return Response(status_code=204)
    outcomes = await run_in_threadpool(store_files, service, files, partition, version, required_study)
    return _answer(request, outcomes, version, required_study)


def store_files(
    service: DicomService, files: Sequence[bytes], partition: str, version: int, required_study: str | None
) -> list[Stored]:
    """Stores files one by one; see `store_file`."""
    return [store_file(service, file, partition, version, required_study) for file in files]


def store_file(
    service: DicomService, file: bytes, partition: str, version: int = 2, required_study: str | None = None
) -> Stored:
    """Stores one file and says what became of it. Raises FailedDependency (424) when the lake fails."""
    try:
        dicom = read_file(file)
    except NotDicom:
        return Stored("", "", failure=PROCESSING_FAILURE)
    validation = validate(dicom.elements, version, required_study, service.query_tags.standard_vrs())
    uids = first_text(dicom.elements, SOP_CLASS_UID), first_text(dicom.elements, KEY_UIDS[2])
    if validation.errors:
        return Stored(*uids, failure=VALIDATION_FAILURE, comments=tuple(validation.errors.values()))
    key = _key(dicom.elements, partition)
    failure = _create(service, key, dicom.elements, validation, file)
    if failure is not None:
        return Stored(*uids, key=key, failure=failure)
    mismatch = SOP_CLASS_MISMATCH if dicom.is_implicit_vr else None
    return Stored(
        *uids,
        key=key,
        warning=VALIDATION_WARNING if validation.warnings else mismatch,
        comments=tuple(validation.warnings.values()),
        several_values=validation.several_values,
    )


def _create(
    service: DicomService, key: InstanceKey, elements: Elements, validation: Validation, file: bytes
) -> int | None:
    try:
        metadata = dataset_json(validation.without_invalid(elements))
        uids = tuple(first_text(elements, tag) for tag in KEY_UIDS)
        service.create(key, metadata, _PREAMBLE + file[128:], uids=(uids[0], uids[1], uids[2]))
    except NotWritable:
        return PROCESSING_FAILURE
    except InstanceExists:
        return ALREADY_EXISTS
    except InstancePending:
        return PENDING
    except OSError as error:
        raise FailedDependency from error
    return None


def _key(elements: Elements, partition: str) -> InstanceKey:
    """The key without the padding that the file's UIDs may have."""
    return InstanceKey(partition, *(first_text(elements, tag).rstrip(" ") for tag in KEY_UIDS))


def body_type(media_type: str) -> tuple[str, dict[bytes, bytes]]:
    """Type and parameters of a body that STOW reads. Raises UnsupportedMediaType (415), BadRequest (400)."""
    name, options = parse_options_header(media_type)
    text = name.decode("latin-1").lower()
    if text == _DICOM:
        return text, options
    if text != "multipart/related" or not options.get(b"boundary"):
        raise UnsupportedMediaType(f"The specified content type '{media_type}' is not supported.")
    if b"start" in options:
        raise BadRequest("The start parameter of multipart/related is not supported.")
    return text, options


def read_files(media_type: str, body: bytes) -> list[bytes]:
    """The files of a body of either type. Raises UnsupportedMediaType (415) for a part of another type."""
    name, options = body_type(media_type)
    if name == _DICOM:
        return [body]
    parts = read_parts(body, options[b"boundary"])
    default = options.get(b"type", b"").decode("latin-1")
    for number, part in enumerate(parts):
        declared = part.headers.get("content-type", default if number == 0 else "")
        if parse_options_header(declared)[0].decode("latin-1").lower() != _DICOM:
            raise UnsupportedMediaType(f"The specified content type '{declared}' is not supported.")
    return [bytes(part.content) for part in parts]


def _answer(request: Request, outcomes: list[Stored], version: int, required_study: str | None) -> Response:
    root = resource_root(request)
    stored = [one for one in outcomes if one.failure is None]
    failed = [one for one in outcomes if one.failure is not None]
    body: dict[str, Any] = {}
    if stored and required_study is not None:
        body["00081190"] = {"vr": "UR", "Value": [f"{root}/studies/{required_study}"]}
    if failed:
        body["00081198"] = {"vr": "SQ", "Value": [_failure_item(one) for one in failed]}
    if stored:
        body["00081199"] = {"vr": "SQ", "Value": [_success_item(one, root, version) for one in stored]}
    warned = version >= 2 and any(one.warning is not None for one in stored)
    status = 409 if not stored else 202 if failed or warned else 200
    several = any(one.several_values for one in stored)
    headers = {"warning": f'299 - "{_SEVERAL_VALUES}"'} if several else None
    return dicom_json(body, status, headers)


def _success_item(one: Stored, root: str, version: int) -> dict[str, Any]:
    item = _referenced(one)
    if one.key is not None:
        url = f"{root}/studies/{one.key.study}/series/{one.key.series}/instances/{one.key.sop}"
        item["00081190"] = {"vr": "UR", "Value": [url]}
    if one.warning is not None:
        item["00081196"] = {"vr": "US", "Value": [one.warning]}
    if version >= 2:
        item["00741048"] = failed_attributes(one.comments)
    return item


def _failure_item(one: Stored) -> dict[str, Any]:
    item = _referenced(one) | {"00081197": {"vr": "US", "Value": [one.failure]}}
    if one.comments:
        item["00741048"] = failed_attributes(one.comments)
    return item


def _referenced(one: Stored) -> dict[str, Any]:
    uids = {"00081150": one.sop_class_uid, "00081155": one.sop_instance_uid}
    return {tag: {"vr": "UI", "Value": [uid]} for tag, uid in uids.items() if uid}


def failed_attributes(comments: Sequence[str]) -> dict[str, Any]:
    """A FailedAttributesSequence of error comments; without `Value` when there are none."""
    items = [{"00000902": {"vr": "LO", "Value": [comment]}} for comment in comments]
    return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
