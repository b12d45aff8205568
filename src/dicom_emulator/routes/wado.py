"""WADO-RS: files and metadata of a study, a series or an instance; 404 for what is not there.

design/service-protocol.md: WADO-RS.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from dicom_emulator.dicom.elements import transfer_syntax
from dicom_emulator.http.answers import DICOM_JSON_TYPE, accepted, require_dicom_json
from dicom_emulator.http.errors import BadRequest, FailedDependency, NotAcceptable, NotFound
from dicom_emulator.http.multipart import write_parts
from dicom_emulator.http.parameters import refuse_tags
from dicom_emulator.http.routing import level_of, partition_of, path_uids, service_of, version_of
from dicom_emulator.state.instances import Instance
from dicom_emulator.state.service import DicomService
from dicom_emulator.state.uids import is_valid_uid
from dicom_emulator.state.versions import Version

_DICOM = "application/dicom"


def get_files(request: Request) -> Response:
    """`GET /studies/{s}[/series/{r}[/instances/{i}]]`: the stored bytes, nothing is transcoded.

    multipart/related, or for an instance also a single application/dicom. Raises NotAcceptable (406) when
    the asked transfer syntax is not the stored one; when none is asked the stored one is given (the real
    service would transcode to 1.2.840.10008.1.2.1).
    """
    versions = [_shown(one, _wants_original(request)) for one in find_instances(request)]
    single, syntax = _asked(request, can_be_single="sop" in request.path_params)
    contents = [_file(service_of(request), version) for version in versions]
    if syntax not in (None, "*") and any(transfer_syntax(content) != syntax for content in contents):
        raise NotAcceptable("The specified transcoding is not supported.")
    if single:
        return Response(contents[0], media_type=_DICOM)
    body, media_type = write_parts(contents, _DICOM)
    return Response(body, media_type=media_type)


def get_metadata(request: Request) -> Response:
    """`.../metadata`: DICOM JSON of every instance as one array; 304 when If-None-Match has the ETag."""
    require_dicom_json(request)
    versions = [_shown(one, _wants_original(request)) for one in find_instances(request)]
    etag = str(max(version.watermark for version in versions))
    if "sop" not in request.path_params:
        etag += f"-{len(versions)}"
    headers = {"etag": etag}
    known = {tag.strip().strip('"') for tag in request.headers.get("if-none-match", "").split(",")}
    if etag in known:
        return Response(status_code=304, headers=headers)
    body = b"[" + b",".join(version.metadata for version in versions) + b"]"
    return Response(body, headers=headers, media_type=DICOM_JSON_TYPE)


def find_instances(request: Request) -> list[Instance]:
    """The live instances that the path names, by watermark. Raises NotFound (404), BadRequest (400)."""
    version_of(request)
    refuse_tags(request)
    uids = path_uids(request)
    instances = service_of(request).instances(partition_of(request), *uids)
    if not instances:
        raise NotFound(f"The specified {level_of(uids)} cannot be found.")
    return sorted(instances, key=lambda instance: instance.current.watermark)


def find_file(request: Request) -> bytes:
    """The file of the one instance that the path names. Raises as `find_instances`, FailedDependency (424) too."""
    (instance,) = find_instances(request)
    return _file(service_of(request), _shown(instance, _wants_original(request)))


def _file(service: DicomService, version: Version) -> bytes:
    """The version's file. Raises FailedDependency (424) when it is gone from the lake or other than stored."""
    if version.file is None:
        raise NotFound("The specified instance has no file.")
    if service.lake is not None and version.file_path is not None:
        try:
            unchanged = service.lake.read(version.file_path) == version.file
        except OSError:
            unchanged = False
        if not unchanged:
            raise FailedDependency
    return version.file


def _shown(instance: Instance, original: bool) -> Version:
    return instance.original if original and instance.original is not None else instance.current


def _wants_original(request: Request) -> bool:
    return request.headers.get("msdicom-request-original", "").lower() == "true"


def _asked(request: Request, can_be_single: bool) -> tuple[bool, str | None]:
    """Whether a single file is asked for, and in which transfer syntax (None: not said)."""
    for media_type, parameters in accepted(request):
        syntax = parameters.get("transfer-syntax")
        if syntax not in (None, "*") and not is_valid_uid(str(syntax)):
            raise BadRequest("The specified Transfer Syntax value is not valid.")
        if media_type == "multipart/related" and parameters.get("type", _DICOM).lower() in (_DICOM, "*/*"):
            return False, syntax
        if media_type in (_DICOM, "application/*") and can_be_single:
            return True, syntax
        if media_type == "*/*":
            return can_be_single, syntax
    raise NotAcceptable
