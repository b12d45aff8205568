"""Requests to the DICOM service, tried again within bounds (design/architecture.md: Reading the feed)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Lock
from types import TracebackType
from typing import TypeVar, cast

import httpx
import tenacity

from dicom_etl.core.errors import ConfigurationError, ServiceUnavailable
from dicom_etl.core.settings.model import Dicom
from dicom_etl.remote.http.response import NOT_JSON, Answer, judge
from dicom_etl.remote.http.retry import MAX_ATTEMPTS, PATIENT, Failure, Kind, Patience, Retry, failure_of, wait_seconds
from dicom_etl.remote.http.throttle import Throttle
from dicom_etl.remote.http.transport import Call, Token, Wire

SECONDS_BEFORE_FIRST_ANSWER = 30.0
_PAUSE_SLICE_SECONDS = 0.5

T = TypeVar("T")
log = logging.getLogger(__name__)


class KeepsFailing(ServiceUnavailable):
    """The service answers, but this request fails each time: the reason may be what was asked for."""


class Cancelled(Exception):
    """The caller no longer wants the answer; reaches only the caller that has set ``stop``."""


def utc_now() -> datetime:
    return datetime.now(UTC)


def connect(
    settings: Dicom,
    token: Token | None = None,
    *,
    sleep: Callable[[float], None] = time.sleep,
    monotonic: Callable[[], float] = time.monotonic,
    wall_clock: Callable[[], datetime] = utc_now,
    transport: httpx.BaseTransport | None = None,
    on_retry: Callable[[Retry], None] | None = None,
) -> DicomClient:
    """A client of the service that ``settings`` names; nothing is sent yet.

    ``token`` is None where the service wants none. ``on_retry`` is told before each wait, from any thread.
    Raises ConfigurationError when no address is set.
    """
    if not settings.base_url:
        raise ConfigurationError("dicom.base_url: is not set; give the address of the DICOM service")
    wire = Wire(settings, token, monotonic=monotonic, wall_clock=wall_clock, transport=transport)
    return DicomClient(settings, wire, sleep=sleep, monotonic=monotonic, on_retry=on_retry)


class DicomClient:
    """Sends requests to one DICOM service; safe to share between threads, to be closed at the end.

    ``host`` is its name and port, ``retries`` counts what was tried again.
    """

    def __init__(
        self,
        settings: Dicom,
        wire: Wire,
        *,
        sleep: Callable[[float], None],
        monotonic: Callable[[], float],
        on_retry: Callable[[Retry], None] | None,
    ) -> None:
        self.settings = settings
        self.host = wire.host
        self.monotonic = monotonic
        self.retries = 0
        self._waited_slices = 0
        self._pulse = 0
        self._wire = wire
        self._sleep = sleep
        self._on_retry = on_retry
        self._throttle = Throttle(settings.connections)
        self._lock = Lock()

    def __enter__(self) -> DicomClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._wire.close()

    @property
    def requests(self) -> int:
        """How many requests were sent, retries included."""
        return self._wire.requests

    def pulse(self) -> int:
        """A number that changes as long as requests go out, are answered within their time, or wait as told."""
        if self._wire.waiting_in_time:
            self._pulse += 1
        return self._pulse + self._wire.requests + self._waited_slices

    @property
    def service_time(self) -> int | None:
        """The ``Date`` of the newest answer in ticks; None before the first."""
        return self._wire.service_time

    def deadline(self, since: float) -> float:
        """Until when what began at ``since`` is tried again, both on the client's monotonic clock.

        Short before the first answer: a wrong address should be said soon. An error status is no answer yet.
        """
        budget = self.settings.retry_seconds
        return since + (budget if self._wire.answered else min(budget, SECONDS_BEFORE_FIRST_ANSWER))

    def send(self, call: Call, read: Callable[[Answer], T], patience: Patience = PATIENT) -> T:
        """What ``read`` makes of the answer; ``read`` raises Failure for an answer that is worth a retry.

        Raises ServiceUnavailable when time or attempts are over (KeepsFailing when
        ``patience.failing_attempts`` were), AccessDenied, ConfigurationError and ProtocolError as
        ``answer.judge`` says, and Cancelled.
        """
        since = self.monotonic() if patience.since is None else patience.since
        failing = 0

        def looks_poisoned() -> bool:
            return patience.failing_attempts is not None and failing >= patience.failing_attempts

        def stop(state: tenacity.RetryCallState) -> bool:
            nonlocal failing
            failure = failure_of(state)
            failing += failure.weight if failure.kind is Kind.FAILING else 0
            too_late = self.monotonic() + state.upcoming_sleep > self.deadline(since)
            too_often = state.attempt_number >= MAX_ATTEMPTS
            return looks_poisoned() or too_late or too_often or patience.cancelled()

        # tenacity, and not the shell stamina round it: that sleeps and tells the time by its own.
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Failure),
            wait=lambda state: wait_seconds(failure_of(state), state.attempt_number),
            stop=stop,
            sleep=lambda seconds: self.pause(float(seconds), patience.cancelled),
            before_sleep=self._note_retry,
            reraise=True,
        )
        try:
            return cast(T, retrying(self._attempt, call, read, patience.cancelled))
        except Failure as failure:
            kind = KeepsFailing if looks_poisoned() else ServiceUnavailable
            raise kind(_advice(failure, self.host)) from failure

    def pause(self, seconds: float, cancelled: Callable[[], bool]) -> None:
        """Sleeps, in slices so that a cancelled caller is not kept."""
        while seconds > 0 and not cancelled():
            self._sleep(min(seconds, _PAUSE_SLICE_SECONDS))
            seconds -= _PAUSE_SLICE_SECONDS
            self._waited_slices += 1

    def _attempt(self, call: Call, read: Callable[[Answer], T], cancelled: Callable[[], bool]) -> T:
        # What the service asked of one connection holds for all of them.
        self.pause(self._throttle.closed_until - self.monotonic(), cancelled)
        with self._throttle.slot(cancelled):
            if cancelled():
                raise Cancelled
            answer = self._wire.exchange(call)
        try:
            judge(answer, call.method, call.expected, call.json, self.host)
        except Failure as failure:
            if failure.kind is Kind.THROTTLED or failure.retry_after is not None:
                closed = min(failure.retry_after or 0.0, self.settings.retry_seconds)
                self._throttle.throttled(self.monotonic() + closed)
            raise
        self._throttle.answered()
        return read(answer)

    def _note_retry(self, state: tenacity.RetryCallState) -> None:
        with self._lock:
            self.retries += 1
        retry = Retry(failure_of(state).reason, state.attempt_number, round(state.upcoming_sleep, 3))
        # Before the first answer the error itself will say it, in one line: nothing was under way that waits.
        log.log(
            logging.WARNING if self._wire.answered else logging.DEBUG,
            "the service is asked again",
            extra={"reason": retry.reason, "attempt": retry.attempt, "wait_seconds": retry.wait_seconds},
        )
        if self._on_retry is not None:
            self._on_retry(retry)


def _advice(failure: Failure, host: str) -> str:
    hint = "run again later"
    if failure.kind is Kind.UNREACHABLE:
        hint = "check dicom.base_url and the network"
    elif failure.reason == NOT_JSON:
        hint = "run again later; if it stays so, something else answers there: check dicom.base_url, and proxies"
    elif failure.retry_after is not None:
        hint = f"it asks to wait {failure.retry_after:.0f} s; run again later or raise dicom.retry_seconds"
    return f"the DICOM service at {host} {failure.kind.value}: {failure.reason}; {hint}"
