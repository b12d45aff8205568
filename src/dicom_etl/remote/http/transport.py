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
from dicom_etl.remote.http.body import read_body
from dicom_etl.remote.http.connection import callable_address, http_client
from dicom_etl.remote.http.endpoint import Endpoint
from dicom_etl.remote.http.request import Call
from dicom_etl.remote.http.response import Answer
from dicom_etl.remote.http.retry import Failure, Kind, http_date, retry_after_seconds

# An error's text is not worth more than this; only what was asked for may be large.
_LARGEST_ERROR_BYTES = 1 << 20


class Wire:
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

    def exchange(self, call: Call) -> Answer:
        """The answer, whatever its status; a refused token is renewed and the request repeated, once.

        Raises Failure when no whole answer came, body.TooLarge, and what the token's source raises.
        """
        source = self._endpoint.token
        if source is None:
            return self._send(call, None)
        token = source(False)
        answer = self._send(call, token)
        if answer.status == 401:
            answer = self._send(call, self._renewed(source, token))
        return answer

    def _renewed(self, source: Callable[[bool], str], refused: str) -> str:
        """A token other than the refused one; of many threads that were refused at once, one renews."""
        with self._token_lock:
            current = source(False)
            return current if current != refused else source(True)

    def _send(self, call: Call, token: str | None) -> Answer:
        headers, content = call.encoded()
        if token is not None:
            headers["Authorization"] = f"Bearer {printable(token)}"
        give_up_at = self._monotonic() + self._endpoint.timeout_seconds
        with self._lock:
            self.requests += 1
            self._in_flight += 1
            self._in_time_until = give_up_at
        url = self._base_url + call.path
        try:
            with (
                callable_address(self.host, self._endpoint.address_key),
                self._http.stream(
                    call.method, url, params=dict(call.params), headers=headers, content=content
                ) as response,
            ):
                self._note(response)
                wanted = response.status_code in call.expected
                most = call.max_bytes if wanted else _LARGEST_ERROR_BYTES
                body = read_body(response, give_up_at, self._monotonic, most)
        except httpx.RequestError as error:
            raise _failure(error) from error
        finally:
            with self._lock:
                self._in_flight -= 1
        now = http_date(response.headers.get("date")) or self._wall_clock()
        wait = retry_after_seconds(response.headers.get("retry-after"), now)
        return Answer(response.status_code, response.headers, body, wait)

    def _note(self, response: httpx.Response) -> None:
        moment = http_date(response.headers.get("date"))
        with self._lock:
            self.answered = self.answered or response.status_code not in self._endpoint.gateway_statuses
            if moment is not None:
                self.service_time = from_datetime(moment)


def _failure(error: httpx.RequestError) -> Failure:
    """httpx's error in a word of ours: its own text may quote what was sent."""
    if isinstance(_cause(error), ssl.SSLError) and not isinstance(_cause(error), ssl.SSLCertVerificationError):
        return Failure("no TLS 1.2 or newer", Kind.UNREACHABLE)
    if isinstance(_cause(error), ssl.SSLError):
        return Failure("a certificate that this machine does not trust (see SSL_CERT_FILE)", Kind.UNREACHABLE)
    if isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout):
        return Failure("an answer that took too long", Kind.FAILING, weight=2)
    if isinstance(error, httpx.TimeoutException | httpx.ConnectError | httpx.ProxyError):
        return Failure("no connection", Kind.UNREACHABLE)
    return Failure("a cut connection", Kind.FAILING)


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
