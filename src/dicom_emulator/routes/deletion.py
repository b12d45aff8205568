"""DELETE of a study, a series or an instance (design/service-protocol.md: Deletion)."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from dicom_emulator.http.errors import NotFound
from dicom_emulator.http.parameters import refuse_tags
from dicom_emulator.http.routing import level_of, partition_of, path_uids, service_of, version_of


def delete(request: Request) -> Response:
    """204 when something was deleted. Raises NotFound (404) when nothing was, BadRequest (400): bad UIDs."""
    version_of(request)
    refuse_tags(request)
    study, series, sop = uids = path_uids(request)
    try:
        service_of(request).delete(partition_of(request), study, series, sop)
    except KeyError:
        raise NotFound(f"The specified {level_of(uids)} cannot be found.") from None
    return Response(status_code=204)
