"""What every request passes before its route: the log, the service's own headers, faults, and tokens."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dicom_emulator.http.routing import SUPPORTED_VERSIONS
from dicom_emulator.http.wire import WholeAnswer, noted_fault, send_answer, takes_gzip
from dicom_emulator.routes.control import CONTROL_PREFIX
from dicom_emulator.state.service import DicomService
from dicom_emulator.state.timestamps import http_date

NO_ANSWER = 0
"""The status in the request log of a request whose connection was reset."""


class RequestLogging:
    """Notes each answer in the request log, control routes excepted."""

    def __init__(self, app: ASGIApp, service: DicomService) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_service_request(scope):
            await self._app(scope, receive, send)
            return

        query = dict(QueryParams(scope["query_string"]).multi_items())
        answered = False

        async def noting(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                self._service.requests.add(scope["method"], scope["path"], query, message["status"])
            await send(message)

        await self._app(scope, receive, noting)
        if not answered:
            self._service.requests.add(scope["method"], scope["path"], query, NO_ANSWER)


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


class NamedOrigins:
    """Lets pages of the named origins read the answers, faults and refusals included, and asks no token of a preflight.

    Control routes are not for pages (design/service-protocol.md: CORS).
    """

    def __init__(self, app: ASGIApp, service: DicomService) -> None:
        self._app = app
        self._for_pages = CORSMiddleware(
            app,
            allow_origins=service.options.cors_origins,
            allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
            allow_headers=("*",),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._for_pages if _is_service_request(scope) else self._app)(scope, receive, send)


class FaultSwitches:
    """Answers a request with the fault that is switched on for it, after its delay, or damages its answer."""

    def __init__(self, app: ASGIApp, service: DicomService) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not _is_service_request(scope):
            await self._app(scope, receive, send)
            return
        query = {name.lower(): value for name, value in QueryParams(scope["query_string"]).multi_items()}
        fault = self._service.faults.for_request(scope["method"], scope["path"], query)
        answer = WholeAnswer()
        if fault is None or fault.damages:
            await self._app(scope, receive, answer.take)
            fault = fault or noted_fault(scope)
        if fault is not None:
            await asyncio.sleep(fault.delay_seconds)
            if not fault.damages:
                answer = WholeAnswer()
                headers = fault.answer_headers(self._service.clock.now_ticks())
                await Response(fault.body, fault.status, headers)(scope, receive, answer.take)
            elif fault.rewrite is not None:
                answer.body = fault.rewrite(answer.body)
        if self._service.options.gzip and answer.body and takes_gzip(scope):
            answer.compress()
        await send_answer(answer, fault, scope, receive, send)


class Bearers:
    """Refuses requests without a token (401) or with one that does not cover them (403), health checks aside."""

    def __init__(self, app: ASGIApp, service: DicomService) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = None
        if _is_service_request(scope) and scope["path"].startswith("/v"):
            header = Headers(scope=scope).get("authorization")
            now = self._service.clock.now_ticks()
            status = self._service.tokens.refusal(header, scope["method"], now)
        if status is None:
            await self._app(scope, receive, send)
        elif status == 401:
            await Response(status_code=401, headers={"www-authenticate": "Bearer"})(scope, receive, send)
        else:
            await PlainTextResponse("Authorization failed.", 403)(scope, receive, send)


def _is_service_request(scope: Scope) -> bool:
    return bool(scope["type"] == "http" and not scope["path"].startswith(CONTROL_PREFIX))
