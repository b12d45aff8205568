"""The heartbeat of a claim: its file is written again as long as the work moves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime

import msgspec

from dicom_etl.core.errors import DicomEtlError
from dicom_etl.lake.claims.file import ClaimFile, ClaimFolder

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 10.0
_JOIN_SECONDS = 2.0


class Heartbeat:
    """Writes the claim's file every ``interval_seconds`` in a thread of its own, until it is stopped.

    ``progress`` returns a value that changes when work moves; it may block as long as it likes (then there is
    no beat), and what it raises means no beat either. Without it there is a beat at every interval.
    """

    def __init__(
        self,
        folder: ClaimFolder,
        file: ClaimFile,
        *,
        clock: Callable[[], datetime],
        progress: Callable[[], object] | None,
        interval_seconds: float,
    ) -> None:
        self._folder = folder
        self._file = file
        self._clock = clock
        self._progress = progress
        self._interval_seconds = interval_seconds
        self._seen: object = self  # equal to no progress
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"claim-{file.run_id}", daemon=True)

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def beat(self) -> bool:
        """Write the file once if the work has moved and no newer run is there; whether it was written."""
        seen = object() if self._progress is None else self._progress()
        try:
            if seen == self._seen or self._is_overtaken():
                return False
            self._write()
        except DicomEtlError as error:
            logger.warning("heartbeat not written", extra=self._fields(error))
            return False
        self._seen = seen
        return not self._ended.is_set()

    def _is_overtaken(self) -> bool:
        """Whether a newer claim stands for another run; one that is about to step back looks like one, too."""
        return any(self._counts(i) for i in self._folder.ids() if i > self._file.run_id)

    def _write(self) -> None:
        with self._writing:
            if not self._ended.is_set():
                beats = self._file.beats + 1
                beaten = msgspec.structs.replace(self._file, heartbeat_at=self._clock(), beats=beats)
                self._folder.write(beaten, writer=self._file.run_id)
                self._file = beaten

    def stop(self) -> None:
        """Beat no more and mark the claim released; may be called again. A storage error is only logged."""
        with self._writing:
            if self._ended.is_set():
                return
            self._ended.set()
            self._file = msgspec.structs.replace(self._file, heartbeat_at=self._clock(), released=True)
            try:
                self._folder.write(self._file, writer=self._file.run_id)
            except DicomEtlError as error:
                logger.warning("claim not released", extra=self._fields(error))
        if self._thread.is_alive():
            # A thread that waits in `progress` is left behind: it writes nothing any more.
            self._thread.join(timeout=_JOIN_SECONDS)

    def _counts(self, run_id: int) -> bool:
        """Whether a newer claim stands for another run that works or has worked."""
        snapshot = self._folder.read(run_id)
        if snapshot is None or snapshot.file is None:
            return snapshot is not None
        return not snapshot.file.withdrawn and snapshot.file.process != self._file.process

    def _run(self) -> None:
        while not self._ended.wait(self._interval_seconds):
            try:
                self.beat()
            except Exception as error:  # noqa: BLE001 - the edge of a thread, and `progress` is the caller's
                # A dead JVM raises what only py4j knows; a traceback would show it, and end the heartbeat.
                logger.warning("progress not known", extra=self._fields(error))

    def _fields(self, error: Exception) -> dict[str, object]:
        return {"run_id": self._file.run_id, "error_class": type(error.__cause__ or error).__name__}
