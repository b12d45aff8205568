"""Lists the extended query tags of the service (design/service-protocol.md: Extended query tags)."""

from __future__ import annotations

from typing import Literal

import msgspec

from dicom_etl.core.errors import ConfigurationError, ProtocolError
from dicom_etl.dicomweb.resources import route
from dicom_etl.remote.http.client import HttpClient
from dicom_etl.remote.http.request import HttpRequest
from dicom_etl.remote.http.response import NOT_JSON, HttpResponse
from dicom_etl.remote.http.retry import FailureKind, RetryableError

PAGE = 100
# The service allows 128.
_MOST = 1_000


class QueryTag(msgspec.Struct, frozen=True, rename="camel"):
    """One tag that the service searches: ``path`` is eight hexadecimal digits, or a keyword."""

    path: str
    vr: str
    level: Literal["Instance", "Series", "Study"]
    private_creator: str | None = None


_TAGS = msgspec.json.Decoder(list[QueryTag])


def extended_query_tags(client: HttpClient) -> list[QueryTag]:
    """All tags in the service's order, whatever their status; partitions share them.

    Raises ConfigurationError when the service has no such list, else as ``HttpClient.send``.
    """
    found: list[QueryTag] = []
    while len(found) < _MOST:
        page = client.send(_request(len(found)), _read)
        found += page
        if len(page) < PAGE:
            return found
    raise ProtocolError("the service lists more extended query tags than it allows")


def _request(offset: int) -> HttpRequest:
    return HttpRequest(
        route(None, "extendedquerytags"),
        params={"limit": str(PAGE), "offset": str(offset)},
        headers={"Accept": "application/json"},
        expected=frozenset({200, 204, 404}),
        expect_json=True,
    )


def _read(response: HttpResponse) -> list[QueryTag]:
    if response.status == 404:
        raise ConfigurationError(
            "the service has no extended query tags (404): check dicom.base_url, or add tags by name"
        )
    if response.status == 204:
        return []
    try:
        return _TAGS.decode(response.body)
    except msgspec.ValidationError as error:
        raise ProtocolError("the service sent an extended query tag without its path, VR or level") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RetryableError(NOT_JSON, FailureKind.FAILING) from error
