"""Takes an answer of multipart/related apart while it comes (RFC 2046 §5.1; PS3.18 §8.6.1.2)."""

from __future__ import annotations

from collections.abc import Callable
from email.message import Message

from dicom_etl.remote.http.retry import FailureKind, RetryableError

# Of the headers of one part; more is no multipart answer.
_LONGEST_HEADERS = 16 * 1024

OpenPart = Callable[[int, str], Callable[[bytes], None]]
"""Given a part's place, from 0, and its Content-Type, what takes its bytes as they come."""


def media_type(content_type: str) -> tuple[str, dict[str, str]]:
    """The type in lower case, and its parameters by lower-case name without quotes."""
    message = Message()
    message["content-type"] = content_type
    parameters = message.get_params(failobj=[], unquote=True)[1:]
    return message.get_content_type(), {name.lower(): value for name, value in parameters}


class PartReader:
    """Finds the parts in what ``feed`` is given, and holds no more than a boundary or the headers of a part.

    ``parts`` have been begun; ``ended`` after the last boundary, behind which nothing counts. Raises RetryableError for
    headers without end.
    """

    def __init__(self, boundary: str, open_part: OpenPart) -> None:
        self.parts = 0
        self.ended = False
        self._delimiter = b"\r\n--" + boundary.encode("latin-1")
        self._open_part = open_part
        self._rest = b"\r\n"  # the first boundary may have no line before it
        self._take: Callable[[bytes], None] | None = None
        self._step: Callable[[], bool] = self._content

    def feed(self, data: bytes) -> None:
        """The next bytes of the answer."""
        if self.ended:
            return
        self._rest += data
        while not self.ended and self._step():
            pass

    def _content(self) -> bool:
        """A part, or what stands before the first one, up to the next boundary or as far as it can be none."""
        at = self._rest.find(self._delimiter)
        whole = at if at >= 0 else max(0, len(self._rest) - len(self._delimiter) + 1)
        if self._take is not None and whole:
            self._take(self._rest[:whole])
        self._rest = self._rest[whole + (len(self._delimiter) if at >= 0 else 0) :]
        if at >= 0:
            self._step = self._boundary_end
        return at >= 0

    def _boundary_end(self) -> bool:
        if self._rest.startswith(b"--"):
            self.ended = True
            return False
        at = self._rest.find(b"\n")
        if at < 0:
            return self._wait()
        # The line's end stays: headers that are empty begin with it.
        self._rest = b"\r\n" + self._rest[at + 1 :]
        self._step = self._headers
        return True

    def _headers(self) -> bool:
        at = self._rest.find(b"\r\n\r\n")
        if at < 0:
            return self._wait()
        self._take = self._open_part(self.parts, _content_type(self._rest[:at]))
        self.parts += 1
        self._rest = self._rest[at + 4 :]
        self._step = self._content
        return True

    def _wait(self) -> bool:
        if len(self._rest) > _LONGEST_HEADERS:
            raise RetryableError("a multipart answer without an end of its headers", FailureKind.FAILING)
        return False


def _content_type(headers: bytes) -> str:
    for line in headers.decode("latin-1").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-type":
            return value.strip()
    return ""
