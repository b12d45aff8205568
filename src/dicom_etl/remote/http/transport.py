"""One request and its answer over the pooled connection, with our token and without retries."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import datetime
from threading import Lock
from urllib.parse import urlsplit

import httpx

from dicom_etl.core.errors import AccessDenied
from dicom_etl.core.timerange import from_datetime
from dicom_etl.remote.http.body import read_body, stream_body
from dicom_etl.remote.http.connection import callable_address, http_client
from dicom_etl.remote.http.endpoint import Endpoint
from dicom_etl.remote.http.request import HttpRequest
from dicom_etl.remote.http.response import HttpResponse
from dicom_etl.remote.http.retry import FailureKind, RetryableError, http_date, retry_after_seconds

# An error's text is not worth more than this; only what was asked for may be large.
_LARGEST_ERROR_BYTES = 1 << 20


class Transport:
    """The connections to one service; safe to share between threads, to be closed at the end.

    ``requests`` counts what was sent, ``answered`` tells whether the service ever was there and well,
    ``service_time`` is the ``Date`` of the newest answer in ticks.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        monotonic: Callable[[], float],
        wall_clock: Callable[[], datetime],
        transport: httpx.BaseTransport | None,
    ) -> None:
        address = urlsplit(endpoint.base_url)
        self.host = address.netloc.rpartition("@")[2]
        self.requests = 0
        self.answered = False
        self.service_time: int | None = None
        self._endpoint = endpoint
        self._base_url = endpoint.base_url.rstrip("/")
        self._monotonic = monotonic
        self._wall_clock = wall_clock
        self._lock = Lock()
        self._token_lock = Lock()
        self._in_flight = 0
        self._in_time_until = 0.0
        self._http = http_client(address.hostname or "", endpoint.timeout_seconds, endpoint.connections, transport)

    def close(self) -> None:
        self._http.close()

    @property
    def waiting_in_time(self) -> bool:
        """Whether an answer is awaited whose time is not over yet."""
        return self._in_flight > 0 and self._monotonic() < self._in_time_until

    @property
    def overdue(self) -> bool:
        """Whether an answer is awaited whose time is over."""
        return self._in_flight > 0 and self._monotonic() >= self._in_time_until

    def exchange(self, request: HttpRequest) -> HttpResponse:
        """The answer, whatever its status; a refused token is renewed and the request repeated, once.

        Raises RetryableError when no whole answer came, body.TooLarge, and what the token's source raises.
        """
        source = self._endpoint.token
        if source is None:
            return self._send(request, None)
        token = source(False)
        response = self._send(request, token)
        if response.status == 401:
            response = self._send(request, self._renewed(source, token))
        return response

    def _renewed(self, source: Callable[[bool], str], refused: str) -> str:
        """A token other than the refused one; of many threads that were refused at once, one renews."""
        with self._token_lock:
            current = source(False)
            return current if current != refused else source(True)

    def _send(self, request: HttpRequest, token: str | None) -> HttpResponse:
        headers, content = request.encoded()
        if token is not None:
            headers["Authorization"] = f"Bearer {printable(token)}"
        give_up_at = self._monotonic() + self._endpoint.timeout_seconds
        with self._lock:
            self.requests += 1
            self._in_flight += 1
            self._in_time_until = give_up_at
        url = self._base_url + request.path
        # httpx takes an empty mapping for "without a query", also where the path has one.
        params = dict(request.params) or None
        try:
            with (
                callable_address(self.host, self._endpoint.address_key),
                self._http.stream(request.method, url, params=params, headers=headers, content=content) as response,
            ):
                self._note(response)
                body = self._body(request, response, give_up_at)
        except httpx.RequestError as error:
            raise _retryable_error(error) from error
        finally:
            with self._lock:
                self._in_flight -= 1
        now = http_date(response.headers.get("date")) or self._wall_clock()
        wait = retry_after_seconds(response.headers.get("retry-after"), now)
        return HttpResponse(response.status_code, response.headers, body, wait)

    def _body(self, request: HttpRequest, response: httpx.Response, give_up_at: float) -> bytes:
        if request.sink is not None and response.status_code == 200:
            take = request.sink(response.headers)
            stream_body(response, take, self._endpoint.timeout_seconds, self._monotonic)
            return b""
        wanted = response.status_code in request.expected
        return read_body(response, give_up_at, self._monotonic, request.max_bytes if wanted else _LARGEST_ERROR_BYTES)

    def _note(self, response: httpx.Response) -> None:
        date = http_date(response.headers.get("date"))
        with self._lock:
            self.answered = self.answered or response.status_code not in self._endpoint.gateway_statuses
            if date is not None:
                self.service_time = from_datetime(date)


def _retryable_error(error: httpx.RequestError) -> RetryableError:
    """httpx's error in a word of ours: its own text may quote what was sent."""
    cause = _cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        reason = "a certificate that this machine does not trust (see SSL_CERT_FILE)"
        return RetryableError(reason, FailureKind.UNREACHABLE)
    if isinstance(cause, ssl.SSLError):
        return RetryableError("no TLS 1.2 or newer", FailureKind.UNREACHABLE)
    if isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout):
        return RetryableError("an answer that took too long", FailureKind.FAILING, weight=2)
    if isinstance(error, httpx.TimeoutException | httpx.ConnectError | httpx.ProxyError):
        return RetryableError("no connection", FailureKind.UNREACHABLE)
    return RetryableError("a cut connection", FailureKind.FAILING)


def _cause(error: BaseException) -> BaseException:
    """What lies at the bottom of a chain of errors."""
    while (below := error.__cause__ or error.__context__) is not None:
        error = below
    return error


def printable(token: str) -> str:
    """The token as a header can carry it. Raises AccessDenied for what cannot be one."""
    text = token.strip() if isinstance(token, str) else ""  # an endpoint of identities may give a number
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise AccessDenied("the token is empty or holds characters that no token has; fetch a new one")
    return text
