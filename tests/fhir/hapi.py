"""HAPI FHIR JPA 8.8.0, a real server of FHIR R4, as a process of the tests or by itself.

`python -m tests.fhir.hapi` (`make hapi`) starts one, says its address and waits for Ctrl-C; `--fetch` only installs it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from dicom_etl.core.errors import ConfigurationError
from dicom_etl.tables.engine.java import java_home
from tests.fhir.jars import FOLDER, MAIN, class_path, install

_START_SECONDS = 240  # 10 s here; a machine that is busy with other tests needs longer
_STOP_SECONDS = 30
_ATTEMPTS_AT_A_PORT = 10
# Ready in half the time and in half the memory; tests do not load it for long enough to need the better compiler.
_JVM = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:+ExitOnOutOfMemoryError")


class StartFailed(Exception):
    """HAPI did not start, or did not stay."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Requests that the server has answered, and the bytes of their bodies as they came and went."""

    requests: int
    received: int
    sent: int

    def __sub__(self, earlier: Counters) -> Counters:
        return Counters(self.requests - earlier.requests, self.received - earlier.received, self.sent - earlier.sent)


class Hapi:
    """A server with an address that stays the same; its log, and its data with ``keep``, lie in ``scratch``."""

    def __init__(
        self, scratch: Path, *, validate: bool = False, keep: bool = False, port: int = 0, folder: Path = FOLDER
    ) -> None:
        self._log = scratch / "hapi.log"
        self._folder = folder
        # Committed is written: else a kill loses what was acknowledged half a second before.
        kept = [f"-Ddb=jdbc:h2:{scratch / 'fhir'};WRITE_DELAY=0"] if keep else []
        self._options = (*_JVM, f"-Dvalidate={str(validate).lower()}", *kept)
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def base_url(self) -> str:
        """The address of FHIR, without a slash at its end."""
        return f"http://127.0.0.1:{self._port}/fhir"

    def start(self) -> None:
        """Start it, at the port it had before, and wait until it answers. Raises StartFailed."""
        for _ in range(_ATTEMPTS_AT_A_PORT):
            self._launch()
            if port := self._ready_at():
                self._port = port
                return
            self.kill()
            if "BindException" not in self._log.read_text(errors="replace"):
                break
            time.sleep(1)  # another program has our port for a moment
        raise StartFailed(f"HAPI FHIR did not start: {self._last_words()}")

    def stop(self) -> None:
        """Let it end as it should, or else kill it. Its data are lost unless they are kept."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it at once, as a crash does, with all that it has started."""
        if self._process is None:
            return
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        with self._process:  # closes its standard input, and waits
            self._process = None

    def restart(self) -> None:
        """Stop it and start it at the same address, with its data if they are kept."""
        self.stop()
        self.start()

    def wait(self) -> None:
        """Until it ends by itself."""
        if self._process is not None:
            self._process.wait()

    def counters(self) -> Counters:
        """What was asked of it since it started; asking this does not count."""
        with urlopen(f"http://127.0.0.1:{self._port}/counters", timeout=30) as answer:
            return Counters(**json.load(answer))

    def _launch(self) -> None:
        java = java_home() / "bin" / "java"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(java), *self._options, "-cp", class_path(self._folder), MAIN, str(self._port)],
                cwd=self._log.parent,
                stdin=subprocess.PIPE,  # it ends when this does, and so with us
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us, and we stop it
            )

    def _last_words(self) -> str:
        """The line of its log that tells most of why it ended."""
        lines = self._log.read_text(errors="replace").splitlines() or ["it said nothing"]
        causes = [line for line in lines if line.startswith("Caused by:")]
        return (causes or lines)[-1].strip()

    def _ready_at(self) -> int | None:
        """The port that it says it answers at; None when it has ended, or is silent for too long."""
        assert self._process is not None
        silent_at = time.monotonic() + _START_SECONDS
        while self._process.poll() is None and time.monotonic() < silent_at:
            for line in self._log.read_text(errors="replace").splitlines(keepends=True):
                if line.startswith("READY ") and line.endswith("\n"):
                    return int(line.split()[1])
            time.sleep(0.1)
        return None


@contextmanager
def hapi(scratch: Path, *, validate: bool = False, keep: bool = False, port: int = 0) -> Iterator[Hapi]:
    """A server that runs as long as the block; ``port`` 0 takes a free one. Raises StartFailed."""
    server = Hapi(scratch, validate=validate, keep=keep, port=port)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def serve_hapi(then: Callable[[str], None] | None = None, *, validate: bool = False, port: int = 0) -> None:
    """Install HAPI if need be, start it, say its address, call ``then`` with that, and serve until Ctrl-C or SIGTERM.

    Raises ConfigurationError when it cannot be installed, StartFailed when it does not start or ends by itself.
    """
    install()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="dicom-etl-hapi-") as scratch, suppress(KeyboardInterrupt):
            _say("HAPI FHIR starts ...")
            with hapi(Path(scratch), validate=validate, port=port) as server:
                _say(f"HAPI FHIR R4 answers at {server.base_url}; Ctrl-C ends it, and what it holds is gone.")
                if then is not None:
                    then(server.base_url)
                server.wait()
            raise StartFailed("HAPI FHIR has ended by itself")
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _demo(base_url: str) -> None:
    """Let the demo fill the server, and say what to look at. Raises StartFailed when the demo fails."""
    if subprocess.run([sys.executable, "-m", "dicom_etl", "demo", "--yes", "--fhir", base_url], check=False).returncode:
        raise StartFailed("the demo has failed: its last lines say why")
    _say(f"\nHAPI FHIR goes on until Ctrl-C. Open {base_url}/ImagingStudy?_include=ImagingStudy:subject&_pretty=true")
    _say("DICOM_ETL_CONFIG=demo-lake/demo.toml python notebooks/fhir_and_tables.py joins it with the tables.")


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.fhir.hapi", description=__doc__)
    options.add_argument("--fetch", action="store_true", help="install it, and start nothing")
    options.add_argument("--validate", action="store_true", help="refuse resources that are not valid")
    options.add_argument("--demo", action="store_true", help="let dicom-etl demo fill it first")
    options.add_argument("--port", type=int, default=0, help="where it listens (0: a free port)")
    given = options.parse_args()
    try:
        if given.fetch:
            install()
        else:
            serve_hapi(_demo if given.demo else None, validate=given.validate, port=given.port)
    except (ConfigurationError, StartFailed) as problem:
        sys.stderr.write(f"hapi: {problem}\n")
        return problem.exit_code if isinstance(problem, ConfigurationError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
