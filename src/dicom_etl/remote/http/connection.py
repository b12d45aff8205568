"""The pooled connections to one host: TLS 1.2 or newer, and no redirect."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

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

    ``timeout_seconds`` holds for each read and write; `body.read_body` bounds the body as a whole. No redirect is
    followed: a token goes to the configured host only (design/architecture.md: Patient data). Raises
    ConfigurationError for a proxy or a certificate file that cannot be used.
    """
    quiet_libraries()
    # A hospital's proxy is not asked for a service on this very machine.
    trust_env = not is_loopback(host)
    try:
        return httpx.Client(
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
