"""The body of an answer, whole or not at all."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import httpx

from dicom_etl.remote.http.retry import FailureKind, RetryableError

_GZIP = 16 + zlib.MAX_WBITS
_TOO_SLOW = "an answer that took too long"
# A body that is streamed may be as long as a DICOM file: what counts is that it goes on.
_STREAM_BYTES = 8 << 20


class TooLarge(Exception):
    """The body is longer than the caller takes."""


def read_body(
    response: httpx.Response, give_up_at: float, monotonic: Callable[[], float], max_bytes: int | None
) -> bytes:
    """The decoded body.

    Raises RetryableError when it is cut, is no gzip where it says so, or is not there by ``give_up_at``: httpx's own
    timeout starts again with each byte, and its gzip decoder takes a cut stream for a whole one. Raises
    TooLarge beyond ``max_bytes`` of decoded bytes, without having read the rest.
    """
    if response.is_stream_consumed:  # httpx.MockTransport, given a ready-made answer
        if max_bytes is not None and len(response.content) > max_bytes:
            raise TooLarge
        return response.content
    # Joined at the end: a buffer that grows, and is copied when it is whole, costs twice the page faults.
    parts: list[bytes] = []
    for part in _decoded(response, max_bytes):
        if monotonic() > give_up_at:
            raise RetryableError(_TOO_SLOW, FailureKind.FAILING, weight=2)
        parts.append(part)
    return b"".join(parts)


def stream_body(
    response: httpx.Response, take: Callable[[bytes], None], seconds: float, monotonic: Callable[[], float]
) -> None:
    """Gives ``take`` the decoded body as it comes, of whatever length; no more than one part of it is held.

    Each ``_STREAM_BYTES`` may take ``seconds``. Raises RetryableError as ``read_body``, after ``take`` had what came.
    """
    if response.is_stream_consumed:
        take(response.content)
        return
    give_up_at, taken = monotonic() + seconds, 0
    for part in _decoded(response, None):
        if monotonic() > give_up_at:
            raise RetryableError(_TOO_SLOW, FailureKind.FAILING, weight=2)
        take(part)
        taken += len(part)
        if taken >= _STREAM_BYTES:
            give_up_at, taken = monotonic() + seconds, 0


def _decoded(response: httpx.Response, max_bytes: int | None) -> Iterator[bytes]:
    """The parts of the body, decoded. Raises as ``read_body``, except for its time."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip", ""):
        raise RetryableError("an unknown content encoding", FailureKind.FAILING)
    inflate = zlib.decompressobj(_GZIP) if "gzip" in encoding else None
    size = 0
    for chunk in response.iter_raw():
        part = chunk if inflate is None else _inflated(inflate, chunk, max_bytes, size)
        size += len(part)
        if max_bytes is not None and size > max_bytes:
            raise TooLarge
        yield part
    if inflate is not None and not inflate.eof:
        raise RetryableError("a cut gzip body", FailureKind.FAILING)


def _inflated(inflate: zlib._Decompress, chunk: bytes, max_bytes: int | None, so_far: int) -> bytes:
    # One byte more than allowed is enough to know, and a bomb never unfolds.
    limit = 0 if max_bytes is None else max(1, max_bytes + 1 - so_far)
    try:
        return inflate.decompress(chunk, limit)
    except zlib.error as error:
        raise RetryableError("a broken gzip body", FailureKind.FAILING) from error
