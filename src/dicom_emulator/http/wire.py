"""How an answer leaves: compressed when that is asked for, and damaged as a switched-on fault says."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from dicom_emulator.testing.faults import Fault

_NOTED = "dicom_etl.fault"
_AT_ONCE = struct.pack("ii", 1, 0)


def note_fault(scope: MutableMapping[str, Any], fault: Fault | None) -> None:
    """Leaves word that this answer is to fail; what the route answers is then damaged or replaced."""
    scope[_NOTED] = fault


def noted_fault(scope: MutableMapping[str, Any]) -> Fault | None:
    """What `note_fault` left."""
    fault: Fault | None = scope.get(_NOTED)
    return fault


@dataclass
class WholeAnswer:
    """An answer that is held back until it is complete; `take` is the `send` of the app that makes it."""

    start: Message = field(default_factory=dict)
    body: bytes = b""

    async def take(self, message: Message) -> None:
        """Keeps a part of it."""
        if message["type"] == "http.response.start":
            self.start = message
        else:
            self.body += message.get("body", b"")

    @property
    def headers(self) -> MutableHeaders:
        """Its headers, to be changed in place."""
        return MutableHeaders(scope=self.start)

    def compress(self) -> None:
        """Makes its body a gzip stream."""
        self.body = gzip.compress(self.body, 1, mtime=0)
        self.headers["content-encoding"] = "gzip"

    def fit_length(self) -> None:
        """Says the length that the body has; 204 and 304 have none."""
        if self.start["status"] not in (204, 304):
            self.headers["content-length"] = str(len(self.body))


def takes_gzip(scope: Scope) -> bool:
    """Whether the client's Accept-Encoding lets gzip through."""
    header = Headers(scope=scope).get("accept-encoding", "")
    names = {part.partition(";")[0].strip().lower(): part.replace(" ", "").lower() for part in header.split(",")}
    return any(name in names and not names[name].endswith((";q=0", ";q=0.0")) for name in ("gzip", "*"))


async def send_answer(answer: WholeAnswer, fault: Fault | None, scope: Scope, receive: Receive, send: Send) -> None:
    """Sends the answer as the fault, if any, leaves it; its body is as it goes over the wire."""
    if fault is not None and fault.truncate is not None:
        answer.body = answer.body[: fault.truncate]
    answer.fit_length()
    if fault is not None and fault.reset and fault.cut_body is None:
        _reset(scope)
        return
    await send(answer.start)
    if fault is None:
        await send({"type": "http.response.body", "body": answer.body})
        return
    whole = fault.cut_body is None
    served = answer.body if whole else answer.body[: fault.cut_body]
    if fault.trickle_seconds:
        for at in range(0, len(served), fault.trickle_bytes):
            if await _gone(receive, fault.trickle_seconds):
                return
            piece = served[at : at + fault.trickle_bytes]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        served = b""
    await send({"type": "http.response.body", "body": served, "more_body": not whole})
    # Not complete: uvicorn closes the connection when the app is done.
    if fault.reset:
        # Reset at once, the bytes before it might be thrown away.
        await asyncio.sleep(0.05)
        _reset(scope)


async def _gone(receive: Receive, seconds: float) -> bool:
    """Waits, and tells whether the client hung up meanwhile."""
    try:
        message = await asyncio.wait_for(receive(), seconds)
    except TimeoutError:
        return False
    return bool(message["type"] == "http.disconnect")


class _Connection(Protocol):
    client: tuple[str, int] | None
    transport: asyncio.Transport


def _reset(scope: Scope) -> None:
    """Ends the connection with RST instead of FIN: what is closed without lingering is thrown away."""
    connections: set[_Connection] = scope["app"].state.connections
    for connection in list(connections):
        if connection.client is not None and connection.client == tuple(scope["client"]):
            client: socket.socket = connection.transport.get_extra_info("socket")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            connection.transport.abort()
