"""Starting and stopping the service: in a thread for tests, or blocking for the command line."""

from __future__ import annotations

import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

from dicom_emulator.http.app import make_app
from dicom_emulator.http.listening import Listening, Server, address, bound
from dicom_emulator.options import EmulatorOptions
from dicom_emulator.routes.roots import health_problem
from dicom_emulator.routes.stow import Stored, store_file
from dicom_emulator.state.service import DicomService
from dicom_emulator.state.uids import DEFAULT_PARTITION

HEALTH_CHECK_SECONDS = 30.0


@dataclass(frozen=True)
class Emulator:
    """A service that answers at `base_url` (its root, without the version); `service` is its state."""

    base_url: str
    service: DicomService
    _listening: Listening

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
    listening = Listening(lambda: make_app(service), bound(host, 0))
    try:
        listening.start()
        yield Emulator(listening.address, service, listening)
    finally:
        listening.stop()


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
    with _quiet_pydicom(), bound(host, port) as listener:
        load_files(service, load, loaded)
        server = Server(make_app(service), lambda: ready(address(listener)) if ready else None)
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


@contextmanager
def _stop_on_signals(server: Server) -> Iterator[None]:
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
