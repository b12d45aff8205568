"""Answers that are compressed, cut, slow, reset, refused or rewritten on their way out."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
import zlib

import httpx
import pytest

from dicom_emulator.state.uids import instance_key
from dicom_emulator.testing import corruptions
from dicom_emulator.testing.faults import Fault

FEED = "GET /v2/changefeed"
IDENTITY = {"accept-encoding": "identity"}


@pytest.fixture
def five(make_emulator):
    """A service whose feed has five entries, compressed for those who take it; sequences 1 to 5."""
    emulator, api = make_emulator(gzip=True)
    emulator.service.clock.freeze("2024-05-01T10:00:00.5Z", step=10_000_000)
    for number in range(1, 6):
        emulator.service.create(instance_key("1.2", "1.2.3", f"1.2.3.{number}"), b'{"00080060":{"vr":"CS"}}')
    return emulator, api


def raw_feed(emulator, accept="identity"):
    """The bytes of one answer as they come from the socket until it closes, and whether it was reset."""
    host, port = emulator.base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        request = f"GET /v2/changefeed HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {accept}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        received = b""
        try:
            while piece := connection.recv(65536):
                received += piece
        except ConnectionResetError:
            return received, True
    return received, False


def test_answers_are_compressed_for_those_who_take_it(five):
    """gzip with Accept-Encoding gzip or *, plain else, refused or off; the content is the same."""
    _, api = five
    plain = api.http.get(f"{api.root}/v2/changefeed", headers=IDENTITY)
    assert "content-encoding" not in plain.headers
    assert len(plain.json()) == 5
    packed = {}
    for accept in ("gzip", "br, gzip;q=0.5", "*", "gzip;q=0", "br", ""):
        with api.http.stream("GET", f"{api.root}/v2/changefeed", headers={"accept-encoding": accept}) as answer:
            body = b"".join(answer.iter_raw())
            assert int(answer.headers["content-length"]) == len(body)
            packed[accept] = answer.headers.get("content-encoding")
        assert (gzip.decompress(body) if packed[accept] else body) == plain.content
    assert [accept for accept, encoding in packed.items() if encoding == "gzip"] == ["gzip", "br, gzip;q=0.5", "*"]


def test_a_service_does_not_compress_unless_told(make_emulator):
    """By default Accept-Encoding changes nothing; an answer without content stays without."""
    _, api = make_emulator()
    assert "content-encoding" not in api.feed().headers
    assert api.latest().status_code == 204


@pytest.mark.parametrize("length", [0, 1, 100])
def test_a_body_is_cut(five, length):
    """The head promises the whole, so many bytes come, and the connection is closed; then all is well again."""
    emulator, api = five
    whole = api.http.get(f"{api.root}/v2/changefeed", headers=IDENTITY).content
    cut = emulator.service.faults.add(Fault(path="/v2/changefeed", cut_body=length, times=1))
    received, was_reset = raw_feed(emulator)
    head, _, body = received.partition(b"\r\n\r\n")
    assert f"content-length: {len(whole)}".encode() in head
    assert (body, was_reset, cut.hits) == (whole[:length], False, 1)
    assert api.http.get(f"{api.root}/v2/changefeed", headers=IDENTITY).content == whole


def test_a_client_sees_that_a_body_is_cut(five):
    """httpx reports a protocol error."""
    emulator, api = five
    emulator.service.faults.add(Fault(cut_body=10))
    with pytest.raises(httpx.RemoteProtocolError):
        api.feed()


def test_a_gzip_stream_is_truncated(five):
    """Well-formed HTTP whose gzip stream has no end; only its decoder can tell."""
    emulator, _ = five
    emulator.service.faults.add(Fault(truncate=60))
    head, _, body = raw_feed(emulator, "gzip")[0].partition(b"\r\n\r\n")
    assert b"content-length: 60" in head
    inflate = zlib.decompressobj(31)
    inflate.decompress(body)
    assert (len(body), inflate.eof) == (60, False)


def test_a_body_trickles(five):
    """So many bytes at a time with a pause before each; complete in the end."""
    emulator, api = five
    whole = api.http.get(f"{api.root}/v2/changefeed", headers=IDENTITY).content
    emulator.service.faults.add(Fault(trickle_seconds=0.01, trickle_bytes=200))
    began = time.monotonic()
    assert raw_feed(emulator)[0].endswith(b"\r\n\r\n" + whole)
    assert time.monotonic() - began >= 0.01 * (len(whole) // 200)


def test_a_client_that_hangs_up_ends_the_trickle(five):
    """A pause of an hour does not outlive its client; the service goes on."""
    emulator, api = five
    emulator.service.faults.add(Fault(trickle_seconds=3600, times=1))
    with pytest.raises(httpx.ReadTimeout):
        api.http.get(f"{api.root}/v2/changefeed", timeout=0.1)
    assert api.feed().status_code == 200


@pytest.mark.parametrize("length", [None, 50])
def test_a_connection_is_reset(five, length):
    """RST instead of an answer, or after so many bytes; the request is logged, without an answer as status 0."""
    emulator, api = five
    emulator.service.faults.add(Fault(reset=True, cut_body=length, times=1))
    received, was_reset = raw_feed(emulator)
    assert was_reset
    assert len(received.partition(b"\r\n\r\n")[2]) == (length or 0)
    assert emulator.service.requests.counts()[FEED] == {"0" if length is None else "200": 1}
    assert api.feed().status_code == 200


def test_connections_are_refused_and_the_state_stays(five):
    """Nobody listens in the block; after it the same feed stands at the same address."""
    emulator, api = five
    before = api.feed().json()
    with emulator.refusing():
        for _ in range(2):
            with pytest.raises(httpx.ConnectError):
                api.feed()
    assert api.feed().json() == before


def test_connections_are_refused_while_others_wait(five):
    """The service comes back while a client tries on."""
    emulator, api = five
    with emulator.refusing():
        release = threading.Event()
        tried = []

        def try_on():
            while not tried or tried[-1] is None:
                try:
                    tried.append(api.feed().status_code)
                except httpx.ConnectError:
                    tried.append(None)
                release.set()

        waiting = threading.Thread(target=try_on)
        waiting.start()
        assert release.wait(10)
    waiting.join(10)
    assert (tried[0], tried[-1]) == (None, 200)


def test_a_page_of_an_entry_is_damaged(five):
    """With `sequences` only pages that carry the entry are damaged."""
    emulator, api = five
    emulator.service.faults.add(Fault(sequences=(3,), rewrite=corruptions.html))
    assert api.feed().text.startswith("<!DOCTYPE html>")
    assert [row["sequence"] for row in api.feed(limit=2).json()] == [1, 2]
    assert len(api.feed(includeMetadata="false").json()) == 5


def without(row, name):
    return {member: value for member, value in row.items() if member != name}


def rewritten(five, rewrite, **fault):
    emulator, api = five
    emulator.service.faults.add(Fault(path="/v2/changefeed", rewrite=rewrite, **fault))
    answer = api.feed()
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json; charset=utf-8")
    return answer


@pytest.mark.parametrize(
    ("rewrite", "expected"),
    [
        (corruptions.zulu, lambda rows: [r | {"timestamp": r["timestamp"].replace("+00:00", "Z")} for r in rows]),
        (corruptions.lower_case, lambda rows: [r | {"action": "create", "state": "current"} for r in rows]),
        (corruptions.twice(9), lambda rows: [r for r in rows for _ in "12"][:9]),
        (corruptions.out_of_order, lambda rows: list(reversed(rows))),
        (corruptions.altered(2, action="Vanish"), lambda rows: [rows[0], rows[1] | {"action": "Vanish"}, *rows[2:]]),
        (corruptions.altered(partitionName=corruptions.LEFT_OUT),
         lambda rows: [without(r, "partitionName") for r in rows]),
        (corruptions.altered(1, metadata=None), lambda rows: [rows[0] | {"metadata": None}, *rows[1:]]),
        (corruptions.with_more(7, {"x": 1}), lambda rows: [*rows, 7, {"x": 1}]),
        (corruptions.padded,
         lambda rows: [r | {n: r[n] + " \0" for n in r if n.endswith("InstanceUid")} for r in rows]),
        (corruptions.shifted(-3600),
         lambda rows: [r | {"timestamp": r["timestamp"].replace("T10", "T09")} for r in rows]),
    ],
)  # fmt: skip
def test_a_page_is_rewritten(five, rewrite, expected):
    """What comes is the page as the function gives it."""
    _, api = five
    rows = api.feed().json()
    assert len(rows) == 5
    for row in expected(rows):
        if isinstance(row, dict) and "timestamp" in row:
            row["timestamp"] = row["timestamp"].replace(".500000", ".5")
    got = rewritten(five, rewrite).text.replace(".500000", ".5")
    assert json.loads(got) == expected(rows)


def test_pages_may_be_no_json(five):
    """HTML, a text that breaks off, NaN, bytes that are no UTF-8."""
    assert rewritten(five, corruptions.html, times=1).text.startswith("<!DOCTYPE")
    with pytest.raises(ValueError, match="Expecting"):
        rewritten(five, corruptions.not_json, times=1).json()
    assert '"metadata":NaN' in rewritten(five, corruptions.altered(4, metadata=float("nan")), times=1).text
    assert b"\xff" in rewritten(five, corruptions.swapped(b"Current", b"Curr\xff"), times=1).content


def test_a_page_may_be_longer_or_always_the_same(five):
    """More entries than asked for; or the first page whatever is asked."""
    _, api = five
    assert len(rewritten(five, corruptions.longer(200), times=1).json()) == 205
    first = rewritten(five, corruptions.the_same_for_ever(), skip=0).json()
    assert api.feed(offset=4).json() == first


def test_damage_is_switched_on_over_http(five):
    """All but functions; those are shown by name."""
    emulator, api = five
    faults = f"{api.root}/_emulator/faults"
    assert api.http.post(faults, json={"rewrite": "html"}).status_code == 400
    made = api.http.post(faults, json={"cut_body": 3, "times": 1})
    assert made.status_code == 201
    with pytest.raises(httpx.RemoteProtocolError):
        api.feed()
    emulator.service.faults.add(Fault(rewrite=corruptions.html))
    shown = api.http.get(faults).json()
    assert [(one["hits"], one["fault"]["rewrite"], one["fault"]["cut_body"]) for one in shown] == [
        (1, None, 3), (0, "html", None),
    ]  # fmt: skip
