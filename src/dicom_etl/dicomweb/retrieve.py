"""Retrieves the file of an instance, or asks whether the service has one.

By WADO-RS (PS3.18 §10.4; design/service-protocol.md: WADO-RS).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dicom_etl.dicomweb.resources import instance_route, is_uid
from dicom_etl.dicomweb.side_by_side import side_by_side
from dicom_etl.remote.http.client import HttpClient
from dicom_etl.remote.http.request import HttpRequest
from dicom_etl.remote.http.retry import DEFAULT_RETRY, RetryPolicy

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


def _metadata_call(partition: str | None, study: str, series: str, instance: str) -> HttpRequest:
    return HttpRequest(
        instance_route(partition, study, series, instance) + "/metadata",
        headers={"Accept": "application/dicom+json"},
        expected=frozenset({200, 404}),
        expect_json=True,
    )
