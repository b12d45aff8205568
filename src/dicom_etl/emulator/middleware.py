"""What every request passes before its route: the log, the service's own headers, and the fault switches.

Later ones (tokens and roles, cut or slow bodies) join the list in `app.make_app`.
"""

from __future__ import annotations

import asyncio

from starlette.datastructures import MutableHeaders, QueryParams
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicom_etl.emulator.control import CONTROL_PREFIX
from dicom_etl.emulator.routing import SUPPORTED_VERSIONS
from dicom_etl.emulator.service import DicomService
from dicom_etl.emulator.timestamps import http_date


class RequestLogging:
    """Notes each answer in the request log, control routes excepted."""

    def __init__(self, app: ASGIApp, service: DicomService) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_service_request(scope):
            await self._app(scope, receive, send)
            return

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                query = dict(QueryParams(scope["query_string"]).multi_items())
                self._service.requests.add(scope["method"], scope["path"], query, message["status"])
            await send(message)

        await self._app(scope, receive, noting)


class OwnHeaders:
    """Adds `Date` by the service's clock and, below a version, `api-supported-versions`."""

    def __init__(self, app: ASGIApp, service: DicomService) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("date", http_date(self._service.clock.now_ticks()))
                if scope["path"].startswith("/v"):
                    headers.setdefault("api-supported-versions", SUPPORTED_VERSIONS)
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


class FaultSwitches:
    """Answers a request with the fault that is switched on for it, after its delay."""

    def __init__(self, app: ASGIApp, service: DicomService) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = None
        if _is_service_request(scope):
            query = {name.lower(): value for name, value in QueryParams(scope["query_string"]).multi_items()}
            fault = self._service.faults.for_request(scope["method"], scope["path"], query)
        if fault is None:
            await self._app(scope, receive, send)
            return
        await asyncio.sleep(fault.delay_seconds)
        headers = fault.answer_headers(self._service.clock.now_ticks())
        await Response(fault.body, fault.status, headers)(scope, receive, send)


def _is_service_request(scope: Scope) -> bool:
    return bool(scope["type"] == "http" and not scope["path"].startswith(CONTROL_PREFIX))
