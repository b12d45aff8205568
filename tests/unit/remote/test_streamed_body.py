"""A body that is streamed: taken as it comes, for as long as it goes on, and never half of it for the whole."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import httpx
import pytest

from dicom_etl.remote.http.body import stream_body
from dicom_etl.remote.http.retry import RetryableError

MEGABYTE = 1 << 20


class Clock:
    """Time that passes with each chunk."""

    def __init__(self, seconds_a_chunk: float = 0.0) -> None:
        self.now = 100.0
        self.seconds_a_chunk = seconds_a_chunk

    def monotonic(self) -> float:
        return self.now


class Chunks(httpx.SyncByteStream):
    def __init__(self, clock: Clock, *chunks: bytes) -> None:
        self._clock, self._chunks = clock, chunks

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self._clock.now += self._clock.seconds_a_chunk
            yield chunk


def streamed(clock: Clock, *chunks: bytes, encoding: str = "identity", seconds: float = 10.0) -> list[bytes]:
    """What was taken of an answer with these chunks."""
    response = httpx.Response(200, headers={"content-encoding": encoding}, stream=Chunks(clock, *chunks))
    taken: list[bytes] = []
    stream_body(response, taken.append, seconds, clock.monotonic)
    return taken


def test_each_chunk_is_handed_on_as_it_comes() -> None:
    assert streamed(Clock(), b"one", b"two") == [b"one", b"two"]


def test_a_compressed_body_is_decoded_and_a_cut_one_is_seen() -> None:
    whole = gzip.compress(b"x" * 1000)
    assert b"".join(streamed(Clock(), whole[:10], whole[10:], encoding="gzip")) == b"x" * 1000
    with pytest.raises(RetryableError, match="a cut gzip body"):
        streamed(Clock(), whole[:-4], encoding="gzip")
    with pytest.raises(RetryableError, match="an unknown content encoding"):
        streamed(Clock(), whole, encoding="br")


def test_time_is_for_each_eight_megabytes_and_not_for_the_whole() -> None:
    """64 chunks of 1 MB in 64 s within a limit of 10 s; chunks of a byte are too slow."""
    assert len(streamed(Clock(1.0), *[b"x" * MEGABYTE] * 64)) == 64
    with pytest.raises(RetryableError, match="too long"):
        streamed(Clock(1.0), *[b"x"] * 64)
