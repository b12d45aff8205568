"""The feed's rows as bytes: real headers, filled up to a length, with UIDs, numbers and times put in between."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from bench.feed import SERIES, Feed, series_and_image, uids
from dicom_emulator.state.timestamps import TICKS_PER_SECOND, timestamp_text
from dicom_emulator.state.uids import DEFAULT_PARTITION, InstanceKey
from dicom_emulator.testing.headers import OWN, real_headers

# The metadata of a series has one of these lengths, in tenths of the feed's average.
_LENGTHS = (6, 8, 10, 12, 14)
_IMAGE = "@image@"
_PATH = b'"filePath":"AHDS/bench/dicom/bench/%b/%%d.dcm",' % DEFAULT_PARTITION.encode("ascii")
_HEAD = (
    b'{"sequence":%%d,"partitionName":"%b",%%b%%b%%d","action":"%%b","timestamp":"%%b","state":"%%b"'
    % DEFAULT_PARTITION.encode("ascii")
)


class SeriesText(NamedTuple):
    """What all rows of a series share: its UIDs, its metadata before and after the number of the image, its filling."""

    uids: bytes
    before: bytes
    after: bytes
    filling: bytes


@lru_cache(maxsize=1024)
def _series_text(number: int, updated: bool, header_bytes: int) -> SeriesText:
    known = uids(number)
    sop = f"{known.series}.{_IMAGE}"
    shared = f'"studyInstanceUid":"{known.study}","seriesInstanceUid":"{known.series}","sopInstanceUid":"{sop}'
    headers = real_headers()
    description = f"{'Updated' if updated else 'Study'} {number // SERIES}"
    values = (description, f"Bench^{number // SERIES}", f"{number // SERIES:08d}", "BENCH")
    text = headers[number % len(headers)].metadata(
        InstanceKey(DEFAULT_PARTITION, known.study, known.series, sop), values
    )
    length = _LENGTHS[number % len(_LENGTHS)] * header_bytes // 10
    before, after = text[:-1].split(_IMAGE.encode("ascii"))
    filling = _filling(number % len(headers), length - len(text))
    return SeriesText(shared.removesuffix(_IMAGE).encode("ascii"), before, after, filling)


@lru_cache(maxsize=256)
def _filling(first: int, length: int) -> bytes:
    """A private sequence of other real headers, of about so many bytes: modern headers are long and nested."""
    key = InstanceKey(DEFAULT_PARTITION, "1.2.3", "1.2.3.4", "1.2.3.4.5")
    headers = real_headers()
    given = [header.metadata(key, OWN) for header in (*headers[first + 1 :], *headers[: first + 1])]
    items: list[bytes] = []
    while length > min(map(len, given)):
        for item in given:
            if len(item) < length:
                items.append(item)
                length -= len(item) + 1
    return b',"7FE11010":{"vr":"SQ","Value":[%b]}' % b",".join(items)


@lru_cache(maxsize=8192)
def _second(second: int) -> str:
    return timestamp_text(second * TICKS_PER_SECOND)[:19]


def timestamp(ticks: int) -> bytes:
    """As the service writes it: no trailing zeros, offset +00:00."""
    second, fraction = divmod(ticks, TICKS_PER_SECOND)
    return f"{_second(second)}{f'.{fraction:07d}'.rstrip('0') if fraction else ''}+00:00".encode("ascii")


def entry(feed: Feed, place: int, *, metadata: bool = True) -> list[bytes]:
    """The row at that place, in pieces, as the service serves it now.

    design/service-protocol.md: Feed entries, Rows that change.
    """
    event = feed.event(place)
    newest = feed.last_place_of(place)
    last = event if newest == place else feed.event(newest)
    updated = last.action == "Update"
    state = b"Deleted" if last.action == "Delete" else b"Current" if newest == place else b"Replaced"
    number, image = series_and_image(event.instance)
    series = _series_text(number, updated, feed.header_bytes)
    # An update gives all rows the new file's name, a delete leaves the older rows theirs.
    path = b"" if event.action == "Delete" else _PATH % (newest + 1 if updated else event.instance + 1)
    action = event.action.encode("ascii")
    head = _HEAD % (place + 1, path, series.uids, image, action, timestamp(event.ticks), state)
    if not metadata or state == b"Deleted":
        return [head, b"}"]
    return [head, b',"metadata":', series.before, b"%d" % image, series.after, series.filling, b"}}"]


def page(feed: Feed, places: range, *, metadata: bool = True) -> bytes:
    """The rows at those places as one JSON array."""
    pieces: list[bytes] = [b"["]
    for place in places:
        pieces += entry(feed, place, metadata=metadata)
        pieces.append(b",")
    if len(pieces) > 1:
        pieces.pop()
    pieces.append(b"]")
    return b"".join(pieces)
