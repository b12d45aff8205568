"""Stores one DICOM file by STOW-RS (PS3.18 §10.5; design/service-protocol.md: STOW-RS)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from dicom_etl.dicomweb.resources import route
from dicom_etl.remote.http.client import HttpClient
from dicom_etl.remote.http.request import HttpRequest
from dicom_etl.remote.http.response import NOT_JSON, HttpResponse
from dicom_etl.remote.http.retry import FailureKind, RetryableError

ALREADY_EXISTS = 45070
_FAILURES = {
    272: "the service could not process the file",
    43264: "the file does not pass the service's validation",
    ALREADY_EXISTS: "the instance is already there",
    45071: "the instance is being stored by another request",
}
_STATUSES = {
    204: "the service found no file in the request",
    400: "the service does not accept the request; check the partition",
    409: "the service stored nothing and gave no reason",
    413: "the file is larger than the service takes",
    415: "the service does not take this content",
}
_WARNINGS = {
    1: "attributes that do not pass validation were left out of the metadata",
    45063: "the data set does not match its SOP class",
}
_NOT_NAMED = "a reason that it does not name"
_TAG = re.compile(r"\(([0-9a-fA-F]{4},[0-9a-fA-F]{4})\)")

Kept = Literal["stored", "stored with warnings", "already there", "refused"]


@dataclass(frozen=True, slots=True)
class StoreResult:
    """What became of one file.

    ``code`` is the failure or warning reason of DICOM (PS3.18 §10.5.3), or null; ``reason`` says it in words;
    ``tags`` are the attributes that the service named, as ``gggg,eeee``, without its words: they may quote
    values.
    """

    kind: Kept
    code: int | None = None
    reason: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def refused(self) -> bool:
        return self.kind == "refused"


def store(client: HttpClient, file: bytes, *, partition: str | None = None) -> StoreResult:
    """The outcome of storing the bytes of one DICOM file.

    A file that the service refuses is an outcome and no error; an instance that is already there is one of
    its own (it may be our own request that was sent again after its answer got lost). Raises AccessDenied,
    ServiceUnavailable, ConfigurationError, ProtocolError.
    """
    request = HttpRequest(
        route(partition, "studies"),
        method="POST",
        headers={"Content-Type": "application/dicom", "Accept": "application/dicom+json"},
        content=file,
        expected=frozenset({200, 202, *_STATUSES}),
    )
    return client.send(request, _outcome)


def _outcome(response: HttpResponse) -> StoreResult:
    stored, failed = _items(response)
    if failed:
        return _refused(failed[0])
    if response.status not in (200, 202) or not stored:
        return StoreResult("refused", None, _STATUSES.get(response.status, _NOT_NAMED))
    code = _number(stored[0], "00081196")
    if code is None:
        return StoreResult("stored")
    return StoreResult("stored with warnings", code, _WARNINGS.get(code, _NOT_NAMED), _tags(stored[0]))


def _refused(item: dict[str, Any]) -> StoreResult:
    code = _number(item, "00081197")
    reason = _NOT_NAMED if code is None else _FAILURES.get(code, _NOT_NAMED)
    return StoreResult("already there" if code == ALREADY_EXISTS else "refused", code, reason, _tags(item))


def _items(response: HttpResponse) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The items of ReferencedSOPSequence and FailedSOPSequence; none where the answer has no data set."""
    try:
        body = msgspec.json.decode(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if response.status in (200, 202):
            raise RetryableError(NOT_JSON, FailureKind.FAILING) from error
        return [], []
    return _values(body, "00081199"), _values(body, "00081198")


def _values(dataset: Any, tag: str) -> list[Any]:
    element = dataset.get(tag) if isinstance(dataset, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return [value for value in values if value is not None] if isinstance(values, list) else []


def _number(item: dict[str, Any], tag: str) -> int | None:
    return next((value for value in _values(item, tag) if isinstance(value, int)), None)


def _tags(item: dict[str, Any]) -> tuple[str, ...]:
    comments = [text for each in _values(item, "00741048") for text in _values(each, "00000902")]
    tags = (match for text in comments if isinstance(text, str) for match in _TAG.findall(text))
    return tuple(dict.fromkeys(tag.upper() for tag in tags))
