"""Checks of the DICOM service: its address, the connection, the clocks, the token, the role."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
import msgspec

from dicom_etl.commands.doctor.check import CheckResult, problem, run_check
from dicom_etl.core.errors import AccessDenied, ConfigurationError, ServiceUnavailable
from dicom_etl.core.settings.model import Dicom
from dicom_etl.core.settings.rules import is_loopback
from dicom_etl.core.timerange import TICKS_PER_SECOND, format_duration, from_datetime
from dicom_etl.dicomweb.connect import connect
from dicom_etl.dicomweb.feed.reader import service_now
from dicom_etl.remote.http.connection import callable_address, http_client
from dicom_etl.remote.http.retry import http_date
from dicom_etl.remote.http.transport import printable
from dicom_etl.remote.identity import dicom_tokens

ROLE = "DICOM Data Reader"
# Small skews are usual, and harmless: coverage ends by the slower clock.
MOST_SKEW_SECONDS = 60
# A doctor asks once; who waits for minutes is the run.
_TIMEOUT_SECONDS = 15.0
_RETRY_SECONDS = 5.0
_GOOD_TLS = ("TLSv1.2", "TLSv1.3")

Resolve = Callable[[str, int], object]
"""Raises OSError when a name has no address, as ``socket.getaddrinfo`` does."""


@dataclass(frozen=True, slots=True)
class Contact:
    """What one request without a token showed: TLS (null: plain http), and both clocks in ticks as it came."""

    tls: str | None
    theirs: int | None
    ours: int


def service_findings(
    dicom: Dicom,
    delay: int,
    *,
    clock: Callable[[], datetime],
    resolve: Resolve = socket.getaddrinfo,
    transport: httpx.BaseTransport | None = None,
) -> Iterator[CheckResult]:
    """What is to be said of the service that ``dicom`` names; ``delay`` is `feed.delay` in ticks."""
    token = run_check("token", partial(_token, dicom))
    if not dicom.base_url:
        yield token
        return
    yield run_check("address", partial(_address, dicom.base_url, resolve))
    try:
        connected = contact(dicom.base_url, clock, transport)
    except (ServiceUnavailable, ConfigurationError) as error:
        yield problem("connection", error)
        yield token
        for check in ("clock", "role"):
            yield CheckResult(check, "warning", "not checked: there is no connection to the service")
        return
    yield _connection(connected)
    yield _clocks(connected, delay)
    yield token
    if token.state == "problem":
        yield CheckResult("role", "warning", "not checked: there is no token")
        return
    yield run_check("role", partial(_role, dicom, transport))


def contact(base_url: str, clock: Callable[[], datetime], transport: httpx.BaseTransport | None) -> Contact:
    """What the service's address answers to a request without a token, whatever the status.

    Raises ServiceUnavailable when there is no answer, ConfigurationError for a proxy that cannot be used.
    """
    host = urlsplit(base_url).hostname or ""
    try:
        with (
            http_client(host, _TIMEOUT_SECONDS, transport=transport) as http,
            callable_address(host, "dicom.base_url"),
            http.stream("GET", base_url) as answer,
        ):
            date = http_date(answer.headers.get("date"))
            theirs = None if date is None else from_datetime(date)
            return Contact(_negotiated(answer), theirs, from_datetime(clock()))
    except httpx.RequestError as error:
        raise ServiceUnavailable(_describe_failure(error)) from error


def _negotiated(answer: httpx.Response) -> str | None:
    stream = answer.extensions.get("network_stream")
    secure = stream.get_extra_info("ssl_object") if stream is not None else None
    return None if secure is None else secure.version()


def _describe_failure(error: httpx.RequestError) -> str:
    """In words of ours: httpx's own may quote what was sent."""
    below: BaseException = error
    while (deeper := below.__cause__ or below.__context__) is not None:
        below = deeper
    if isinstance(below, ssl.SSLCertVerificationError):
        return (
            "this machine does not trust the service's certificate: put the certificates that it, or a proxy on the "
            "way, is signed with into a file and name that in SSL_CERT_FILE"
        )
    if isinstance(below, ssl.SSLError):
        return "TLS 1.2 or newer could not be agreed: check the port of dicom.base_url, and proxies on the way"
    if isinstance(error, httpx.ReadTimeout):
        return f"no answer within {_TIMEOUT_SECONDS:.0f} s: check the port of dicom.base_url, and proxies on the way"
    if isinstance(error, httpx.RemoteProtocolError):
        return "what answers is no web server, or hangs up: check the port of dicom.base_url, and proxies on the way"
    return "no connection: check dicom.base_url, the network, the firewall, and the proxy if there is one"


def _address(base_url: str, resolve: Resolve) -> CheckResult:
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if not _by_proxy(parts.scheme, host):
        try:
            resolve(host, parts.port or (443 if parts.scheme == "https" else 80))
        except (OSError, UnicodeError) as error:
            raise ServiceUnavailable(
                f"the name {host} has no address here: check dicom.base_url and this machine's name server"
            ) from error
    if parts.scheme == "https":
        return CheckResult("address", "ok", f"https, {host}")
    if is_loopback(host):
        return CheckResult("address", "ok", f"http, {host}, which is this machine")
    return CheckResult("address", "warning", f"http: everything from {host} can be read on the way; use https://")


def _by_proxy(scheme: str, host: str) -> bool:
    """Whether a proxy of the environment is asked, which then knows the name."""
    proxies = getproxies()
    return not is_loopback(host) and bool(proxies.get(scheme) or proxies.get("all")) and not proxy_bypass(host)


def _connection(connected: Contact) -> CheckResult:
    if connected.tls is None:
        return CheckResult("connection", "ok", "the service answers, without TLS")
    if connected.tls in _GOOD_TLS:
        return CheckResult("connection", "ok", f"the service answers, by {connected.tls}")
    return problem(
        "connection", ConfigurationError(f"{connected.tls} is too old: the service must speak TLS 1.2 or newer")
    )


def _clocks(connected: Contact, delay: int) -> CheckResult:
    if connected.theirs is None:
        return CheckResult("clock", "warning", "not checked: the service's answers have no Date")
    skew = (connected.ours - connected.theirs) / TICKS_PER_SECOND
    difference = f"this machine is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the service"
    if abs(skew) > delay / TICKS_PER_SECOND:
        text = f"{difference}, more than feed.delay ({format_duration(delay)}): set this machine's clock (NTP)"
        return problem("clock", ConfigurationError(text))
    if abs(skew) > MOST_SKEW_SECONDS:
        return CheckResult("clock", "warning", f"{difference}: set this machine's clock (NTP)")
    return CheckResult("clock", "ok", difference)


def _token(dicom: Dicom) -> CheckResult:
    tokens = dicom_tokens(dicom)
    if tokens is None:
        if dicom.base_url and not is_loopback(urlsplit(dicom.base_url).hostname or ""):
            return CheckResult(
                "token", "warning", 'none is sent (dicom.auth = "none"); for a service in Azure set "azure"'
            )
        return CheckResult("token", "ok", 'none is sent (dicom.auth = "none")')
    printable(tokens(False))
    source = "azure-identity" if dicom.auth == "azure" else "the variable that dicom.token_env names"
    return CheckResult("token", "ok", f"there is one, from {source}")


def _role(dicom: Dicom, transport: httpx.BaseTransport | None) -> CheckResult:
    """By one page of one entry, without headers."""
    quick = msgspec.structs.replace(
        dicom,
        timeout_seconds=min(dicom.timeout_seconds, _TIMEOUT_SECONDS),
        retry_seconds=min(dicom.retry_seconds, _RETRY_SECONDS),
    )
    with connect(quick, dicom_tokens(dicom), transport=transport) as client:
        try:
            service_now(client)
        except AccessDenied as error:
            raise AccessDenied(_access_hint(dicom, error)) from error
    return CheckResult("role", "ok", f"the change feed can be read ({ROLE})")


def _access_hint(dicom: Dicom, error: AccessDenied) -> str:
    """The error's words; they tell of a token although none was sent, and of the role only when it is 403."""
    if dicom.auth == "none":
        return f'the service wants a token: set dicom.auth = "azure", and assign the role {ROLE} to the identity'
    return str(error) if ROLE in str(error) else f"{error}. It also takes the role {ROLE} on the service"
