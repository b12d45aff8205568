"""The client's decisions: what is tried again, how long, what each status becomes."""

from __future__ import annotations

import gzip
import logging
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from threading import Thread
from typing import Any, NoReturn

import httpx
import pytest

from dicom_etl.core.errors import AccessDenied, ConfigurationError, DicomEtlError, ProtocolError, ServiceUnavailable
from dicom_etl.core.settings.model import Dicom
from dicom_etl.core.timerange import from_datetime
from dicom_etl.dicomweb.connect import connect
from dicom_etl.remote.http.body import TooLarge
from dicom_etl.remote.http.client import Cancelled, HttpClient, KeepsFailing
from dicom_etl.remote.http.connection import tls_context
from dicom_etl.remote.http.endpoint import Endpoint
from dicom_etl.remote.http.request import HttpRequest
from dicom_etl.remote.http.response import HttpResponse, raise_if_retryable
from dicom_etl.remote.http.retry import FailureKind, RetryableError, RetryPolicy, retry_after_seconds, wait_seconds
from dicom_etl.remote.http.throttle import Throttle

JSON = {"content-type": "application/json; charset=utf-8"}
NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=timezone(timedelta(hours=5, minutes=30)))
GET = HttpRequest("/v2/changefeed", expect_json=True)


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds

    def monotonic(self) -> float:
        return self.now


class Script:
    """A service that plays a list of answers, the last one for ever."""

    def __init__(self, *answers: httpx.Response | Exception | Callable[[], httpx.Response]) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer


def settings(**changes: object) -> Dicom:
    values = {
        "base_url": "https://svc.example:8443/root/",
        "api_version": 2,
        "auth": "none",
        "token_env": "T",
        "connections": 4,
        "timeout_seconds": 100.0,
        "retry_seconds": 300.0,
    }
    return Dicom(**{**values, **changes})


def client_of(
    script: Script, clock: Clock | None = None, token: Callable[[bool], str] | None = None, **changes: object
) -> HttpClient:
    clock = clock or Clock()
    return connect(
        settings(**changes),
        token,
        sleep=clock.sleep,
        monotonic=clock.monotonic,
        wall_clock=lambda: NOON,
        transport=httpx.MockTransport(script),
    )


def answer(status: int = 200, body: bytes = b"[]", **headers: str) -> Callable[[], httpx.Response]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda: httpx.Response(status, headers={**JSON, **named}, stream=httpx.ByteStream(body))


def body_of(got: HttpResponse) -> bytes:
    return got.body


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_errors_are_tried_again(status: int) -> None:
    """Every status that may pass is asked again until it passes, and counted."""
    script = Script(answer(status), answer(status), answer())
    with client_of(script) as client:
        assert client.send(GET, body_of) == b"[]"
    assert len(script.requests) == 3
    assert (client.requests, client.retries) == (3, 2)


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("secret"),
        httpx.ConnectTimeout("secret"),
        httpx.ReadTimeout("secret"),
        httpx.ReadError("secret"),
        httpx.RemoteProtocolError("secret"),
        httpx.PoolTimeout("secret"),
    ],
)
def test_broken_connections_are_tried_again(error: Exception) -> None:
    """Refused, reset, cut and slow connections are asked again."""
    script = Script(error, answer())
    with client_of(script) as client:
        assert client.send(GET, body_of) == b"[]"
    assert client.retries == 1


@pytest.mark.parametrize(
    "broken",
    [
        answer(200, b"<html>", content_type="text/html"),
        answer(200, gzip.compress(b"[1, 2, 3, 4]" * 50)[:-9], content_encoding="gzip"),
        answer(200, b"no gzip at all", content_encoding="gzip"),
        answer(200, b"[]", content_encoding="br"),
    ],
)
def test_bodies_that_cannot_be_used_are_tried_again(broken: Callable[[], httpx.Response]) -> None:
    """HTML with status 200, a truncated gzip stream and an encoding nobody asked for do not count as answers."""
    script = Script(broken, answer(200, gzip.compress(b"[7]"), content_encoding="gzip"))
    with client_of(script) as client:
        assert client.send(GET, body_of) == b"[7]"
    assert client.retries == 1


def test_a_page_of_something_else_is_said_to_be_that() -> None:
    """A sign-in page, or a proxy's: the address is to be looked at, should it stay so."""
    script = Script(answer(200, b"<html>", content_type="text/html"))
    with client_of(script) as client, pytest.raises(ServiceUnavailable, match="something else answers there: check"):
        client.send(GET, body_of)
    assert len(script.requests) > 1


def test_a_body_that_trickles_longer_than_the_timeout_is_given_up() -> None:
    """The timeout bounds the whole answer: httpx's own starts anew with each byte."""
    clock = Clock()

    class Trickle(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for _ in range(30):
                clock.now += 9.0
                yield b" "

    slow = httpx.Response(200, headers=JSON, stream=Trickle())
    script = Script(slow, answer())
    with client_of(script, clock) as client:
        client.send(GET, body_of)
        clock.now = 1000.0
    assert client.retries == 1


@pytest.mark.parametrize("value", ["7", "Sun, 01 Mar 2026 06:30:07 GMT"])
def test_retry_after_is_waited_for(value: str) -> None:
    """Retry-After in seconds and as a date (06:30 GMT is the frozen noon) is waited for, and hardly longer."""
    clock = Clock()
    script = Script(answer(503, retry_after=value), answer())
    with client_of(script, clock) as client:
        client.send(GET, body_of)
    assert 7.0 <= clock.slept <= 7.4


def test_a_retry_after_date_is_read_by_the_services_own_clock() -> None:
    """A date means the clock of who wrote it: the answer's Date header wins over ours."""
    clock = Clock()
    late = answer(429, retry_after="Sun, 01 Mar 2026 10:00:20 GMT", date="Sun, 01 Mar 2026 10:00:00 GMT")
    with client_of(Script(late, answer()), clock) as client:
        client.send(GET, body_of)
    assert 20.0 <= clock.slept <= 21.0


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        ("Sun, 01 Mar 2026 06:31:00 GMT", 60.0),
        ("Sun, 01 Mar 2026 06:00:00 GMT", 0.0),
        ("soon", None),
        ("Fri, 31 Dec 9999 23:59:59 -0100", None),
        ("Fri, 31 Dec 99999999999999999999 23:59:59 GMT", None),
        ("-5", None),
        ("1.5", None),
        ("9" * 40, 1e8),
        (None, None),
    ],
)
def test_retry_after_is_read(value: str | None, seconds: float | None) -> None:
    """Seconds or a date; what is neither is as if absent."""
    assert retry_after_seconds(value, NOON) == seconds


def test_a_retry_after_beyond_what_is_left_ends_at_once() -> None:
    """Nobody waits for a moment that comes after the end of the retries."""
    clock = Clock()
    script = Script(answer(), answer(503, retry_after="301"))
    with client_of(script, clock) as client:
        client.send(GET, body_of)
        with pytest.raises(ServiceUnavailable, match=r"svc.example:8443 .* asks to wait 301 s; run again later"):
            client.send(GET, body_of)
    assert len(script.requests) == 2
    assert clock.slept == 0.0


def test_of_a_local_service_that_stopped_it_is_said() -> None:
    """As after the demo: the network is not what has failed."""
    with (
        client_of(Script(httpx.ConnectError("x")), base_url="http://127.0.0.1:8080/") as client,
        pytest.raises(ServiceUnavailable) as stopped,
    ):
        client.send(GET, body_of)
    assert str(stopped.value).endswith(
        "127.0.0.1:8080 cannot be reached: no connection; no service runs there now (the demo's ends with the demo); "
        "start one, or check dicom.base_url and the network"
    )


def test_before_the_first_answer_the_patience_is_short() -> None:
    """An address where nothing answers is said within 30 s; a service that has answered gets its 300 s."""
    clock = Clock()
    script = Script(httpx.ConnectError("x"))
    with client_of(script, clock) as client:
        with pytest.raises(ServiceUnavailable, match=r"svc.example:8443 cannot be reached: no connection; check"):
            client.send(GET, body_of)
        first = clock.slept
        script.answers = [answer()]
        client.send(GET, body_of)
        script.answers = [answer(503)]
        with pytest.raises(ServiceUnavailable, match="keeps failing: status 503; run again later"):
            client.send(GET, body_of)
    assert 10.0 < first <= 30.0
    assert 150.0 < clock.slept - first <= 300.0


def test_retries_are_bounded_in_count() -> None:
    """A service that always asks for no wait at all is not hammered."""
    script = Script(answer(), answer(429, retry_after="0"))
    with client_of(script, retry_seconds=1e9) as client:
        client.send(GET, body_of)
        with pytest.raises(ServiceUnavailable, match="asks for fewer requests"):
            client.send(GET, body_of)
    assert len(script.requests) == 1 + 20


def test_waits_grow_and_are_jittered() -> None:
    """Waits double from a quarter of a second to 30 s, and no two connections wait alike."""
    failure = RetryableError("x", FailureKind.FAILING)
    for attempt, longest in [(1, 0.25), (2, 0.5), (5, 4.0), (8, 30.0), (20, 30.0)]:
        waits = [wait_seconds(failure, attempt) for _ in range(50)]
        assert all(longest / 2 <= wait <= longest for wait in waits)
        assert len(set(waits)) > 1


def test_the_log_of_a_retry_holds_no_values(caplog: pytest.LogCaptureFixture) -> None:
    """Constants and numbers: no address, no query, no foreign text."""
    clock = Clock()
    transport = httpx.MockTransport(Script(httpx.ReadError("patient DOE"), answer(503), answer()))
    call = HttpRequest("/v2/changefeed", params={"PatientID": "PAT4711"}, expect_json=True)
    with (
        caplog.at_level(logging.DEBUG, logger="dicom_etl"),
        connect(settings(), sleep=clock.sleep, monotonic=clock.monotonic, transport=transport) as client,
    ):
        client.send(call, body_of)
    records = [r for r in caplog.records if r.name.startswith("dicom_etl")]
    assert [(r.getMessage(), vars(r)["service"], vars(r)["reason"], vars(r)["attempt"]) for r in records] == [
        ("retrying request", "the DICOM service", "a cut connection", 1),
        ("retrying request", "the DICOM service", "status 503", 2),
    ]
    everything = " ".join(str(r.__dict__) for r in records)
    assert not [word for word in ("DOE", "PAT4711", "PatientID", "https") if word in everything]


# -- statuses that are no passing trouble

PLAIN = {"content_type": "text/plain"}


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [
        (answer(403), AccessDenied, "assign the role DICOM Data Reader"),
        (answer(401), AccessDenied, r"does not accept the token \(401\)"),
        (answer(404), ConfigurationError, r"dicom.base_url: .*svc.example:8443 \(404\)"),
        (answer(301, location="https://evil.example/"), ConfigurationError, r"dicom.base_url: .*redirects \(301\)"),
        (answer(307, location="/other"), ConfigurationError, r"redirects \(307\)"),
        (answer(400, b'{"error": {"code": "UnsupportedApiVersion"}}'), ConfigurationError, "dicom.api_version"),
        (answer(400, b"The query parameter 'Limit' is invalid.", **PLAIN), ProtocolError, "status 400"),
        (answer(424), ServiceUnavailable, r"\(424\)"),
        (answer(204, b""), ProtocolError, "status 204"),
        (answer(410), ProtocolError, "status 410"),
        (answer(501), ProtocolError, "status 501"),
    ],
)
def test_statuses_become_named_errors_at_once(
    reply: Callable[[], httpx.Response], error: type[DicomEtlError], message: str
) -> None:
    """What waiting does not mend is not tried again, and says what to do."""
    script = Script(reply)
    with client_of(script) as client, pytest.raises(error, match=message):
        client.send(GET, body_of)
    assert len(script.requests) == 1


def test_a_denied_upload_names_the_writing_role() -> None:
    """Who may only read is told the role that may write."""
    with client_of(Script(answer(403))) as client, pytest.raises(AccessDenied, match="the role DICOM Data Owner"):
        client.send(HttpRequest("/v2/studies", method="POST", content=b"x"), body_of)


def test_no_address_is_a_configuration_error() -> None:
    """Without dicom.base_url nothing is sent."""
    with pytest.raises(ConfigurationError, match=r"dicom.base_url: is not set"):
        connect(settings(base_url=""))


# -- tokens


def test_a_refused_token_is_renewed_once() -> None:
    """401 renews the token and repeats the request; that is no retry."""
    asked: list[bool] = []

    def token(renew: bool) -> str:
        asked.append(renew)
        return "new" if True in asked else "old"

    script = Script(answer(401), answer())
    with client_of(script, token=token) as client:
        client.send(GET, body_of)
    assert [r.headers["authorization"] for r in script.requests] == ["Bearer old", "Bearer new"]
    assert asked.count(True) == 1
    assert client.retries == 0


def test_a_token_refused_twice_is_access_denied() -> None:
    """After one renewal there is no second."""
    script = Script(answer(401))
    with client_of(script, token=lambda _renew: "t") as client, pytest.raises(AccessDenied):
        client.send(GET, body_of)
    assert len(script.requests) == 2


def test_many_threads_refused_at_once_renew_one_token() -> None:
    """The first thread renews; the others take the new token."""
    current = ["old"]
    renewals: list[None] = []

    def token(renew: bool) -> str:
        if renew:
            renewals.append(None)
            current[0] = "new"
        return current[0]

    def service(request: httpx.Request) -> httpx.Response:
        good = request.headers["authorization"] == "Bearer new"
        return httpx.Response(200 if good else 401, headers=JSON, stream=httpx.ByteStream(b"[]"))

    with connect(settings(), token, transport=httpx.MockTransport(service)) as client:
        threads = [Thread(target=client.send, args=(GET, body_of)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.requests >= 8
    assert len(renewals) == 1


def test_a_token_is_not_sent_after_a_redirect() -> None:
    """The only request goes to the configured host."""
    script = Script(answer(302, location="https://evil.example/v2/changefeed"))
    with client_of(script, token=lambda _renew: "t") as client, pytest.raises(ConfigurationError):
        client.send(GET, body_of)
    assert [r.url.host for r in script.requests] == ["svc.example"]


@pytest.mark.parametrize("bad", ["", "two words", "a\nb", "tökn"])
def test_a_token_that_cannot_be_one_is_refused_without_its_text(bad: str) -> None:
    """A broken token is named as such and not quoted."""
    with client_of(Script(answer()), token=lambda _renew: bad) as client, pytest.raises(AccessDenied) as caught:
        client.send(GET, body_of)
    assert not bad or bad not in str(caught.value)


# -- what is sent, what is noted


def test_requests_go_below_the_base_url_with_gzip_welcome() -> None:
    """The path is put behind the base address; no plus sign stands in a query; gzip is asked for."""
    script = Script(answer())
    with client_of(script) as client:
        client.send(
            HttpRequest("/v2/changefeed", params={"startTime": "2026-01-01T00:00:00Z"}, expect_json=True), body_of
        )
    (request,) = script.requests
    assert request.url.path == "/root/v2/changefeed"
    assert "+" not in str(request.url.query)
    assert request.headers["accept-encoding"] == "gzip"
    assert "authorization" not in request.headers


def test_the_services_clock_is_kept() -> None:
    """The Date of the newest answer, errors included, is the service's time; before any answer there is none."""
    script = Script(answer(200, date="Sun, 01 Mar 2026 06:30:00 GMT"))
    with client_of(script) as client:
        assert client.service_time is None
        client.send(GET, body_of)
        assert client.service_time == from_datetime(datetime(2026, 3, 1, 6, 30, tzinfo=UTC))


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_body_beyond_the_bound_is_not_read_to_its_end(encoding: str) -> None:
    """A body over max_bytes ends the request without retries, unpacked or not."""
    body = b"[" + b" " * 1_000_000 + b"]"
    reply = answer(200, gzip.compress(body) if encoding == "gzip" else body, content_encoding=encoding)
    script = Script(reply)
    with client_of(script) as client, pytest.raises(TooLarge):
        client.send(HttpRequest("/v2/changefeed", expect_json=True, max_bytes=1000), body_of)
    assert len(script.requests) == 1


def test_the_pulse_stops_with_an_answer_that_is_overdue() -> None:
    """It changes while an answer may still come in time; later another run may take the claim."""
    clock = Clock()
    pulses: list[int] = []
    late: list[bool] = []

    def overdue() -> httpx.Response:
        pulses.extend([client.pulse(), client.pulse()])
        late.append(client.overdue)
        clock.now += 100.0
        pulses.extend([client.pulse(), client.pulse()])
        late.append(client.overdue)
        return answer()()

    with client_of(Script(overdue), clock) as client:
        client.send(GET, body_of)
        late.append(client.overdue)
    assert len(pulses) == 4
    assert late == [False, True, False]
    assert (pulses[0] != pulses[1], pulses[2] != pulses[3]) == (True, False)


# -- any service


def fhir(script: Script, clock: Clock, **changes: Any) -> HttpClient:
    """A client of a service of another kind: what its statuses mean is handed in."""

    def raise_for_status(request: HttpRequest, answer: HttpResponse, host: str) -> NoReturn:
        raise_if_retryable(answer, str(answer.status))
        raise ProtocolError(f"{host} refuses a {request.method} with {answer.status}")

    endpoint = Endpoint("the FHIR server", "https://fhir.example/r4", "fhir.base_url", raise_for_status)
    return HttpClient(
        replace(endpoint, **changes),
        sleep=clock.sleep,
        monotonic=clock.monotonic,
        transport=httpx.MockTransport(script),
    )


def test_another_service_says_what_its_statuses_mean() -> None:
    """Its name, its address setting and its errors; nothing of DICOM."""
    clock = Clock()
    script = Script(answer(403), answer(503))
    with fhir(script, clock) as client:
        with pytest.raises(ProtocolError, match=r"^fhir.example refuses a GET with 403$"):
            client.send(HttpRequest("/Patient"), body_of)
        with pytest.raises(ServiceUnavailable, match=r"^the FHIR server at fhir.example keeps failing: status 503; "):
            client.send(HttpRequest("/Patient"), body_of)
    with (
        fhir(Script(httpx.ConnectError("x")), clock) as client,
        pytest.raises(ServiceUnavailable, match=r"cannot be reached: no connection; check fhir.base_url and"),
    ):
        client.send(HttpRequest("/Patient"), body_of)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_json_body_and_headers_are_sent_with_any_method(method: Any) -> None:
    """Encoded, with its type unless the request names another, and with a condition; a 412 is the caller's."""
    script = Script(answer(412, b'{"issue": 1}', content_type="application/fhir+json"))
    call = HttpRequest(
        "/Patient/1",
        method,
        headers={"If-Match": 'W/"3"', "content-type": "application/fhir+json"},
        json={"id": "1"},
        expected=frozenset({200, 412}),
        expect_json=True,
    )
    with fhir(script, Clock()) as client:
        assert client.send(call, body_of) == b'{"issue": 1}'
        client.send(HttpRequest("/Patient/1", method, json=[], expected=frozenset({412})), body_of)
    (first, second) = script.requests
    assert (first.method, first.content, first.headers["if-match"]) == (method, b'{"id":"1"}', 'W/"3"')
    assert [r.headers["content-type"] for r in script.requests] == ["application/fhir+json", "application/json"]
    assert second.content == b"[]"


@pytest.mark.parametrize(("gateways", "last"), [(frozenset(), 300.0), (frozenset({503}), 30.0)])
def test_an_error_of_what_stands_before_a_service_is_no_first_answer(gateways: frozenset[int], last: float) -> None:
    """Such a service is given up soon; another's errors prove that it is there."""
    clock = Clock()
    with fhir(Script(answer(503)), clock, gateway_statuses=gateways) as client, pytest.raises(ServiceUnavailable):
        client.send(HttpRequest("/metadata"), body_of)
    assert last / 2 < clock.slept <= last


# -- the retry policy


def test_quick_patience_ends_with_its_own_error() -> None:
    """A caller that wants to look closer gets KeepsFailing after so many failures; 429 does not count, 503 does."""
    script = Script(answer(429), answer(503, retry_after="1"), answer(503))
    with client_of(script) as client, pytest.raises(KeepsFailing, match="status 503"):
        client.send(GET, body_of, RetryPolicy(failing_attempts=2))
    assert len(script.requests) == 3


def test_a_slow_answer_counts_for_two_failures() -> None:
    """An attempt that took the whole timeout is not repeated as often as one that failed at once."""
    script = Script(httpx.ReadTimeout("x"))
    with client_of(script) as client, pytest.raises(KeepsFailing):
        client.send(GET, body_of, RetryPolicy(failing_attempts=4))
    assert len(script.requests) == 2


def test_a_cancelled_caller_is_not_kept_waiting() -> None:
    """Cancelling ends a wait within half a second, and no further request is sent."""
    clock = Clock()
    script = Script(answer(503, retry_after="20"))
    with client_of(script, clock) as client, pytest.raises(Cancelled):
        client.send(GET, body_of, RetryPolicy(cancelled=lambda: clock.slept >= 3.0))
    assert len(script.requests) == 1
    assert clock.slept == 3.0


def test_one_connections_retry_after_holds_for_all() -> None:
    """After a Retry-After the next request of the same client waits too, whoever sends it."""
    clock = Clock()
    script = Script(answer(), answer(503, retry_after="25"), answer())
    with client_of(script, clock) as client:
        client.send(GET, body_of)
        with pytest.raises(ServiceUnavailable):
            client.send(GET, body_of, RetryPolicy(since=clock.now - 280))
        assert clock.slept == 0.0
        client.send(GET, body_of)
    assert clock.slept == 25.0


def test_throttling_halves_the_requests_under_way_and_answers_bring_them_back() -> None:
    """Eight at once, then four, two, one; good answers widen the gate again, up to eight."""
    throttle = Throttle(8)
    widths = []
    for _ in range(4):
        for _ in range(8):
            throttle.throttled(0.0)
        widths.append(throttle.width)
    assert widths[0] < 8
    assert widths[-1] == 1
    for _ in range(200):
        throttle.answered()
    assert throttle.width == 8


def test_one_burst_of_refusals_halves_the_gate_once() -> None:
    """Eight connections that are refused together are one event."""
    throttle = Throttle(8)
    for _ in range(4):
        throttle.throttled(0.0)
    assert throttle.width == 4


def test_nothing_older_than_tls_1_2_is_spoken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this Python's own default is: Debian's leaves it to its OpenSSL."""
    lax = ssl.create_default_context()
    lax.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    monkeypatch.setattr(httpx, "create_ssl_context", lambda **_: lax)
    assert tls_context(trust_env=False).minimum_version is ssl.TLSVersion.TLSv1_2
