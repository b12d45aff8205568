"""The routes outside the studies: health, partitions and operations.

design/service-protocol.md: Operations, Partitions.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from dicom_emulator.http.answers import plain_json
from dicom_emulator.http.errors import BadRequest, NotFound
from dicom_emulator.http.routing import service_of, version_of
from dicom_emulator.state.lake import check_health
from dicom_emulator.state.service import DicomService
from dicom_emulator.state.timestamps import timestamp_text


def get_health(request: Request) -> Response:
    """`GET /health/check`: 200, or 503 when the lake does not take part."""
    problem = health_problem(service_of(request))
    status = "Healthy" if problem is None else "Unhealthy"
    detail = {
        "name": "DicomConnectedStore",
        "status": status,
        "description": problem or "The lake takes files.",
    }
    body = {"overallStatus": status, "details": [detail]}
    return plain_json(body, 200 if problem is None else 503)


def health_problem(service: DicomService) -> str | None:
    """Writes, reads and deletes a health-check file in the lake; None, or what is wrong."""
    if service.lake is None:
        return None
    try:
        check_health(service.lake, service.prefix, service.options.keep_health_files)
    except OSError:
        return "The lake cannot be written and read."
    return None


def get_partitions(request: Request) -> Response:
    """`GET /v{n}/partitions`. Raises BadRequest (400) when data partitions are off."""
    version_of(request)
    service = service_of(request)
    if not service.options.partitions:
        raise BadRequest("Data partitions feature is disabled.")
    return plain_json(
        [
            {
                "partitionKey": one.key,
                "partitionName": one.name,
                "createdDate": timestamp_text(one.created_ticks),
            }
            for one in service.partitions()
        ]
    )


def get_operation(request: Request) -> Response:
    """`GET /v{n}/operations/{id}`: 202 with Location while it runs, 200 when done. Raises NotFound (404)."""
    version, service = version_of(request), service_of(request)
    operation = service.operations.poll(request.path_params["id"], service.clock.now_ticks())
    if operation is None:
        raise NotFound("The specified operation cannot be found.")
    running = operation.work is not None
    headers = {"location": str(request.url)} if running else None
    return plain_json(operation.body(version), 202 if running else 200, headers)
