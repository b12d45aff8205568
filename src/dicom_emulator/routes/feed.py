"""The change feed as it is asked for and served (design/service-protocol.md: Feed parameters, Feed entries)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.requests import Request
from starlette.responses import Response

from dicom_emulator.http.answers import JSON_TYPE
from dicom_emulator.http.errors import InvalidParameter
from dicom_emulator.http.jsontext import quoted
from dicom_emulator.http.parameters import INT32_MAX, boolean, instant, integer, query_of
from dicom_emulator.http.routing import service_of, version_of
from dicom_emulator.http.wire import note_fault
from dicom_emulator.state.history import FeedRow
from dicom_emulator.state.service import DicomService
from dicom_emulator.state.timestamps import MAX_TICKS, MIN_TICKS, timestamp_text


def get_feed(request: Request) -> Response:
    """`GET /v{n}/changefeed`: a JSON array, `[]` when the window is empty. Accept is not looked at."""
    version, query, service = version_of(request), query_of(request), service_of(request)
    with service.lock:
        rows, with_metadata = (_rows_v1 if version == 1 else _rows_v2)(service, query)
        note_fault(request.scope, service.faults.for_entries((row.sequence for row in rows), with_metadata))
        return Response(page(service, rows, with_metadata), media_type=JSON_TYPE)


def get_latest(request: Request) -> Response:
    """`GET /v{n}/changefeed/latest`: the last row, v1 by sequence, v2 in time; 204 of an empty feed."""
    version, query, service = version_of(request), query_of(request), service_of(request)
    with_metadata = boolean(query, "includeMetadata", default=True)
    with service.lock:
        history = service.history
        now = service.clock.now_ticks()
        row = history.latest_by_sequence(now) if version == 1 else history.latest_in_time(now)
        if row is None:
            return Response(status_code=204)
        note_fault(request.scope, service.faults.for_entries([row.sequence], with_metadata))
        return Response(entry(service, row, with_metadata), media_type=JSON_TYPE)


def page(service: DicomService, rows: Sequence[FeedRow], with_metadata: bool) -> bytes:
    """The rows as one JSON array."""
    return b"[" + b",".join(entry(service, row, with_metadata) for row in rows) + b"]"


def entry(service: DicomService, row: FeedRow, with_metadata: bool) -> bytes:
    """One row as it is now: state and metadata of the version live at this moment, nulls left out.

    design/service-protocol.md: Feed entries, Rows that change.
    """
    study, series, sop = row.uids
    path = "" if row.file_path is None else f'"filePath":{quoted(row.file_path)},'
    text = (
        f'{{"sequence":{row.sequence},"partitionName":{quoted(row.key.partition)},{path}'
        f'"studyInstanceUid":{quoted(study)},"seriesInstanceUid":{quoted(series)},'
        f'"sopInstanceUid":{quoted(sop)},"action":"{row.action}",'
        f'"timestamp":"{timestamp_text(row.ticks)}","state":"{row.state}"'
    ).encode("ascii")
    version = service.version(row.current_watermark) if with_metadata else None
    return text + b"}" if version is None else b'%b,"metadata":%b}' % (text, version.metadata)


def _rows_v1(service: DicomService, query: Mapping[str, str]) -> tuple[list[FeedRow], bool]:
    """Rows with offset < sequence <= offset + limit: a range of numbers, not a count.

    design/service-protocol.md: Feed parameters.
    """
    offset = integer(query, "offset", default=0, least=0, most=2**63 - 1)
    limit = integer(query, "limit", default=10, least=1, most=100, largest=INT32_MAX)
    with_metadata = boolean(query, "includeMetadata", default=True)
    return service.history.sequence_range(offset + 1, offset + limit, service.clock.now_ticks()), with_metadata


def _rows_v2(service: DicomService, query: Mapping[str, str]) -> tuple[list[FeedRow], bool]:
    """Rows of [startTime, endTime) by (timestamp, sequence), `limit` of them after `offset`.

    design/service-protocol.md: Feed parameters.
    """
    offset = integer(query, "Offset", default=0, least=0, most=2**63 - 1)
    limit = integer(query, "Limit", default=100, least=1, most=200, largest=INT32_MAX)
    start = instant(query, "StartTime", default=MIN_TICKS)
    end = instant(query, "EndTime", default=MAX_TICKS)
    if end <= start:
        raise InvalidParameter("", "The end of the time range must be later than its start.")
    with_metadata = boolean(query, "includeMetadata", default=True)
    return service.history.window(start, end, offset, limit, service.clock.now_ticks()), with_metadata
