"""Retrieves the file of an instance, or asks whether the service has one.

By WADO-RS (PS3.18 §10.4; design/service-protocol.md: WADO-RS).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import msgspec

from dicom_etl.dicomweb.resources import instance_route, is_uid
from dicom_etl.dicomweb.side_by_side import side_by_side
from dicom_etl.remote.http.client import HttpClient, KeepsFailing
from dicom_etl.remote.http.request import HttpRequest
from dicom_etl.remote.http.response import NOT_JSON, HttpResponse
from dicom_etl.remote.http.retry import DEFAULT_RETRY, FailureKind, RetryableError, RetryPolicy

Header = str | None
_DATASETS = msgspec.json.Decoder(list[msgspec.Raw])
# After so many failures the reason is taken to be the instance.
_FAILING_ATTEMPTS = 4
# As stored: without a transfer syntax the service would transcode to Explicit VR Little Endian.
_AS_STORED = "application/dicom; transfer-syntax=*"


def retrieve_instance(
    client: HttpClient, study: str, series: str, instance: str, *, partition: str | None = None
) -> bytes | None:
    """The file of one instance, byte for byte as stored; None when the service does not have it.

    Raises as ``HttpClient.send``.
    """
    request = HttpRequest(
        instance_route(partition, study, series, instance),
        headers={"Accept": _AS_STORED},
        expected=frozenset({200, 404}),
    )
    return client.send(request, lambda response: None if response.status == 404 else response.body)


def instance_exists(
    client: HttpClient,
    study: str,
    series: str,
    instance: str,
    *,
    partition: str | None = None,
    retry_policy: RetryPolicy = DEFAULT_RETRY,
) -> bool:
    """Whether the service has the instance: 404 for its metadata is the proof that it has not.

    Raises as ``HttpClient.send``: any other answer proves nothing.
    """
    request = _metadata_call(partition, study, series, instance)
    return client.send(request, lambda response: response.status == 200, retry_policy)


def gone_instances(
    client: HttpClient, partition: str | None, keys: Iterable[tuple[str, str, str]], *, connections: int
) -> Iterator[tuple[str, str, str]]:
    """Those of ``keys`` (study, series, SOP instance) that the service proves not to have, in any order.

    ``partition`` is None where the service has none. ``keys`` are taken as they are needed, in this thread. A key that
    no path can hold is not asked for, and so nothing is proven. Raises as ``instance_exists``.
    """

    def ask(key: tuple[str, str, str], retry_policy: RetryPolicy) -> tuple[tuple[str, str, str] | None, tuple[()]]:
        return None if instance_exists(client, *key, partition=partition, retry_policy=retry_policy) else key, ()

    possible = (key for key in keys if all(map(is_uid, key)))
    return (key for key in side_by_side(ask, possible, connections=connections) if key is not None)


def instance_headers(
    client: HttpClient, partition: str | None, keys: Iterable[tuple[str, str, str]], *, connections: int
) -> Iterator[tuple[tuple[str, str, str], Header]]:
    """The header of each of ``keys`` (study, series, SOP instance) as it is now, in any order.

    None where the service does not have the instance; "" where it fails to give this header again and again, or no path
    can hold the key. ``partition`` is None where the service has none. ``keys`` are taken as they are needed, in this
    thread; up to two headers for each connection exist at a time. Raises as ``HttpClient.send``.
    """

    def ask(
        key: tuple[str, str, str], retry_policy: RetryPolicy
    ) -> tuple[tuple[tuple[str, str, str], Header], tuple[()]]:
        if not all(map(is_uid, key)):
            return (key, ""), ()
        patient = replace(retry_policy, failing_attempts=_FAILING_ATTEMPTS)
        try:
            return (key, client.send(_metadata_call(partition, *key), _header, patient)), ()
        except KeepsFailing:
            return (key, ""), ()

    return side_by_side(ask, keys, connections=connections)


def _header(response: HttpResponse) -> Header:
    """The JSON text of the one data set that the answer holds."""
    if response.status == 404:
        return None
    try:
        found = _DATASETS.decode(response.body)
        return bytes(found[0]).decode() if found and bytes(found[0]).startswith(b"{") else ""
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RetryableError(NOT_JSON, FailureKind.FAILING) from error


def _metadata_call(partition: str | None, study: str, series: str, instance: str) -> HttpRequest:
    return HttpRequest(
        instance_route(partition, study, series, instance) + "/metadata",
        headers={"Accept": "application/dicom+json"},
        expected=frozenset({200, 404}),
        expect_json=True,
    )
