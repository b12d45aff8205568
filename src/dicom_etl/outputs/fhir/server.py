"""A FHIR R4 server as the output talks to it: batches, searches, reads and asynchronous operations."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import TypeVar
from urllib.parse import quote, urlencode

import httpx

from dicom_etl.core.clock import utc_now
from dicom_etl.core.errors import ConfigurationError, ProtocolError
from dicom_etl.core.settings.model import Fhir
from dicom_etl.outputs.fhir.answers import json_object, matches, next_link
from dicom_etl.outputs.fhir.bundle import Entry, Outcome, encode, outcomes
from dicom_etl.outputs.fhir.facts import Json
from dicom_etl.outputs.fhir.links import path_below
from dicom_etl.outputs.fhir.responses import raise_for_status
from dicom_etl.remote.http.body import TooLarge
from dicom_etl.remote.http.client import HttpClient
from dicom_etl.remote.http.endpoint import Endpoint
from dicom_etl.remote.http.request import HttpRequest
from dicom_etl.remote.http.response import HttpResponse
from dicom_etl.remote.http.retry import DEFAULT_RETRY, RetryPolicy
from dicom_etl.remote.identity import TokenSource

FHIR_JSON = "application/fhir+json"
_ACCEPT = {"Accept": FHIR_JSON}
_BATCH_HEADERS = {
    **_ACCEPT,
    "Content-Type": FHIR_JSON,
    # What was put need not come back.
    "Prefer": "return=minimal",
    # Azure's: no entry of ours depends on another of its bundle.
    "x-bundle-processing-logic": "parallel",
}
_LARGEST_BYTES = 64 << 20
_MOST_PAGES = 10_000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Polled:
    """How an operation stands: 202 while it runs, 200 when it is done, else the status with which it failed.

    ``retry_after`` is in seconds. ``body`` may quote values of patients.
    """

    status: int
    retry_after: float | None
    body: Json | None


def fhir_endpoint(fhir: Fhir, token: TokenSource | None) -> Endpoint:
    """The server that the settings name, as the client calls it. Raises ConfigurationError when none is set."""
    if not fhir.base_url:
        raise ConfigurationError("fhir.base_url: is not set; give the address of the FHIR R4 server")
    return Endpoint(
        "the FHIR server",
        fhir.base_url,
        "fhir.base_url",
        raise_for_status,
        token,
        connections=fhir.connections,
        timeout_seconds=fhir.timeout_seconds,
        retry_seconds=fhir.retry_seconds,
        retry_key="fhir.retry_seconds",
    )


class FhirServer:
    """One server; safe to share between threads, to be closed at the end. ``client`` counts requests and waits.

    Each method raises AccessDenied, ConfigurationError, ProtocolError and ServiceUnavailable (``responses``).
    """

    def __init__(
        self,
        fhir: Fhir,
        token: TokenSource | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], datetime] = utc_now,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        endpoint = fhir_endpoint(fhir, token)
        self.client = HttpClient(endpoint, sleep=sleep, monotonic=monotonic, wall_clock=wall_clock, transport=transport)
        self._base_url = endpoint.base_url

    def __enter__(self) -> FhirServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()

    def batch(self, entries: Sequence[Entry], retry_policy: RetryPolicy = DEFAULT_RETRY) -> list[Outcome]:
        """What became of each entry, by position.

        The whole batch is tried again when its answer is lost: a PUT, DELETE or GET by id has the same effect twice. A
        PUT with ``if_match`` may then be told 409 or 412 about its own first try. Raises BundleRefused, KeepsFailing.
        """
        request = HttpRequest(
            "",
            "POST",
            headers=_BATCH_HEADERS,
            content=encode(entries, self._base_url),
            expect_json=True,
            max_bytes=_LARGEST_BYTES,
        )
        answered = self._send(
            request, lambda response: outcomes(response.body, entries, response.retry_after), retry_policy
        )
        if any(outcome.status == 429 for outcome in answered):
            # Azure throttles the entries of a bundle, and says in its headers when to come back.
            self.client.throttled(answered[0].retry_after)
        return answered

    def read(self, kind: str, resource_id: str) -> Json | None:
        """A resource by its id; None when there is none (any more)."""
        request = HttpRequest(
            f"/{kind}/{resource_id}",
            headers=_ACCEPT,
            expected=frozenset({200, 404, 410}),
            expect_json=True,
            max_bytes=_LARGEST_BYTES,
        )
        return self._send(request, lambda response: json_object(response) if response.status == 200 else None)

    def search(self, kind: str, params: Sequence[tuple[str, str]]) -> Iterator[Json]:
        """The resources of a kind that match, page by page, in the server's order.

        Raises ConfigurationError when a page's link leads to another address, ProtocolError when they have no end.
        """
        path = f"/{kind}?{urlencode(params, quote_via=quote)}"
        for _ in range(_MOST_PAGES):
            page = self._page(path)
            yield from matches(page, kind)
            link = next_link(page)
            if link is None:
                return
            path = path_below(self._base_url, link)
        raise ProtocolError("the FHIR server's list of search results has no end")

    def _page(self, path: str) -> Json:
        # HAPI answers a search as it did a minute ago, unless it is told not to.
        headers = {**_ACCEPT, "Cache-Control": "no-cache"}
        request = HttpRequest(path, headers=headers, expect_json=True, max_bytes=_LARGEST_BYTES)
        return self._send(request, json_object)

    def get(self, path: str, retry_policy: RetryPolicy = DEFAULT_RETRY) -> Json:
        """The JSON object at a path below the base, which may have a query."""
        request = HttpRequest(path, headers=_ACCEPT, expect_json=True, max_bytes=_LARGEST_BYTES)
        return self._send(request, json_object, retry_policy)

    def start_async(self, path: str, parameters: Json) -> str:
        """Begins an operation such as ``/$import``; returns the path at which it is polled.

        It may be begun twice when its answer is lost.
        """
        request = HttpRequest(
            path,
            "POST",
            headers={**_ACCEPT, "Content-Type": FHIR_JSON, "Prefer": "respond-async"},
            json=parameters,
            expected=frozenset({202}),
            max_bytes=_LARGEST_BYTES,
        )
        link = self._send(request, lambda response: response.headers.get("content-location", ""))
        if not link:
            raise ProtocolError("the FHIR server begins an operation and does not say where to ask for it")
        return path_below(self._base_url, link)

    def poll(self, path: str) -> Polled:
        """How the operation stands that ``start_async`` began."""
        request = HttpRequest(
            path,
            headers={"Accept": f"{FHIR_JSON}, application/json"},
            expected=frozenset({200, 202, 400, 404, 409, 410, 422}),
            expect_json=True,
            max_bytes=_LARGEST_BYTES,
        )
        return self._send(
            request,
            lambda response: Polled(
                response.status, response.retry_after, json_object(response) if response.status == 200 else None
            ),
        )

    def _send(
        self, request: HttpRequest, read: Callable[[HttpResponse], T], retry_policy: RetryPolicy = DEFAULT_RETRY
    ) -> T:
        try:
            return self.client.send(request, read, retry_policy)
        except TooLarge as error:
            raise ProtocolError("the FHIR server's answer is longer than any that was asked for") from error
