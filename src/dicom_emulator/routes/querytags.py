"""Extended query tags: added, listed, enabled, deleted, and their errors, at the service's root.

design/service-protocol.md: Extended query tags.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from dicom_emulator.http.answers import plain_json
from dicom_emulator.http.bodies import read_body
from dicom_emulator.http.errors import BadRequest, Conflict, NotFound, UnsupportedMediaType
from dicom_emulator.http.parameters import INT32_MAX, integer, query_of
from dicom_emulator.http.routing import service_of, version_of
from dicom_emulator.routes.tagrequest import read_entries, read_query_status, tag_of_path
from dicom_emulator.state.operations import new_id
from dicom_emulator.state.querytags import MOST_TAGS, QueryTag, ReindexRuns, TagError, TagExists, TooManyTags
from dicom_emulator.state.service import DicomService
from dicom_emulator.state.timestamps import timestamp_text

_REINDEX_RUNS = "There is already an active re-index operation with ID '{}'."


async def post_tags(request: Request) -> Response:
    """202 with the id and href of the reindex. 400 for a tag that cannot be, 409 for one that is, or while one runs."""
    service, root = service_of(request), _root(request)
    entries = read_entries(await _body(request))
    operation = new_id()
    try:
        service.query_tags.add(entries, operation)
    except ReindexRuns as running:
        raise Conflict(_REINDEX_RUNS.format(running)) from None
    except TagExists:
        raise Conflict("One or more extended query tags already exist.") from None
    except TooManyTags:
        raise BadRequest(f"Extended query tags exceeds max allowed count '{MOST_TAGS}'.") from None
    start = partial(
        service.operations.start,
        "reindex",
        service.options.operation_polls,
        service.clock.now_ticks(),
        partial(_reindex, service, operation),
        operation_id=operation,
        resources=[f"{root}/extendedquerytags/{attribute.path}" for attribute, _ in entries],
    )
    await run_in_threadpool(start)
    href = f"{root}/operations/{operation}"
    return plain_json({"id": operation, "href": href}, 202, {"location": href})


def get_tags(request: Request) -> Response:
    """200 with a page of the tags, in the order they were added."""
    offset, limit = _page(request)
    tags = service_of(request).query_tags.all()[offset : offset + limit]
    return plain_json([_tag_json(tag, _root(request)) for tag in tags])


def get_tag(request: Request) -> Response:
    """200 with one tag. Raises BadRequest (400) for what is no path, NotFound (404)."""
    return plain_json(_tag_json(_tag(request), _root(request)))


def get_errors(request: Request) -> Response:
    """200 with a page of the instances that the tag's reindex could not index."""
    offset, limit = _page(request)
    with_partition = service_of(request).options.partitions
    errors = _tag(request).errors[offset : offset + limit]
    return plain_json([_error_json(error, with_partition) for error in errors])


async def patch_tag(request: Request) -> Response:
    """200 with the tag after its query status was set. Raises BadRequest (400), NotFound (404)."""
    tag = _tag(request)
    status = read_query_status(await _body(request))
    try:
        changed = service_of(request).query_tags.set_query_status(tag.attribute.path, status)
    except KeyError:
        raise _not_found(request) from None
    return plain_json(_tag_json(changed, _root(request)))


def delete_tag(request: Request) -> Response:
    """204. Raises BadRequest (400), NotFound (404), Conflict (409) while the tag is being added."""
    tag = _tag(request)
    try:
        service_of(request).query_tags.delete(tag.attribute.path)
    except ReindexRuns as running:
        raise Conflict(_REINDEX_RUNS.format(running)) from None
    except KeyError:
        raise _not_found(request) from None
    return Response(status_code=204)


def _reindex(service: DicomService, operation: str) -> tuple[bool, dict[str, Any]]:
    service.reindex(operation)
    return True, {}


def _root(request: Request) -> str:
    version_of(request)
    return f"{str(request.base_url).rstrip('/')}/v{request.path_params['version']}"


async def _body(request: Request) -> bytes:
    version_of(request)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaType(f"The specified content type '{media_type}' is not supported.")
    return await read_body(request, service_of(request).options.max_body_bytes)


def _page(request: Request) -> tuple[int, int]:
    version_of(request)
    query = query_of(request)
    offset = integer(query, "Offset", default=0, least=0, most=INT32_MAX, largest=INT32_MAX)
    return offset, integer(query, "Limit", default=100, least=1, most=200, largest=INT32_MAX)


def _tag(request: Request) -> QueryTag:
    version_of(request)
    path = f"{tag_of_path(request.path_params['tag']):08X}"
    try:
        return service_of(request).query_tags.find(path)
    except KeyError:
        raise _not_found(request) from None


def _not_found(request: Request) -> NotFound:
    path = request.path_params["tag"]
    return NotFound(f"The specified extended query tag with tag path {path} cannot be found.")


def _tag_json(tag: QueryTag, root: str) -> dict[str, Any]:
    address = f"{root}/extendedquerytags/{tag.attribute.path}"
    body: dict[str, Any] = {"status": tag.status, "level": tag.level}
    if tag.errors:
        body["errors"] = {"count": len(tag.errors), "href": f"{address}/errors"}
    if tag.operation is not None:
        body["operation"] = {"id": tag.operation, "href": f"{root}/operations/{tag.operation}"}
    body |= {"queryStatus": tag.query_status, "path": tag.attribute.path, "vr": tag.attribute.vr}
    creator = tag.attribute.private_creator
    return body if creator is None else body | {"privateCreator": creator}


def _error_json(error: TagError, with_partition: bool) -> dict[str, Any]:
    partition, study, series, sop = error.key
    body = {
        "studyInstanceUid": study,
        "seriesInstanceUid": series,
        "sopInstanceUid": sop,
        "createdTime": timestamp_text(error.ticks).removesuffix("+00:00"),
        "errorMessage": error.message,
    }
    return {"partitionName": partition} | body if with_partition else body
