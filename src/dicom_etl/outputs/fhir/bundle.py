"""Batch bundles: the entries of one, its bytes, and what its answer says of each entry (FHIR R4 Bundle, http.html)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from dicom_etl.core.errors import ProtocolError
from dicom_etl.outputs.fhir.facts import Json
from dicom_etl.outputs.fhir.issues import issue_code
from dicom_etl.remote.http.response import NOT_JSON
from dicom_etl.remote.http.retry import FailureKind, RetryableError

# What stands round the body of an entry: names, method, the base's address, an entity tag.
_ENTRY_BYTES = 400
_STATUS = re.compile(r"\s*([1-5]\d\d)\b")


@dataclass(frozen=True, slots=True)
class Entry:
    """One interaction of a batch: a resource that is put, deleted or read by its id.

    ``body`` is the resource of a PUT as JSON. ``if_match`` is the entity tag that the resource must have, such as
    ``W/"3"``. A GET with ``search``, an encoded query, searches the kind instead; its ``id`` is empty.
    """

    method: Literal["PUT", "DELETE", "GET"]
    kind: str
    id: str
    body: bytes | None = None
    if_match: str | None = None
    search: str | None = None

    @property
    def url(self) -> str:
        """Its address below the base; what has the same is the same resource."""
        return f"{self.kind}/{self.id}" if self.search is None else f"{self.kind}?{self.search}"

    @property
    def size(self) -> int:
        """About how many bytes it has in a bundle."""
        return len(self.body or b"") + len(self.url) + _ENTRY_BYTES


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the server answered to one entry.

    ``status`` is an HTTP status; 0 when the server failed with this entry, sent alone, each time without a status of
    its own. ``issue`` is a code of FHIR's IssueType. ``body`` is the resource, or the searchset, of a GET that went
    well. ``retry_after`` is what the answer to the whole bundle asked for, in seconds.
    """

    status: int
    issue: str | None
    body: Json | None = None
    etag: str | None = None
    retry_after: float | None = None

    def accepted(self, entry: Entry) -> bool:
        """Whether the server now is as the entry wants it: what is to be deleted may be gone already."""
        return 200 <= self.status < 300 or (entry.method == "DELETE" and self.status in (404, 410))

    @property
    def may_pass(self) -> bool:
        """Whether it is a failure of the server and no refusal: the same entry may be taken another time."""
        return self.status in (0, 408, 429) or self.status >= 500


def bundles(entries: Iterable[Entry], most_entries: int, most_bytes: int = 4_000_000) -> Iterator[tuple[Entry, ...]]:
    """The entries in their order, as many in a bundle as the limits allow; a larger one stands alone.

    No bundle names a resource twice: the order of its entries is the server's to choose.
    """
    taken: dict[str, Entry] = {}
    size = 0
    for entry in entries:
        if taken and (len(taken) >= most_entries or size + entry.size > most_bytes or entry.url in taken):
            yield tuple(taken.values())
            taken, size = {}, 0
        taken[entry.url] = entry
        size += entry.size
    if taken:
        yield tuple(taken.values())


def encode(entries: Sequence[Entry], base_url: str) -> bytes:
    """The Bundle of type batch for the server at that address as JSON; the bodies stand in it byte by byte."""
    encoded = [_encoded(entry, base_url) for entry in entries]
    return msgspec.json.encode({"resourceType": "Bundle", "type": "batch", "entry": encoded})


def _encoded(entry: Entry, base_url: str) -> dict[str, Any]:
    request = {"method": entry.method, "url": entry.url}
    if entry.if_match is not None:
        request["ifMatch"] = entry.if_match
    if entry.body is None:
        return {"request": request}
    # HAPI's validator refuses a Bundle in which a resource with a relative reference has no fullUrl.
    full_url = f"{base_url.rstrip('/')}/{entry.url}"
    return {"fullUrl": full_url, "resource": msgspec.Raw(entry.body), "request": request}


class _Response(msgspec.Struct):
    status: str = ""
    etag: str | None = None
    outcome: msgspec.Raw = msgspec.Raw()


class _Answered(msgspec.Struct):
    response: _Response
    resource: msgspec.Raw = msgspec.Raw()


class _Bundle(msgspec.Struct):
    resource_type: Literal["Bundle"] = msgspec.field(name="resourceType")
    type: Literal["batch-response"]
    entry: list[_Answered]


_BUNDLE = msgspec.json.Decoder(_Bundle)


def outcomes(body: bytes, entries: Sequence[Entry], retry_after: float | None = None) -> list[Outcome]:
    """What a batch-response says of each of the entries that were sent, by position.

    Raises RetryableError for what is no JSON, as a cut answer, and ProtocolError for JSON that is no such answer.
    """
    try:
        answered = _BUNDLE.decode(body).entry
    except msgspec.ValidationError as error:
        raise ProtocolError("the FHIR server's answer to a batch is no Bundle of type batch-response") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RetryableError(NOT_JSON, FailureKind.FAILING) from error
    if len(answered) != len(entries):
        raise ProtocolError(f"the FHIR server answered a batch of {len(entries)} entries with {len(answered)}")
    return [_outcome(entry, one, retry_after) for entry, one in zip(entries, answered, strict=True)]


def _outcome(entry: Entry, answered: _Answered, retry_after: float | None) -> Outcome:
    status = _STATUS.match(answered.response.status)
    if status is None:
        raise ProtocolError("the FHIR server's answer to a batch has an entry without a status")
    number = int(status[1])
    if number >= 400:
        # Where an OperationOutcome stands differs: HAPI's and Azure's in the response, others' as the resource.
        issue = issue_code(answered.response.outcome) or issue_code(answered.resource)
        return Outcome(number, issue, retry_after=retry_after)
    # What is put comes back from servers that do not know Prefer; it is not looked at.
    body = _resource(answered.resource) if entry.method == "GET" else None
    return Outcome(number, None, body, _entity_tag(answered.response.etag), retry_after)


def _entity_tag(text: str | None) -> str | None:
    """The tag as If-Match takes it: HAPI gives the number of the version alone."""
    return f'W/"{text}"' if text and '"' not in text else text


def _resource(raw: msgspec.Raw) -> Json | None:
    if not bytes(raw):
        return None
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProtocolError("the FHIR server's answer to a batch has an entry that is no resource") from error
