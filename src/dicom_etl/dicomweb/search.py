"""Searches studies, series and instances by QIDO-RS (PS3.18 §10.6; design/service-protocol.md: QIDO-RS)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

import msgspec

from dicom_etl.core.errors import ProtocolError
from dicom_etl.dicomweb.resources import route
from dicom_etl.remote.http.client import HttpClient
from dicom_etl.remote.http.request import HttpRequest
from dicom_etl.remote.http.response import NOT_JSON, HttpResponse
from dicom_etl.remote.http.retry import DEFAULT_RETRY, FailureKind, RetryableError, RetryPolicy

PAGE = 200
_DATASETS = msgspec.json.Decoder(list[dict[str, Any]])

T = TypeVar("T")


class SamePage(ProtocolError):
    """A service that passes over ``offset``."""

    def __init__(self) -> None:
        super().__init__("the search sent the same page twice")


@dataclass(frozen=True, slots=True)
class Search(Generic[T]):
    """One search: where it is asked, with which filters and further attributes, and what a match is decoded to."""

    client: HttpClient
    path: str
    decoder: msgspec.json.Decoder[list[T]]
    filters: Mapping[str, str] = field(default_factory=dict)
    include: tuple[str, ...] = ()
    page: int = PAGE
    retry_policy: RetryPolicy = DEFAULT_RETRY

    def part(self, offset: int, limit: int) -> list[T]:
        """Up to ``limit`` matches after the first ``offset``, newest first. Raises as ``HttpClient.send``."""
        params = {**self.filters, "limit": str(limit), "offset": str(offset)}
        if self.include:
            params["includefield"] = ",".join(self.include)
        request = HttpRequest(
            self.path,
            params=params,
            headers={"Accept": "application/dicom+json"},
            expected=frozenset({200, 204}),
            expect_json=True,
        )
        matches = self.client.send(request, lambda response: _decoded(response, self.decoder), self.retry_policy)
        if len(matches) > limit:
            raise ProtocolError("the search sent a page longer than its limit")
        return matches

    def pages(self, offset: int = 0, end: int | None = None) -> Iterator[list[T]]:
        """The matches page by page, until a page is short; no page begins at ``end`` or later.

        Raises ProtocolError for the same full page twice: a service that passes over ``offset`` would have no last one.
        """
        before: list[T] | None = None
        while end is None or offset < end:
            matches = self.part(offset, self.page)
            if len(matches) == self.page and matches == before:
                raise SamePage
            yield matches
            if len(matches) < self.page:
                return
            before = matches
            offset += self.page


def search(
    client: HttpClient,
    level: Literal["studies", "series", "instances"],
    *,
    partition: str | None = None,
    filters: Mapping[str, str] | None = None,
    include: tuple[str, ...] = (),
    limit: int = PAGE,
) -> Iterator[dict[str, Any]]:
    """Each match as its DICOM JSON data set, newest first, page by page.

    ``filters`` are keywords or tags with the value to match, ``include`` further attributes to return. The
    service has no snapshot: while others write, a match can come twice or be missed; compare sets, and ask
    again. Raises as ``HttpClient.send``.
    """
    asked = Search(client, route(partition, level), _DATASETS, filters or {}, include, limit)
    for page in asked.pages():
        yield from page


def partitions(client: HttpClient, retry_policy: RetryPolicy = DEFAULT_RETRY) -> list[str] | None:
    """The names of the service's partitions; None where it has none (the feature is off)."""
    request = HttpRequest(route(None, "partitions"), expected=frozenset({200, 204, 400}), expect_json=True)
    return client.send(request, _partition_names, retry_policy)


def _decoded(response: HttpResponse, decoder: msgspec.json.Decoder[list[T]]) -> list[T]:
    if response.status == 204:
        return []
    try:
        return decoder.decode(response.body)
    except msgspec.ValidationError as error:
        raise ProtocolError("the search sent a match that is not a data set with its UIDs and counts") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RetryableError(NOT_JSON, FailureKind.FAILING) from error


def _partition_names(response: HttpResponse) -> list[str] | None:
    if response.status == 400:
        return None
    return [str(row["partitionName"]) for row in _decoded(response, _DATASETS) if "partitionName" in row]
