"""The body of an answer, whole or not at all."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import httpx

from dicom_etl.remote.http.retry import FailureKind, RetryableError

_GZIP = 16 + zlib.MAX_WBITS


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
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip", ""):
        raise RetryableError("an unknown content encoding", FailureKind.FAILING)
    inflate = zlib.decompressobj(_GZIP) if "gzip" in encoding else None
    # Joined at the end: a buffer that grows, and is copied when it is whole, costs twice the page faults.
    parts: list[bytes] = []
    size = 0
    for chunk in response.iter_raw():
        if monotonic() > give_up_at:
            raise RetryableError("an answer that took too long", FailureKind.FAILING, weight=2)
        part = chunk if inflate is None else _inflated(inflate, chunk, max_bytes, size)
        parts.append(part)
        size += len(part)
        if max_bytes is not None and size > max_bytes:
            raise TooLarge
    if inflate is not None and not inflate.eof:
        raise RetryableError("a cut gzip body", FailureKind.FAILING)
    return b"".join(parts)


def _inflated(inflate: zlib._Decompress, chunk: bytes, max_bytes: int | None, so_far: int) -> bytes:
    # One byte more than allowed is enough to know, and a bomb never unfolds.
    limit = 0 if max_bytes is None else max(1, max_bytes + 1 - so_far)
    try:
        return inflate.decompress(chunk, limit)
    except zlib.error as error:
        raise RetryableError("a broken gzip body", FailureKind.FAILING) from error
