"""The control routes `/_emulator/...`: clock, faults, tokens, request log, histories, the oracle, over HTTP.

They never count in the request log and never fail by a fault. Bodies are JSON; 400 text for bad ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from dicom_emulator.http.answers import plain_json
from dicom_emulator.http.errors import BadRequest, InstanceExists, InstancePending, NotFound
from dicom_emulator.http.jsontext import dumps
from dicom_emulator.http.routing import service_of
from dicom_emulator.http.tokens import OWNER
from dicom_emulator.state.clock import Clock
from dicom_emulator.state.history import FeedRow
from dicom_emulator.state.instances import LiveInstance
from dicom_emulator.state.lake import check_health
from dicom_emulator.state.service import DicomService
from dicom_emulator.state.timestamps import TICKS_PER_SECOND, ticks_of, timestamp_text
from dicom_emulator.state.uids import DEFAULT_PARTITION, InstanceKey
from dicom_emulator.testing.faults import Fault, SwitchedOn

CONTROL_PREFIX = "/_emulator"


async def clock(request: Request) -> Response:
    """GET: the clock's settings. PUT: sets any of freeze, step, run, advance, digits.

    `freeze` is a time text or ticks; `step` goes with it.
    """
    service_clock = service_of(request).clock
    if request.method == "PUT":
        set_clock(service_clock, await _body(request))
    settings = service_clock.settings()
    return plain_json(settings | {"now": timestamp_text(service_clock.now_ticks())})


def set_clock(service_clock: Clock, wanted: dict[str, Any]) -> None:
    """Applies each of the wanted settings. Raises BadRequest (400)."""
    try:
        if "digits" in wanted:
            service_clock.set_digits(int(wanted["digits"]))
        if "freeze" in wanted:
            service_clock.freeze(ticks_of(wanted["freeze"]), int(wanted.get("step", 0)))
        if "run" in wanted:
            service_clock.run(int(wanted["run"]))
        if "advance" in wanted:
            service_clock.advance(int(wanted["advance"]))
    except (ValueError, TypeError) as error:
        raise BadRequest(f"clock: {error}") from None


async def faults(request: Request) -> Response:
    """GET: all with their hits. POST a Fault's fields: its id. DELETE: switches all off."""
    switched = service_of(request).faults
    if request.method == "DELETE":
        switched.clear()
        return Response(status_code=204)
    if request.method == "POST":
        return plain_json(_fault_json(switched.add(read_fault(await _body(request)))), 201)
    return plain_json([_fault_json(one) for one in switched.all()])


async def fault(request: Request) -> Response:
    """GET: one with its hits. DELETE: switches it off."""
    switched, number = service_of(request).faults, int(request.path_params["id"])
    if request.method == "DELETE":
        if not switched.remove(number):
            raise NotFound("no such fault")
        return Response(status_code=204)
    for one in switched.all():
        if one.id == number:
            return plain_json(_fault_json(one))
    raise NotFound("no such fault")


def read_fault(wanted: dict[str, Any]) -> Fault:
    """The fault of a JSON object, names as the fields of Fault. Raises BadRequest (400)."""
    unknown = wanted.keys() - ({one.name for one in fields(Fault)} - {"rewrite"})
    if unknown:
        raise BadRequest(f"fault: unknown {', '.join(sorted(unknown))}")
    if "sequences" in wanted:
        wanted = wanted | {"sequences": tuple(wanted["sequences"])}
    return Fault(**wanted)


async def requests(request: Request) -> Response:
    """GET: `total`, `counts` (route -> status -> number), remembered `requests`. DELETE: forgets them."""
    log = service_of(request).requests
    if request.method == "DELETE":
        log.clear()
        return Response(status_code=204)
    listed = [asdict(one) for one in log.all()]
    return plain_json({"total": log.count(), "counts": log.counts(), "requests": listed})


async def instances(request: Request) -> Response:
    """GET: the oracle, one object per live instance; `?metadata=true` adds the DICOM JSON."""
    with_metadata = request.query_params.get("metadata", "").lower() == "true"
    live = service_of(request).live_instances()
    entries = (_live_json(one, with_metadata) for one in live)
    return Response(b"[" + b",".join(entries) + b"]", media_type="application/json")


async def events(request: Request) -> Response:
    """POST one event or an array of them; answers with the rows written, in order.

    {"action": "Create"|"Update"|"Delete"|"Reserve"|"Commit", "partitionName", "studyInstanceUid",
    "seriesInstanceUid", "sopInstanceUid", "metadata", "timestamp", "sequence"}; a Delete may leave out UIDs.
    """
    service, wanted = service_of(request), await _body(request, allow_array=True)
    rows = []
    for event in wanted if isinstance(wanted, list) else [wanted]:
        rows += apply_event(service, event)
    return plain_json([_row_json(row) for row in rows], 201)


def apply_event(service: DicomService, event: dict[str, Any]) -> list[FeedRow]:
    """Makes one event happen. Raises BadRequest (400) when it cannot."""
    try:
        partition = event.get("partitionName", DEFAULT_PARTITION)
        at = ticks_of(event["timestamp"]) if "timestamp" in event else None
        sequence = event.get("sequence")
        study, series, sop = (event.get(f"{level}InstanceUid") for level in ("study", "series", "sop"))
        if event["action"] == "Delete":
            numbers = None if sequence is None else [sequence]
            return service.delete(partition, str(study), series, sop, at_ticks=at, sequences=numbers)
        key = InstanceKey(partition, str(study), str(series), str(sop))
        if event["action"] == "Reserve":
            service.reserve(key)
            return []
        act: Callable[..., FeedRow] = _ACTIONS[event["action"]](service)
        return [act(key, event.get("metadata", {}), at_ticks=at, sequence=sequence)]
    except (KeyError, ValueError, TypeError, InstanceExists, InstancePending) as error:
        raise BadRequest(f"event: {type(error).__name__}: {error}") from None


_ACTIONS: dict[str, Callable[[DicomService], Callable[..., FeedRow]]] = {
    "Create": lambda service: service.create,
    "Update": lambda service: service.update,
    "Commit": lambda service: service.commit,
}


async def tokens(request: Request) -> Response:
    """POST {"role", "seconds", "requests"}, all optional: a new token, wanted from now on. DELETE: revokes all."""
    service = service_of(request)
    if request.method == "DELETE":
        service.tokens.revoke()
        return Response(status_code=204)
    wanted = await _body(request)
    try:
        seconds = wanted.get("seconds")
        expires = None if seconds is None else service.clock.now_ticks() + int(seconds * TICKS_PER_SECOND)
        token = service.tokens.issue(wanted.get("role", OWNER), expires=expires, requests=wanted.get("requests"))
    except (ValueError, TypeError) as error:
        raise BadRequest(f"token: {error}") from None
    return plain_json({"token": token}, 201)


async def held(request: Request) -> Response:
    """POST {"sequence", "until"}: the row is not served, before that time if given. DELETE: all are served again."""
    service = service_of(request)
    if request.method == "DELETE":
        service.release()
        return Response(status_code=204)
    wanted = await _body(request)
    try:
        service.hold(int(wanted["sequence"]), until=ticks_of(wanted["until"]) if "until" in wanted else None)
    except (KeyError, ValueError, TypeError) as error:
        raise BadRequest(f"held: {type(error).__name__}: {error}") from None
    return Response(status_code=204)


async def sequence(request: Request) -> Response:
    """POST {"skip": n}: the next n sequence numbers are never used."""
    wanted = await _body(request)
    service_of(request).skip_sequences(int(wanted["skip"]))
    return Response(status_code=204)


async def health_files(request: Request) -> Response:
    """POST: leaves a health-check file in the lake, as a listing tool may meet one."""
    service = service_of(request)
    if service.lake is None:
        raise BadRequest("there is no lake")
    check_health(service.lake, service.prefix, keep=True)
    return Response(status_code=204)


ROUTES = [
    Route(f"{CONTROL_PREFIX}/clock", clock, methods=["GET", "PUT"]),
    Route(f"{CONTROL_PREFIX}/faults", faults, methods=["GET", "POST", "DELETE"]),
    Route(f"{CONTROL_PREFIX}/faults/{{id:int}}", fault, methods=["GET", "DELETE"]),
    Route(f"{CONTROL_PREFIX}/requests", requests, methods=["GET", "DELETE"]),
    Route(f"{CONTROL_PREFIX}/instances", instances, methods=["GET"]),
    Route(f"{CONTROL_PREFIX}/events", events, methods=["POST"]),
    Route(f"{CONTROL_PREFIX}/sequence", sequence, methods=["POST"]),
    Route(f"{CONTROL_PREFIX}/tokens", tokens, methods=["POST", "DELETE"]),
    Route(f"{CONTROL_PREFIX}/held", held, methods=["POST", "DELETE"]),
    Route(f"{CONTROL_PREFIX}/health-files", health_files, methods=["POST"]),
]


async def _body(request: Request, allow_array: bool = False) -> Any:
    try:
        body = json.loads(await request.body())
    except ValueError:
        raise BadRequest("the body is not JSON") from None
    if not isinstance(body, dict) and not (allow_array and isinstance(body, list)):
        raise BadRequest("the body is not a JSON object")
    return body


def _fault_json(one: SwitchedOn) -> dict[str, Any]:
    return {"id": one.id, "met": one.met, "hits": one.hits, "fault": one.fault.as_json()}


def _row_json(row: FeedRow) -> dict[str, Any]:
    return {"sequence": row.sequence, "timestamp": timestamp_text(row.ticks), "ticks": row.ticks}


def _live_json(one: LiveInstance, with_metadata: bool) -> bytes:
    head = dumps(
        {
            "partitionName": one.key.partition,
            "studyInstanceUid": one.key.study,
            "seriesInstanceUid": one.key.series,
            "sopInstanceUid": one.key.sop,
            "sequence": one.sequence,
            "timestamp": one.timestamp,
            "ticks": one.ticks,
            "filePath": one.file_path,
        }
    )
    return head[:-1] + b',"metadata":' + one.metadata + b"}" if with_metadata else head
