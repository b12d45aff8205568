"""The body of a request, up to the size the service takes."""

from __future__ import annotations

from starlette.requests import Request

from dicom_emulator.http.errors import TooLarge


async def read_body(request: Request, most: int) -> bytes:
    """The whole body. Raises TooLarge (413) beyond `most` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise TooLarge("The request body is too large.")
    return bytes(body)
