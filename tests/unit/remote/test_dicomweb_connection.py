"""`remote/http/connection.py`: an answer is there within its time or not at all, whatever comes in small pieces."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpcore
import httpx
import pytest

from dicom_etl.core.errors import ConfigurationError
from dicom_etl.remote.http.connection import InTime, callable_address, http_client

HOST = "127.0.0.1"
# Far longer than the pause between two pieces, also on a machine that is busy, and shorter than all pieces take.
TIMEOUT_SECONDS = 1.0
PIECES = 100
PAUSE_SECONDS = 0.02

DRIPS = {
    "a header without end": (b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a"),
    "processing, again and again": (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "a body without end": (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"a"),
}


@contextmanager
def dripping(first: bytes, piece: bytes) -> Iterator[str]:
    """The address of a server that answers one connection with ``first`` and then piece by piece, and hangs up."""
    with socket.create_server((HOST, 0)) as server:
        server.settimeout(30)

        def serve() -> None:
            with suppress(OSError), server.accept()[0] as connection:  # the client gives up, which is what it should do
                connection.recv(1 << 16)
                connection.sendall(first)
                for _ in range(PIECES):
                    connection.sendall(piece)
                    time.sleep(PAUSE_SECONDS)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://{HOST}:{server.getsockname()[1]}/"
        thread.join()


@pytest.mark.parametrize("drip", DRIPS)
def test_an_answer_in_small_pieces_has_no_more_time_than_another(drip: str) -> None:
    with (
        dripping(*DRIPS[drip]) as address,
        http_client(HOST, TIMEOUT_SECONDS) as http,
        pytest.raises(httpx.ReadTimeout),
    ):
        http.get(address)


@pytest.mark.parametrize("drip", DRIPS)
def test_without_it_each_piece_begins_the_time_anew(drip: str) -> None:
    """The broken twin: a plain client of httpx waits until the server hangs up."""
    hung_up = pytest.raises(httpx.RemoteProtocolError)
    with dripping(*DRIPS[drip]) as address, httpx.Client(timeout=TIMEOUT_SECONDS) as http, hung_up:
        http.get(address)


def test_a_proxy_has_no_more_time_either(monkeypatch: pytest.MonkeyPatch) -> None:
    with dripping(*DRIPS["a header without end"]) as address:
        monkeypatch.setenv("http_proxy", address)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        with http_client("pacs.example", TIMEOUT_SECONDS) as http, pytest.raises(httpx.ReadTimeout):
            http.get("http://pacs.example/")


@pytest.mark.parametrize(
    ("name", "value"),
    [("no_proxy", "[::1]"), ("https_proxy", "http://proxy:port"), ("https_proxy", "http://user:p#w@proxy:3128")],
)
def test_a_proxy_that_cannot_be_one_is_said_without_its_text(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """78; httpx's own error is no ValueError, and quotes the password as a port."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=r"check the environment's proxies \(HTTPS_PROXY") as refused:
        http_client("pacs.example", TIMEOUT_SECONDS)
    assert "'p'" not in str(refused.value)
    assert refused.value.__suppress_context__


@pytest.mark.parametrize("proxy", ["http://proxy..corp:3128", f"http://{'a' * 64}:3128"])
def test_a_proxy_whose_name_cannot_be_asked_for_is_said_at_the_first_request(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    refused = pytest.raises(ConfigurationError, match="check the environment's proxies")
    named = callable_address("pacs.example", "dicom.base_url")
    with http_client("pacs.example", TIMEOUT_SECONDS) as http, refused, named:
        http.get("http://pacs.example/")


class Pieces(httpcore.NetworkStream):
    """A stream on which each read takes half a second of a clock that nobody waits for; it notes the timeouts."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timeouts: list[float | None] = []

    def read(self, _max_bytes: int, timeout: float | None = None) -> bytes:
        self.timeouts.append(timeout)
        self.now += 0.5
        return b"a"

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Nothing."""

    def start_tls(self, *_: object) -> httpcore.NetworkStream:
        return self


def test_each_request_on_one_connection_has_the_whole_time() -> None:
    """Also after an hour without any; and TLS on top counts the same way."""
    below = Pieces()
    stream = InTime(below, lambda: below.now)
    for _ in range(2):
        stream.write(b"GET")
        assert [stream.read(1, 1.0), stream.read(1, 1.0)] == [b"a", b"a"]
        with pytest.raises(httpcore.ReadTimeout):
            stream.read(1, 1.0)
        below.now += 3600
    secure = stream.start_tls(ssl.create_default_context())
    assert [secure.read(1, 0.75), secure.read(1, 0.75)] == [b"a", b"a"]
    assert below.timeouts == [1.0, 0.5] * 2 + [0.75, 0.25]
    assert stream.read(1) == b"a"
