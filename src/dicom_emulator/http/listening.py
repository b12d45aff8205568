"""Listening at a loopback address in a thread: uvicorn, made to start and stop at once."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

_START_SECONDS = 30.0


class Listening:
    """The thread that answers at one address; it can stop and start there again, unless it stopped for good."""

    def __init__(self, make_app: Callable[[], Starlette], listener: socket.socket) -> None:
        self._make_app = make_app
        self._socket = listener
        self._server = Server(make_app())
        self._thread: threading.Thread | None = None
        self._host, self._port = listener.getsockname()[:2]
        self.address = address(listener)

    def start(self) -> None:
        if self._socket.fileno() < 0:
            return
        self._server = Server(self._make_app())
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        self._server.wait_until_started()

    def stop(self, keep_port: bool = False) -> None:
        """A port that is bound, and not listened at, refuses connections, and nobody else can have it."""
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()
        self._socket.close()
        if keep_port:
            self._socket = bound(self._host, self._port)


class Server(uvicorn.Server):
    """uvicorn without its own headers, access log and signal handling."""

    def __init__(self, app: Starlette, ready: Callable[[], None] | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                lifespan="off",
                log_config=None,
                log_level="critical",  # its tracebacks would show values; app logs the class of an error
                access_log=False,
                date_header=False,
                server_header=False,
                timeout_graceful_shutdown=1,
                timeout_keep_alive=75,
            )
        )
        app.state.connections = self.server_state.connections
        self._ready = ready

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def main_loop(self) -> None:
        """Until it is told to stop; uvicorn's own looks only ten times a second, and tests start many services."""
        await self.on_tick(0)
        while not self.should_exit:
            await asyncio.sleep(0.02)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """uvicorn's own waits 0.1 s, also when nobody is connected any more."""
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await asyncio.sleep(0.001)
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown(sockets)
            return
        for listening in (*self.servers, *(sockets or ())):
            listening.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._ready is not None:
            self._ready()

    def wait_until_started(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self.started:
            if time.monotonic() > deadline:
                raise TimeoutError("the emulator did not start")
            time.sleep(0.005)


def bound(host: str, port: int) -> socket.socket:
    """A socket at the address, 0 for a free port. Raises OSError when that cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's algorithm off; else an answer may wait 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


def address(listener: socket.socket) -> str:
    """Where it answers, such as http://127.0.0.1:8080."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
