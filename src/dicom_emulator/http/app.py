"""The ASGI application: routes, the middleware they all pass, and how refusals are answered."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dicom_emulator.http.errors import ServiceError, UnsupportedVersion
from dicom_emulator.http.middleware import Bearers, FaultSwitches, NamedOrigins, OwnHeaders, RequestLogging
from dicom_emulator.http.routing import is_unsupported
from dicom_emulator.routes import bulkupdate, control, deletion, feed, images, qido, querytags, roots, stow, wado
from dicom_emulator.state.service import DicomService

_log = logging.getLogger(__name__)

Endpoint = Callable[[Request], Any]

_TAGS = "/v{version}/extendedquerytags"
_STUDY = "/studies/{study}"
_SERIES = f"{_STUDY}/series/{{series}}"
_INSTANCE = f"{_SERIES}/instances/{{sop}}"


def make_app(service: DicomService) -> Starlette:
    """The service over HTTP."""
    app = Starlette(
        routes=[
            *control.ROUTES,
            *_root_routes(),
            *_dicomweb_routes("/v{version}"),
            *_dicomweb_routes("/v{version}/partitions/{partition}"),
        ],
        middleware=[
            Middleware(RequestLogging, service=service),
            Middleware(OwnHeaders, service=service),
            *([Middleware(NamedOrigins, service=service)] if service.options.cors_origins else []),
            Middleware(FaultSwitches, service=service),
            Middleware(Bearers, service=service),
        ],
        exception_handlers={
            ServiceError: _refused,
            UnsupportedVersion: _unsupported_version,
            Exception: _internal_error,
        },
    )
    app.state.service = service
    app.state.connections = set()
    app.router.default = _no_route
    return app


def _root_routes() -> list[Route]:
    return [
        Route("/health/check", roots.get_health),
        Route("/v{version}/changefeed", feed.get_feed),
        Route("/v{version}/changefeed/latest", feed.get_latest),
        Route("/v{version}/partitions", roots.get_partitions),
        Route("/v{version}/operations/{id}", roots.get_operation),
        Route(_TAGS, querytags.post_tags, methods=["POST"]),
        Route(_TAGS, querytags.get_tags, methods=["GET"]),
        Route(f"{_TAGS}/{{tag}}", querytags.get_tag, methods=["GET"]),
        Route(f"{_TAGS}/{{tag}}", querytags.patch_tag, methods=["PATCH"]),
        Route(f"{_TAGS}/{{tag}}", querytags.delete_tag, methods=["DELETE"]),
        Route(f"{_TAGS}/{{tag}}/errors", querytags.get_errors, methods=["GET"]),
    ]


def _dicomweb_routes(root: str) -> list[Route]:
    searches = [
        Route(root + path, _search(route), methods=["GET"])
        for route, path in {
            "studies": "/studies",
            "series": "/series",
            "instances": "/instances",
            "studies/series": f"{_STUDY}/series",
            "studies/instances": f"{_STUDY}/instances",
            "studies/series/instances": f"{_SERIES}/instances",
        }.items()
    ]
    resources = [
        Route(root + path + suffix, endpoint, methods=[method])
        for path in (_STUDY, _SERIES, _INSTANCE)
        for suffix, method, endpoint in (
            ("/metadata", "GET", wado.get_metadata),
            ("", "GET", wado.get_files),
            ("", "DELETE", deletion.delete),
        )
    ]
    pictures = [
        Route(f"{root}{_INSTANCE}/frames/{{frames}}", images.get_frames, methods=["GET"]),
        Route(f"{root}{_INSTANCE}/frames/{{frames}}/rendered", images.get_rendered, methods=["GET"]),
        Route(f"{root}{_INSTANCE}/rendered", images.get_rendered, methods=["GET"]),
    ]
    return [
        Route(root + "/studies", stow.post_studies, methods=["POST"]),
        Route(root + "/studies/$bulkUpdate", bulkupdate.post_bulk_update, methods=["POST"]),
        Route(root + _STUDY, stow.post_studies, methods=["POST"]),
        *searches,
        *resources,
        *pictures,
    ]


def _search(route: str) -> Endpoint:
    return partial(qido.search, route)


async def _no_route(scope: Scope, receive: Receive, send: Send) -> None:
    """404 without a body; below a version that is not served, that is said."""
    version = re.match(r"/v([^/]+)/", scope["path"])
    answer = Response(status_code=404)
    if version and is_unsupported(version[1]):
        answer = _unsupported_version(Request(scope), UnsupportedVersion(version[1]))
    await answer(scope, receive, send)


def _refused(_request: Request, error: Exception) -> Response:
    refusal = cast("ServiceError", error)
    return PlainTextResponse(refusal.text, refusal.status)


def _unsupported_version(_request: Request, error: Exception) -> Response:
    """What the versioning library answers (inferred; design/service-protocol.md: Addresses and errors)."""
    message = f"The HTTP resource does not support the API version '{error}'."
    return JSONResponse({"error": {"code": "UnsupportedApiVersion", "message": message}}, 400)


def _internal_error(_request: Request, error: Exception) -> Response:
    """500 without a cause. Only the class is logged: texts may hold values of a patient."""
    _log.error("unhandled %s in a request", type(error).__name__)
    return PlainTextResponse("The server encountered an internal error. Please retry your request.", 500)
