"""The loopback address from which the JVM gets its tokens: the protocol of a virtual machine's identity (IMDS)."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError

from dicom_etl.core.settings.model import Spark
from dicom_etl.remote import token_endpoint as module
from dicom_etl.remote.storage import Storage
from dicom_etl.remote.token_endpoint import token_endpoint
from dicom_etl.tables.engine import session
from support.identity import FakeCredential

TOKEN = "token-of-the-tests"
METADATA = {"Metadata": "true"}
# What Hadoop's MsiTokenProvider adds.
QUERY = "?api-version=2018-02-01&resource=https://storage.azure.com/"


@pytest.fixture
def credential() -> FakeCredential:
    return FakeCredential(lambda _scope: TOKEN)


@pytest.fixture
def address(credential: FakeCredential) -> Iterator[str]:
    with token_endpoint(credential) as address:
        yield address


def ask(
    address: str, headers: dict[str, str] | None = None, *, path: str | None = None, method: str = "GET"
) -> tuple[int, Any, dict[str, str]]:
    """Status, document and headers of one answer."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request(method, parts.path + QUERY if path is None else path, headers=headers or {})
        answer = connection.getresponse()
        body = answer.read()
        document = json.loads(body) if answer.getheader("Content-Type") == "application/json" else None
        return answer.status, document, dict(answer.getheaders())
    finally:
        connection.close()


def test_whoever_knows_the_path_gets_a_token_as_hadoop_reads_it(address: str, credential: FakeCredential) -> None:
    """200, JSON with its length; expires_on in seconds since 1970 as text: Hadoop refuses expires_in alone."""
    before = int(time.time())
    status, document, headers = ask(address, METADATA)
    assert credential.scopes == ["https://storage.azure.com/.default"]
    assert status == 200
    assert headers["Content-Type"] == "application/json"
    assert int(headers["Content-Length"]) > 0
    assert {name: value for name, value in document.items() if name != "expires_on"} == {
        "access_token": TOKEN,
        "resource": "https://storage.azure.com/",
        "token_type": "Bearer",
    }
    assert isinstance(document["expires_on"], str)
    assert before + 3600 <= int(document["expires_on"]) <= time.time() + 3600


def test_the_address_is_on_this_machine_only_and_hard_to_guess(address: str, credential: FakeCredential) -> None:
    """256 bits, others for each session."""
    parts = urlsplit(address)
    assert (parts.scheme, parts.hostname) == ("http", "127.0.0.1")
    secret, last = parts.path.strip("/").split("/")
    assert (len(secret), last) == (43, "token")
    with token_endpoint(credential) as other:
        assert urlsplit(other).path != parts.path


@pytest.mark.parametrize("headers", [{}, {"Metadata": "false"}, {"Metadata": ""}, {"X-Metadata": "true"}])
def test_without_the_header_there_is_nothing(address: str, credential: FakeCredential, headers: dict[str, str]) -> None:
    """404, as a browser gets it that is led there by a link; the identity is not asked."""
    assert ask(address, headers)[:2] == (404, {})
    assert credential.scopes == []


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda _: "/",
        lambda path: path + "/",
        lambda path: path[:-1],
        lambda path: path.upper(),
        lambda path: "/" + path,
        lambda path: path.replace("/token", "x/token"),
        lambda path: path.replace("/token", ";/token"),
        lambda _: "/metadata/identity/oauth2/token",
        lambda _: "/%E4",
    ],
)
def test_another_path_leads_to_nothing(address: str, credential: FakeCredential, spoilt: Callable[[str], str]) -> None:
    """404; two slashes at the front are one to http.server, and do no harm."""
    path = spoilt(urlsplit(address).path)
    status, document, _ = ask(address, METADATA, path=path)
    if path.startswith("//"):
        assert (status, document["access_token"]) == (200, TOKEN)
    else:
        assert (status, document, credential.scopes) == (404, {}, [])


@pytest.mark.parametrize(
    "line", [b"GET /\xe4\xf6 HTTP/1.1", b"GET http://[ HTTP/1.1", b"GET /\xff", b"\x16\x03\x01\x02\x00", b"GET"]
)
def test_bytes_that_are_no_request_of_hadoop_are_answered_or_dropped(
    address: str, credential: FakeCredential, capfd: pytest.CaptureFixture[str], line: bytes
) -> None:
    """No token, no traceback; the next one is served."""
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port or 0), timeout=10) as connection:
        connection.sendall(line + b"\r\nMetadata: true\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert b"200" not in answer.partition(b"\r\n")[0]
    assert TOKEN.encode() not in answer
    assert credential.scopes == []
    assert ask(address, METADATA)[0] == 200
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("method", ["POST", "PUT", "HEAD", "OPTIONS"])
def test_other_methods_are_not_known(address: str, credential: FakeCredential, method: str) -> None:
    """501, without a token."""
    assert ask(address, METADATA, method=method)[0] == 501
    assert credential.scopes == []


@pytest.mark.parametrize(
    ("error", "status", "named"),
    [
        (ClientAuthenticationError("secret-of-a-tenant"), 400, "AccessDenied"),
        (ServiceRequestError("secret-of-a-tenant: CERTIFICATE_VERIFY_FAILED"), 400, "ConfigurationError"),
        (ServiceRequestError("secret-of-a-tenant"), 503, "ServiceUnavailable"),
        (ClientAuthenticationError("HTTPSConnection(host='secret-of-a-tenant')"), 503, "ServiceUnavailable"),
    ],
)
def test_hadoop_is_told_whether_to_try_again(error: Exception, status: int, named: str) -> None:
    """400 for an identity that is refused, which it does not ask again; 503 for one that cannot be asked now."""

    def fails(_scope: str) -> str:
        raise error

    credential = FakeCredential(fails)
    with token_endpoint(credential) as address:
        assert ask(address, METADATA)[:2] == (status, {"error": named})
    assert len(credential.scopes) == 1


def test_each_request_gets_the_token_of_then(credential: FakeCredential, address: str) -> None:
    """Nothing is kept here: azure-identity renews it before its end."""
    given = iter(["first", "second"])
    credential.give = lambda _scope: next(given)
    assert [ask(address, METADATA)[1]["access_token"] for _ in range(2)] == ["first", "second"]


def test_a_slow_identity_does_not_keep_others_waiting(credential: FakeCredential, address: str) -> None:
    """Each request has a thread of its own: both are with the identity at once."""
    import threading

    both = threading.Barrier(2)
    credential.give = lambda _scope: f"token-{both.wait(30)}"
    with ThreadPoolExecutor(2) as pool:
        given = {answer[1]["access_token"] for answer in pool.map(lambda _: ask(address, METADATA), range(2))}
    assert given == {"token-0", "token-1"}


def test_nothing_is_said_of_any_request(
    address: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither logs nor standard error: the path is a secret, and a client that goes away is no news."""
    parts = urlsplit(address)
    assert ask(address, METADATA)[0] == 200
    assert ask(address)[0] == 404
    with socket.create_connection((parts.hostname, parts.port or 0), timeout=10) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # a reset, and no end
        connection.sendall(b"GET /x HTTP/1.1\r\n")
    assert ask(address, METADATA)[0] == 200
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_an_error_of_a_request_would_be_said_by_http_server_itself(
    monkeypatch: pytest.MonkeyPatch, credential: FakeCredential, capfd: pytest.CaptureFixture[str]
) -> None:
    """The broken twin: without our silence a credential's bug stands on standard error with its text."""

    def fails(_scope: str) -> str:
        raise ZeroDivisionError("secret-of-a-tenant")

    credential.give = fails
    with token_endpoint(credential) as address, pytest.raises(http.client.RemoteDisconnected):
        ask(address, METADATA)
    assert capfd.readouterr().err == ""
    monkeypatch.delattr(module._Quiet, "handle_error")
    with token_endpoint(credential) as address, pytest.raises(http.client.RemoteDisconnected):
        ask(address, METADATA)
    assert "secret-of-a-tenant" in capfd.readouterr().err


def test_the_address_is_closed_at_the_end_of_the_block(credential: FakeCredential) -> None:
    """Also when the block ends with an error."""
    with pytest.raises(ZeroDivisionError), token_endpoint(credential) as address:  # noqa: PT012
        assert ask(address, METADATA)[0] == 200
        raise ZeroDivisionError
    with pytest.raises(ConnectionRefusedError):
        ask(address, METADATA)


# --- the session of ours that uses it


class _Hadoop:
    """A session that only remembers what Hadoop was told."""

    def __init__(self) -> None:
        self.told: dict[str, str] = {}
        self.sparkContext = self
        self._jsc = self

    def hadoopConfiguration(self) -> Any:  # noqa: N802 - Hadoop's name
        return self

    def set(self, name: str, value: str) -> None:
        self.told[name] = value


def test_spark_is_let_to_the_storage_by_an_address_that_lasts_as_long_as_the_engine(
    credential: FakeCredential, tmp_path: Path
) -> None:
    """After the session has started, and for the accounts of both roots; at the end the address is closed."""
    from dicom_etl.core.settings.load import load_settings
    from dicom_etl.lake.paths import lake_paths

    roots = [
        "lake.root=abfss://dicom@one.dfs.core.windows.net/x",
        "lake.private_root=abfss://p@two.dfs.core.windows.net/y",
    ]
    paths = lake_paths(load_settings(None, roots, {}, tmp_path), Storage(credential=credential))
    hadoop: Any = _Hadoop()
    with session.Engine(Spark(master="local[1]", driver_memory="1g", shuffle_partitions=1), paths=paths) as engine:
        engine._configure_storage_auth(hadoop, paths)
        addresses = {
            hadoop.told[f"fs.azure.account.oauth2.msi.endpoint.{account}.dfs.core.windows.net"]
            for account in ("one", "two")
        }
        (address,) = addresses
        assert ask(address, METADATA)[1]["access_token"] == TOKEN
    assert TOKEN not in hadoop.told.values()
    with pytest.raises(ConnectionRefusedError):
        ask(address, METADATA)
