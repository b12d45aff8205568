"""Retrieves one instance, its file or its metadata, by WADO-RS (PS3.18 §10.4; service-protocol §4.2)."""

from __future__ import annotations

from typing import Any

import msgspec

from dicom_etl.dicomweb.answer import Answer
from dicom_etl.dicomweb.client import DicomClient
from dicom_etl.dicomweb.retry import Failure, Kind
from dicom_etl.dicomweb.routes import instance_route
from dicom_etl.dicomweb.wire import Call

# As stored: without a transfer syntax the service would transcode to Explicit VR Little Endian.
_AS_STORED = "application/dicom; transfer-syntax=*"
_METADATA = msgspec.json.Decoder(list[dict[str, Any]])


def retrieve_instance(
    client: DicomClient, study: str, series: str, instance: str, *, partition: str | None = None
) -> bytes | None:
    """The file of one instance, byte for byte as stored; None when the service does not have it.

    Raises as ``DicomClient.send``.
    """
    call = Call(
        instance_route(partition, study, series, instance),
        headers={"Accept": _AS_STORED},
        expected=frozenset({200, 404}),
    )
    return client.send(call, lambda answer: None if answer.status == 404 else answer.body)


def retrieve_metadata(
    client: DicomClient, study: str, series: str, instance: str, *, partition: str | None = None
) -> dict[str, Any] | None:
    """The DICOM JSON data set of one instance; None when the service does not have it.

    Raises as ``DicomClient.send``.
    """
    call = Call(
        instance_route(partition, study, series, instance) + "/metadata",
        headers={"Accept": "application/dicom+json"},
        expected=frozenset({200, 404}),
        json=True,
    )
    return client.send(call, _metadata)


def _metadata(answer: Answer) -> dict[str, Any] | None:
    if answer.status == 404:
        return None
    try:
        datasets = _METADATA.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Failure("an answer that is not JSON", Kind.FAILING) from error
    return datasets[0] if datasets else None
