"""A FHIR server on a loopback socket, in a thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dicom_emulator.fhir.app import BASE_PATH, make_fhir_app
from dicom_emulator.fhir.options import FhirOptions
from dicom_emulator.fhir.service import FhirService
from dicom_emulator.http.listening import Listening, bound


@dataclass(frozen=True)
class FhirEmulator:
    """A server that answers at `base_url`; `service` is its state."""

    base_url: str
    service: FhirService
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
def serve_fhir(options: FhirOptions | None = None, host: str = "127.0.0.1", port: int = 0) -> Iterator[FhirEmulator]:
    """Serves until the block ends, on a free port when `port` is 0. Raises OSError when it cannot be bound."""
    service = FhirService(options)
    listening = Listening(lambda: make_fhir_app(service), bound(host, port))
    try:
        listening.start()
        yield FhirEmulator(f"{listening.address}{BASE_PATH}", service, listening)
    finally:
        listening.stop()
