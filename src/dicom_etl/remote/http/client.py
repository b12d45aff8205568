"""Requests to one service, tried again within bounds (design/architecture.md: Reading the feed)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime
from threading import Lock
from types import TracebackType
from typing import TypeVar, cast
from urllib.parse import urlsplit

import httpx
import tenacity

from dicom_etl.core.clock import utc_now
from dicom_etl.core.errors import ServiceUnavailable
from dicom_etl.core.settings.rules import is_loopback
from dicom_etl.remote.http.endpoint import Endpoint
from dicom_etl.remote.http.request import HttpRequest
from dicom_etl.remote.http.response import NOT_JSON, HttpResponse
from dicom_etl.remote.http.retry import (
    DEFAULT_RETRY,
    MAX_ATTEMPTS,
    FailureKind,
    RetryableError,
    RetryPolicy,
    failure_of,
    wait_seconds,
)
from dicom_etl.remote.http.throttle import Throttle
from dicom_etl.remote.http.transport import Transport

_PAUSE_SLICE_SECONDS = 0.5

T = TypeVar("T")
log = logging.getLogger(__name__)


class KeepsFailing(ServiceUnavailable):
    """The service answers, but this request fails each time: the reason may be what was asked for."""


class Cancelled(Exception):
    """The caller no longer wants the answer; reaches only the caller that has set ``cancelled``."""


class HttpClient:
    """Sends requests to one service; safe to share between threads, to be closed at the end.

    ``host`` is its name and port, ``retries`` counts what was tried again. A request can reach the service twice, when
    its first answer is lost: what must not happen twice needs a header (such as If-Match) or a policy of the service.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = utc_now,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.monotonic = monotonic
        self.retries = 0
        self._endpoint = endpoint
        self._transport = Transport(endpoint, monotonic=monotonic, wall_clock=wall_clock, transport=transport)
        self.host = self._transport.host
        self._waited_slices = 0
        self._pulse = 0
        self._sleep = sleep
        self._throttle = Throttle(endpoint.connections)
        self._lock = Lock()

    def __enter__(self) -> HttpClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    @property
    def requests(self) -> int:
        """How many requests were sent, retries included."""
        return self._transport.requests

    def pulse(self) -> int:
        """A number that changes as long as requests go out, are answered within their time, or wait as told."""
        if self._transport.waiting_in_time:
            self._pulse += 1
        return self._pulse + self._transport.requests + self._waited_slices

    @property
    def overdue(self) -> bool:
        """Whether an answer is awaited whose time is over: it may never come."""
        return self._transport.overdue

    @property
    def service_time(self) -> int | None:
        """The ``Date`` of the newest answer in ticks; None before the first."""
        return self._transport.service_time

    def deadline(self, since: float) -> float:
        """Until when what began at ``since`` is tried again, both on the client's monotonic clock.

        Short before the first answer (Endpoint).
        """
        budget = self._endpoint.retry_seconds
        return since + (budget if self._transport.answered else min(budget, self._endpoint.first_answer_seconds))

    def send(
        self, request: HttpRequest, read: Callable[[HttpResponse], T], retry_policy: RetryPolicy = DEFAULT_RETRY
    ) -> T:
        """What ``read`` makes of the answer; ``read`` raises RetryableError for an answer that is worth a retry.

        Raises ServiceUnavailable when time or attempts are over (KeepsFailing when
        ``retry_policy.failing_attempts`` were), what the endpoint makes of a status, body.TooLarge, and Cancelled.
        """
        since = self.monotonic() if retry_policy.since is None else retry_policy.since
        failing = 0

        def looks_poisoned() -> bool:
            return retry_policy.failing_attempts is not None and failing >= retry_policy.failing_attempts

        def stop(state: tenacity.RetryCallState) -> bool:
            nonlocal failing
            failure = failure_of(state)
            failing += failure.weight if failure.kind is FailureKind.FAILING else 0
            too_late = self.monotonic() + state.upcoming_sleep > self.deadline(since)
            too_often = state.attempt_number >= MAX_ATTEMPTS
            return looks_poisoned() or too_late or too_often or retry_policy.cancelled()

        # tenacity, and not the shell stamina round it: that sleeps and tells the time by its own.
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(RetryableError),
            wait=lambda state: wait_seconds(failure_of(state), state.attempt_number),
            stop=stop,
            sleep=lambda seconds: self.pause(float(seconds), retry_policy.cancelled),
            before_sleep=self._note_retry,
            reraise=True,
        )
        try:
            return cast(T, retrying(self._attempt, request, read, retry_policy.cancelled))
        except RetryableError as failure:
            kind = KeepsFailing if looks_poisoned() else ServiceUnavailable
            raise kind(_advice(failure, self._endpoint, self.host)) from failure

    def throttled(self, retry_after: float | None) -> None:
        """Fewer requests from now on, and none for so many seconds: also said by a part of a good answer."""
        closed = min(retry_after or 0.0, self._endpoint.retry_seconds)
        self._throttle.throttled(self.monotonic() + closed)

    def pause(self, seconds: float, cancelled: Callable[[], bool]) -> None:
        """Sleeps, in slices so that a cancelled caller is not kept."""
        while seconds > 0 and not cancelled():
            self._sleep(min(seconds, _PAUSE_SLICE_SECONDS))
            seconds -= _PAUSE_SLICE_SECONDS
            self._waited_slices += 1

    def _attempt(self, request: HttpRequest, read: Callable[[HttpResponse], T], cancelled: Callable[[], bool]) -> T:
        # What the service asked of one connection holds for all of them.
        self.pause(self._throttle.closed_until - self.monotonic(), cancelled)
        with self._throttle.slot(cancelled):
            if cancelled():
                raise Cancelled
            response = self._transport.exchange(request)
        try:
            self._check(request, response)
        except RetryableError as failure:
            if failure.kind is FailureKind.THROTTLED or failure.retry_after is not None:
                self.throttled(failure.retry_after)
            raise
        self._throttle.answered()
        return read(response)

    def _check(self, request: HttpRequest, response: HttpResponse) -> None:
        if response.status not in request.expected:
            self._endpoint.raise_for_status(request, response, self.host)
        if request.expect_json and response.status == 200 and not response.is_json:
            raise RetryableError(NOT_JSON, FailureKind.FAILING, response.retry_after)

    def _note_retry(self, state: tenacity.RetryCallState) -> None:
        with self._lock:
            self.retries += 1
        # Before the first answer the error itself will say it, in one line: nothing was under way that waits.
        log.log(
            logging.WARNING if self._transport.answered else logging.DEBUG,
            "retrying request",
            extra={
                "service": self._endpoint.name,
                "reason": failure_of(state).reason,
                "attempt": state.attempt_number,
                "wait_seconds": round(state.upcoming_sleep, 3),
            },
        )


def _advice(failure: RetryableError, endpoint: Endpoint, host: str) -> str:
    hint = "run again later"
    if failure.kind is FailureKind.UNREACHABLE:
        hint = f"check {endpoint.address_key} and the network"
        if is_loopback(urlsplit(f"//{host}").hostname or ""):
            hint = f"no service runs there now (the demo's ends with the demo); start one, or {hint}"
    elif failure.reason == NOT_JSON:
        hint += f"; if it stays so, something else answers there: check {endpoint.address_key}, and proxies"
    elif failure.retry_after is not None:
        hint = f"it asks to wait {failure.retry_after:.0f} s; run again later"
        hint += f" or raise {endpoint.retry_key}" if endpoint.retry_key else ""
    return f"{endpoint.name} at {host} {failure.kind.value}: {failure.reason}; {hint}"
