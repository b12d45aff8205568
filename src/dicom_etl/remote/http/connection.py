"""The pooled connections to one host: TLS 1.2 or newer, and each answer whole within its time."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx

from dicom_etl import __version__
from dicom_etl.core.errors import ConfigurationError
from dicom_etl.core.logs import quiet_libraries
from dicom_etl.core.settings.rules import is_loopback

CONNECT_SECONDS = 10.0


def http_client(
    host: str, timeout_seconds: float, connections: int = 1, transport: httpx.BaseTransport | None = None
) -> httpx.Client:
    """A client for one host, which may be asked over so many connections at once; to be closed at the end.

    An answer that is not whole ``timeout_seconds`` after its request was sent is a ReadTimeout. No redirect is
    followed: a token goes to the configured host only (design/architecture.md: Patient data). Raises
    ConfigurationError for a proxy or a certificate file that cannot be used.
    """
    quiet_libraries()
    # A hospital's proxy is not asked for a service on this very machine.
    trust_env = not is_loopback(host)
    try:
        client = httpx.Client(
            verify=tls_context(trust_env=trust_env),
            transport=transport,
            timeout=httpx.Timeout(timeout_seconds, connect=min(CONNECT_SECONDS, timeout_seconds)),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            follow_redirects=False,
            trust_env=trust_env,
            headers={"Accept-Encoding": "gzip", "User-Agent": f"dicom-etl/{__version__}"},
        )
    except (OSError, ValueError, ImportError, httpx.InvalidURL) as error:
        raise _not_set_up(error) from None  # a proxy's address may hold a password, and httpx quotes it
    _bound(client)
    return client


def _not_set_up(error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"the connection cannot be set up ({type(error).__name__}): check the environment's proxies (HTTPS_PROXY, "
        "NO_PROXY) and SSL_CERT_FILE"
    )


@contextmanager
def callable_address(host: str, address_key: str) -> Iterator[None]:
    """Around a request: an address, or a proxy's, that cannot be called is a ConfigurationError without its text.

    ``address_key`` is the setting of the address.
    """
    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise ConfigurationError(f"{host} cannot be called so: check {address_key}") from error
    except UnicodeError as error:
        raise _not_set_up(error) from None


def tls_context(*, trust_env: bool) -> ssl.SSLContext:
    """TLS 1.2 or newer, with httpx's certificates or those of SSL_CERT_FILE.

    Said, because Debian's Python leaves it to its OpenSSL, which would go down to 1.0. Raises OSError for a file.
    """
    context = httpx.create_ssl_context(trust_env=trust_env)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _bound(client: httpx.Client) -> None:
    """Have the client's connections give up as _InTime does.

    httpx hands no backend through to httpcore, whose own argument it is: hence its private names, and the upper
    bounds in pyproject.toml. Transports of another kind are a test's.
    """
    for transport in (client._transport, *client._mounts.values()):
        if isinstance(transport, httpx.HTTPTransport):
            transport._pool._network_backend = _Backend(transport._pool._network_backend)


class _Backend(httpcore.NetworkBackend):
    def __init__(self, inner: httpcore.NetworkBackend) -> None:
        self._inner = inner

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        return InTime(self._inner.connect_tcp(host, port, timeout, local_address, socket_options))

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


class InTime(httpcore.NetworkStream):
    """A connection whose read timeout holds for all that is read after a write, not for each piece of it.

    With httpcore's own, a server that drips a byte of its headers now and then, or says `102 Processing` again and
    again, holds a request without end.
    """

    def __init__(self, inner: httpcore.NetworkStream, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._inner = inner
        self._monotonic = monotonic
        self._until: float | None = None

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if timeout is None:
            return self._inner.read(max_bytes)
        now = self._monotonic()
        if self._until is None:
            self._until = now + timeout
        if now >= self._until:
            raise httpcore.ReadTimeout
        return self._inner.read(max_bytes, min(timeout, self._until - now))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._until = None
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return InTime(self._inner.start_tls(ssl_context, server_hostname, timeout), self._monotonic)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)
