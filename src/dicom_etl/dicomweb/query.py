"""Searches studies, series and instances by QIDO-RS (PS3.18 §10.6; service-protocol §4.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from dicom_etl.dicomweb.answer import Answer
from dicom_etl.dicomweb.client import DicomClient
from dicom_etl.dicomweb.retry import Failure, Kind
from dicom_etl.dicomweb.routes import route
from dicom_etl.dicomweb.wire import Call
from dicom_etl.errors import ProtocolError

PAGE = 200
_MATCHES = msgspec.json.Decoder(list[dict[str, Any]])


def search(
    client: DicomClient,
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
    again. Raises as ``DicomClient.send``.
    """
    params = {**(filters or {}), "limit": str(limit)}
    if include:
        params["includefield"] = ",".join(include)
    offset = 0
    while True:
        call = Call(
            route(partition, level),
            params={**params, "offset": str(offset)},
            headers={"Accept": "application/dicom+json"},
            expected=frozenset({200, 204}),
            json=True,
        )
        found = client.send(call, _matches)
        if len(found) > limit:
            raise ProtocolError("the search sent a page longer than its limit")
        yield from found
        if len(found) < limit:
            return
        offset += len(found)


def partitions(client: DicomClient) -> list[str] | None:
    """The names of the service's partitions; None where it has none (the feature is off)."""
    call = Call(route(None, "partitions"), expected=frozenset({200, 204, 400}), json=True)
    return client.send(call, lambda answer: None if answer.status == 400 else _partition_names(answer))


def _matches(answer: Answer) -> list[dict[str, Any]]:
    if answer.status == 204:
        return []
    try:
        return _MATCHES.decode(answer.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Failure("an answer that is not JSON", Kind.FAILING) from error


def _partition_names(answer: Answer) -> list[str]:
    return [str(found["partitionName"]) for found in _matches(answer) if "partitionName" in found]
