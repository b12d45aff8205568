"""The FHIR server over HTTP: its one route below /fhir, faults, tokens and the log of exchanges."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import replace

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dicom_emulator.fhir.answers import FHIR_JSON, Answer, Ask, Refusal, outcome
from dicom_emulator.fhir.bundles import answer_batch, entries_of
from dicom_emulator.fhir.service import FhirService, LoggedExchange, lower_case
from dicom_emulator.http.wire import WholeAnswer, send_answer
from dicom_emulator.state.timestamps import http_date

BASE_PATH = "/fhir"
NO_ANSWER = 0
_JSON_TYPES = ("application/fhir+json", "application/json")


def make_fhir_app(service: FhirService) -> Starlette:
    """The server as an ASGI application."""
    app = Starlette()
    app.state.connections = set()
    app.router.default = _Exchanges(service)
    return app


class _Exchanges:
    """Answers each request, as a fault that is switched on for it leaves the answer, and notes it."""

    def __init__(self, service: FhirService) -> None:
        self._service = service
        self._in_flight: list[frozenset[str]] = []
        self._all_there = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await request.body()
        fault = self._service.faults.for_request(request.method, request.url.path, dict(request.query_params))
        held = WholeAnswer()
        entries: list[Ask] = []
        if fault is None or fault.damages:
            answer, entries = await self._answer(request, body)
            await _response(answer)(scope, receive, held.take)
        if fault is not None:
            await asyncio.sleep(fault.delay_seconds)
            if not fault.damages:
                headers = fault.answer_headers(self._service.clock.now_ticks())
                await Response(fault.body, fault.status, headers)(scope, receive, held.take)
            elif fault.rewrite is not None:
                held.body = fault.rewrite(held.body)
        held.headers.setdefault("date", http_date(self._service.clock.now_ticks()))
        status = NO_ANSWER if fault is not None and fault.reset else held.start["status"]
        path = request.url.path.removeprefix(BASE_PATH).strip("/")
        logged = LoggedExchange(request.method, path, status, len(entries) or None, len(body))
        self._service.requests.append(logged)
        await send_answer(held, fault, scope, receive, send)

    async def _answer(self, request: Request, body: bytes) -> tuple[Answer, list[Ask]]:
        """The answer, and the entries where it is a bundle's."""
        entries: list[Ask] = []
        try:
            ask = self._ask(request, body)
            if ask.path or ask.method != "POST":
                return self._service.answer(ask, self._base(request)), []
            entries = entries_of(ask.resource, self._service)
            await self._meet(entries)
            minimal = "return=minimal" in request.headers.get("prefer", "")
            authorization = request.headers.get("authorization")
            return answer_batch(entries, self._service, self._base(request), authorization, minimal), entries
        except Refusal as refusal:
            return Answer(refusal.status, outcome(refusal.problems, self._service.options.quoting)), entries

    def _ask(self, request: Request, body: bytes) -> Ask:
        path = request.url.path
        if path != BASE_PATH and not path.startswith(f"{BASE_PATH}/"):
            raise Refusal(404, "not-found")
        # Of a bundle any role may send one: each entry is looked at by itself.
        reads = request.method == "POST" and path.rstrip("/") == BASE_PATH
        method = "GET" if reads else request.method
        status = self._service.tokens.refusal(
            request.headers.get("authorization"), method, self._service.clock.now_ticks()
        )
        if status is not None and not path.endswith("/metadata"):
            raise Refusal(status, "login" if status == 401 else "forbidden")
        if len(body) > self._service.options.max_body_bytes:
            raise Refusal(413, "too-long")
        query = tuple(request.query_params.multi_items())
        ask = Ask(request.method, path.removeprefix(BASE_PATH).strip("/"), query, None, lower_case(request.headers))
        return replace(ask, resource=_resource(request, body)) if request.method in ("POST", "PUT") else ask

    async def _meet(self, entries: list[Ask]) -> None:
        """Holds the entries' resources until enough bundles are there, and notes which of them another one holds."""
        mine = frozenset(f"{ask.path}?{ask.query}" for ask in entries)
        held: frozenset[str] = frozenset().union(*self._in_flight)
        self._service.collisions += sorted(mine & held)
        self._in_flight.append(mine)
        self._service.most_in_flight = max(self._service.most_in_flight, len(self._in_flight))
        if len(self._in_flight) >= self._service.options.meet:
            self._all_there.set()
            self._all_there = asyncio.Event()
        else:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all_there.wait(), self._service.options.patience_seconds)
        self._in_flight.remove(mine)

    def _base(self, request: Request) -> str:
        return self._service.options.linked_base or f"{request.url.scheme}://{request.url.netloc}{BASE_PATH}"


def _resource(request: Request, body: bytes) -> object:
    if request.headers.get("content-type", "").partition(";")[0].strip() not in _JSON_TYPES:
        raise Refusal(415, "not-supported", "Content-Type")
    try:
        # As JSON of FHIR: what Python takes beyond it is refused.
        return json.loads(body, parse_constant=_no_number)
    except ValueError as error:
        raise Refusal(400, "structure") from error


def _no_number(text: str) -> float:
    raise ValueError(text)


def _response(answer: Answer) -> Response:
    headers = dict(answer.headers)
    if answer.resource is None:
        return Response(None, answer.status, headers)
    headers["content-type"] = FHIR_JSON
    return Response(json.dumps(answer.resource, ensure_ascii=False), answer.status, headers)
