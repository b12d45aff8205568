"""Starting and stopping the service: in a thread for tests, or blocking for the command line."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import uvicorn

from dicom_emulator.http.app import make_app
from dicom_emulator.options import EmulatorOptions
from dicom_emulator.routes.roots import health_problem
from dicom_emulator.routes.stow import Stored, store_file
from dicom_emulator.state.service import DicomService
from dicom_emulator.state.uids import DEFAULT_PARTITION

HEALTH_CHECK_SECONDS = 30.0
_START_SECONDS = 30.0


@dataclass(frozen=True)
class Emulator:
    """A service that answers at `base_url` (its root, without the version); `service` is its state."""

    base_url: str
    service: DicomService
    _listening: _Listening

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuses all connections in the block, and ends those there are; the state stays."""
        self._listening.stop(keep_port=True)
        try:
            yield
        finally:
            self._listening.start()


@contextmanager
def serve_in_thread(options: EmulatorOptions | None = None, host: str = "127.0.0.1") -> Iterator[Emulator]:
    """Serves on a free port until the block ends; a real socket, with its own event loop in a thread."""
    service = DicomService(options)
    listening = _Listening(service, _bound(host, 0))
    try:
        listening.start()
        yield Emulator(listening.address, service, listening)
    finally:
        listening.stop()


class _Listening:
    """The thread that answers at one address; it can stop and start there again, unless it stopped for good."""

    def __init__(self, service: DicomService, bound: socket.socket) -> None:
        self._service = service
        self._socket = bound
        self._server = _Server(service)
        self._thread: threading.Thread | None = None
        self._host, self._port = bound.getsockname()[:2]
        self.address = _address(bound)

    def start(self) -> None:
        if self._socket.fileno() < 0:
            return
        self._server = _Server(self._service)
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
            self._socket = _bound(self._host, self._port)


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    lake: Path | str | None = None,
    load: Iterable[Path | str] = (),
    options: EmulatorOptions | None = None,
    ready: Callable[[str], None] | None = None,
    loaded: Callable[[Path, Stored], None] | None = None,
) -> None:
    """Serves until SIGINT or SIGTERM, then returns.

    `port` 0 takes a free one. `lake` is a folder for the files. Files under `load` (folders with all they
    hold) are stored as by STOW-RS before anything is answered; `loaded` hears what became of each
    (`Stored.failure` is None when it was stored). `ready` hears the address when it answers. `lake` wins
    over the one in `options`. Raises OSError when the address cannot be bound or a path not read.
    """
    options = options or EmulatorOptions()
    service = DicomService(replace(options, lake=lake) if lake is not None else options)
    with _quiet_pydicom(), _bound(host, port) as listener:
        load_files(service, load, loaded)
        server = _Server(service, lambda: ready(_address(listener)) if ready else None)
        with _stop_on_signals(server), _health_checks(service):
            server.run(sockets=[listener])


def load_files(
    service: DicomService, paths: Iterable[Path | str], loaded: Callable[[Path, Stored], None] | None = None
) -> list[Stored]:
    """Stores every file under the paths in the order of their names; returns what became of each."""
    outcomes = []
    for path in _files(Path(one) for one in paths):
        outcome = store_file(service, path.read_bytes(), DEFAULT_PARTITION)
        outcomes.append(outcome)
        if loaded is not None:
            loaded(path, outcome)
    return outcomes


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(one for one in path.rglob("*") if one.is_file())
        else:
            yield path


class _Server(uvicorn.Server):
    """uvicorn without its own headers, access log and signal handling."""

    def __init__(self, service: DicomService, ready: Callable[[], None] | None = None) -> None:
        app = make_app(service)
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


def _bound(host: str, port: int) -> socket.socket:
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


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _stop_on_signals(server: uvicorn.Server) -> Iterator[None]:
    """SIGINT and SIGTERM end the server; outside the main thread signals are nobody's business here."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _quiet_pydicom() -> Iterator[None]:
    """Keeps pydicom's warnings from the terminal: they quote values of patients."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pydicom")
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)


@contextmanager
def _health_checks(service: DicomService) -> Iterator[None]:
    """A health-check file every 30 s, as the service puts one into its lake (design/service-protocol.md: Data lake)."""
    done = threading.Event()

    def check() -> None:
        while not done.wait(HEALTH_CHECK_SECONDS):
            health_problem(service)

    thread = threading.Thread(target=check, daemon=True)
    if service.lake is not None:
        thread.start()
    try:
        yield
    finally:
        done.set()
