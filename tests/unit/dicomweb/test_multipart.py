"""Answers of multipart/related, taken apart as they come: an independent reader finds the same parts."""

from __future__ import annotations

from collections.abc import Callable
from email import message_from_bytes
from email.policy import HTTP

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_etl.dicomweb.multipart import PartReader, media_type
from dicom_etl.remote.http.retry import RetryableError

BOUNDARY = "b0"
# Contents that look like boundaries, and are none.
CONTENT = st.lists(st.sampled_from([b"\r\n", b"--", b"b0", b"\r\n--b", b"\n--b0", b"x" * 40, b"\0", b"-"])).map(
    b"".join
)


def body(parts: list[bytes], preamble: bytes = b"", epilogue: bytes = b"\r\n") -> bytes:
    opening = b"--b0\r\nContent-Type: application/dicom\r\n\r\n"
    whole = b"\r\n".join([opening + part for part in parts] + [b"--b0--"])
    return preamble + (b"\r\n" if preamble else b"") + whole + epilogue


def read(pieces: list[bytes]) -> tuple[list[tuple[str, bytes]], PartReader]:
    found: list[tuple[str, bytearray]] = []

    def open_part(number: int, content_type: str) -> Callable[[bytes], None]:
        assert number == len(found)
        found.append((content_type, bytearray()))
        return found[-1][1].extend

    reader = PartReader(BOUNDARY, open_part)
    for piece in pieces:
        reader.feed(piece)
    return [(kind, bytes(content)) for kind, content in found], reader


@given(st.lists(CONTENT, min_size=1, max_size=4), st.integers(1, 50), st.sampled_from([b"", b"preamble"]))
def test_parts_are_found_however_the_answer_is_cut(parts: list[bytes], size: int, preamble: bytes) -> None:
    """Pieces of any length give each part whole, in order; the email package finds the same."""
    parts = [part for part in parts if b"\r\n--b0" not in b"\r\n" + part + b"\r\n"] or [b""]
    whole = body(parts, preamble)
    found, reader = read([whole[at : at + size] for at in range(0, len(whole), size)])
    assert found == [("application/dicom", part) for part in parts]
    assert (reader.parts, reader.ended) == (len(parts), True)
    if any(b"\n--b0" in part for part in parts):
        return  # a boundary after a bare line feed is one to that package, and none to RFC 2046
    message = message_from_bytes(b"Content-Type: multipart/related; boundary=b0\r\n\r\n" + whole, policy=HTTP)
    assert len(list(message.iter_parts())) == len(parts)


def test_a_cut_answer_has_no_end() -> None:
    """Every shorter answer is seen to be cut."""
    whole = body([b"one", b"two"], epilogue=b"")
    assert not any(read([whole[:length]])[1].ended for length in range(len(whole)))
    assert read([whole])[1].ended


def test_no_more_than_a_boundary_is_held() -> None:
    """A part of a megabyte goes on as it comes."""
    taken: list[int] = []
    reader = PartReader(BOUNDARY, lambda _number, _type: lambda data: taken.append(len(data)))
    reader.feed(b"--b0\r\nContent-Type: application/dicom\r\n\r\n")
    for _ in range(100):
        reader.feed(b"x" * 10_000)
        assert len(reader._rest) < 10
    assert sum(taken) > 999_990


def test_headers_without_an_end_are_no_multipart_answer() -> None:
    with pytest.raises(RetryableError, match="without an end"):
        read([b"--b0\r\n", b"x" * 20_000])


def test_headers_in_any_case_or_none() -> None:
    """The type is "" where a part has none."""
    found, _ = read([b"--b0\r\ncontent-TYPE: image/png\r\nX: y\r\n\r\n1\r\n--b0 \r\n\r\n2\r\n--b0--"])
    assert found == [("image/png", b"1"), ("", b"2")]


def test_a_media_type_and_its_parameters() -> None:
    kind, parameters = media_type('Multipart/Related; Type="application/dicom"; boundary=a1; transfer-syntax=1.2')
    assert kind == "multipart/related"
    assert parameters == {"type": "application/dicom", "boundary": "a1", "transfer-syntax": "1.2"}
