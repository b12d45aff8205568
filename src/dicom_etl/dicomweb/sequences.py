"""The change feed by sequence, as its version 1 serves it (service-protocol §2.1, architecture §5.10)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

from dicom_etl.dicomweb.answer import Answer
from dicom_etl.dicomweb.body import TooLarge
from dicom_etl.dicomweb.client import DicomClient, KeepsFailing
from dicom_etl.dicomweb.decode import NotJson, decode_page
from dicom_etl.dicomweb.page import LARGEST_PAGE_BYTES
from dicom_etl.dicomweb.poison import Budget
from dicom_etl.dicomweb.retry import PATIENT, Failure, Kind, Patience
from dicom_etl.dicomweb.unreadable import METADATA_NOT_TRIED, METADATA_UNAVAILABLE
from dicom_etl.dicomweb.wire import Call
from dicom_etl.entry import Entry
from dicom_etl.errors import ProtocolError

MOST_NUMBERS = 100
_FEED = "/v1/changefeed"
_LATEST = "/v1/changefeed/latest"
# What a service may say that has no version 1: our parameters are right, so that a 400 is about the version.
_REFUSALS = frozenset({400, 404, 405, 410, 501})
_QUICK_ATTEMPTS = 4

T = TypeVar("T")


class FeedRefused(Exception):
    """The service has no feed of version 1: no error, it is asked by time instead. Never leaves the verbs."""


def latest_by_sequence(client: DicomClient) -> Entry | None:
    """The entry with the largest sequence, without metadata; None when the feed is empty.

    Raises FeedRefused, and else as ``DicomClient.send``.
    """
    call = Call(
        _LATEST,
        params={"includeMetadata": "false"},
        expected=frozenset({200, 204}) | _REFUSALS,
        json=True,
        max_bytes=LARGEST_PAGE_BYTES,
    )
    return _send(client, call, _latest, PATIENT)


def list_sequences(client: DicomClient, first: int, last: int) -> list[Entry]:
    """The entries with the numbers ``first`` to ``last`` (at most MOST_NUMBERS of them), without metadata.

    By sequence, each once. Raises FeedRefused, ProtocolError when other entries come, and else as
    ``DicomClient.send``.
    """
    return _page(client, first, last, metadata=False, patience=PATIENT)


def complete(client: DicomClient, entries: Sequence[Entry], budget: Budget) -> list[Entry]:
    """The same entries with their metadata; ``entries`` by sequence, as ``list_sequences`` gave them.

    An entry whose metadata cannot be had carries its code (architecture §5.9): a range that fails with metadata
    and answers without is halved, within ``budget``. Raises as ``list_sequences``.
    """
    if not entries:
        return []
    first, last = entries[0].sequence, entries[-1].sequence
    wanted = {entry.sequence for entry in entries}
    # A single entry cannot be asked for in parts; it is taken whatever its size.
    largest = LARGEST_PAGE_BYTES if len(entries) > 1 else None
    try:
        page = _page(client, first, last, metadata=True, patience=Patience(None, _QUICK_ATTEMPTS), largest=largest)
    except (KeepsFailing, TooLarge):
        # An outage ends here: without metadata the request fails as well, until the client's time is over.
        list_sequences(client, first, last)
        return _halved(client, entries, budget)
    return [entry for entry in page if entry.sequence in wanted]


def _halved(client: DicomClient, entries: Sequence[Entry], budget: Budget) -> list[Entry]:
    if len(entries) == 1:
        return [entries[0].replace(unreadable=METADATA_UNAVAILABLE)]
    if not budget.take():
        return [entry.replace(unreadable=METADATA_NOT_TRIED) for entry in entries]
    middle = len(entries) // 2
    return complete(client, entries[:middle], budget) + complete(client, entries[middle:], budget)


def _page(
    client: DicomClient,
    first: int,
    last: int,
    *,
    metadata: bool,
    patience: Patience,
    largest: int | None = LARGEST_PAGE_BYTES,
) -> list[Entry]:
    if not 0 < last - first + 1 <= MOST_NUMBERS:
        raise ValueError("a page of the feed by sequence holds 1 to 100 numbers")
    call = Call(
        _FEED,
        # Version 1 takes both as a range of numbers: [offset + 1, offset + limit].
        params={
            "offset": str(first - 1),
            "limit": str(last - first + 1),
            "includeMetadata": "true" if metadata else "false",
        },
        expected=frozenset({200}) | _REFUSALS,
        json=True,
        max_bytes=largest,
    )
    return _send(client, call, lambda answer: _entries(answer, first, last), patience)


def _send(client: DicomClient, call: Call, read: Callable[[Answer], T], patience: Patience) -> T:
    def read_unless_refused(answer: Answer) -> T:
        if answer.status in _REFUSALS:
            raise FeedRefused
        return read(answer)

    return client.send(call, read_unless_refused, patience)


def _latest(answer: Answer) -> Entry | None:
    body = answer.body.strip()
    if answer.status == 204 or body in (b"", b"null"):
        return None
    return _decoded(b"[" + body + b"]")[0]


def _entries(answer: Answer, first: int, last: int) -> list[Entry]:
    entries = _decoded(answer.body)
    if any(not first <= entry.sequence <= last for entry in entries):
        raise ProtocolError("the change feed sent an entry outside the numbers that were asked for")
    if any(earlier.sequence > later.sequence for earlier, later in pairwise(entries)):
        raise ProtocolError("the change feed sent a page that is not ordered by sequence")
    return list({entry.sequence: entry for entry in entries}.values())


def _decoded(body: bytes) -> list[Entry]:
    try:
        return decode_page(body)
    except NotJson as error:
        raise Failure("an answer that is not JSON", Kind.FAILING) from error
