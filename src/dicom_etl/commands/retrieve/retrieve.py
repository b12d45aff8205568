"""Retrieves studies, series or instances into a folder by WADO-RS, one outcome a file; what is there is not asked for.

design/service-protocol.md: WADO-RS, Frames and rendered images.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import Any

import msgspec

from dicom_etl.commands.retrieve.fetch import Fetcher, Key, Retrieved
from dicom_etl.commands.retrieve.folder import open_folder
from dicom_etl.commands.retrieve.request import RetrieveRequest
from dicom_etl.core.errors import DataError, ProtocolError, RequestRefused, ServiceUnavailable, UsageError
from dicom_etl.core.settings.model import Settings
from dicom_etl.dicomweb.connect import connect
from dicom_etl.dicomweb.resources import is_uid, route
from dicom_etl.dicomweb.search import Search
from dicom_etl.dicomweb.study_search import instances_of_studies
from dicom_etl.remote.http.client import HttpClient
from dicom_etl.remote.http.retry import RetryPolicy
from dicom_etl.remote.identity import dicom_tokens

# Of one file; a service that fails for so many files one after another is unavailable.
_ATTEMPTS = 4
_FAILING_FILES = 20
_DATASETS = msgspec.json.Decoder(list[dict[str, Any]])


def retrieve(settings: Settings, request: RetrieveRequest) -> Iterator[Retrieved]:
    """Each file with its outcome, in the order of the UIDs; several are under way at once.

    A file appears whole under ``to``/study/series (with a partition below one folder more), private to the user. One
    that is there already is present and not asked for: a retrieve that ended early goes on when it is called again.
    Raises UsageError for what is no UID, AnotherWriter while another retrieve writes there, DataError when the service
    has nothing of that name, ServiceUnavailable when it fails file after file; else as ``HttpClient.send``.
    """
    request.check()
    with (
        open_folder(request.to, request.partition) as folder,
        connect(settings.dicom, dicom_tokens(settings.dicom)) as client,
    ):
        stop = Event()
        policy = RetryPolicy(failing_attempts=_ATTEMPTS, cancelled=stop.is_set)
        fetcher = Fetcher(client, folder, request, policy)
        try:
            keys = _instances(client, request, settings.dicom.connections)
            yield from _until_unavailable(_in_order(fetcher, keys, settings.dicom.connections, stop))
        except RequestRefused as error:
            raise UsageError(
                "retrieve: the service does not take the request (400); where it has data partitions, name one by "
                "--partition"
            ) from error


def _instances(client: HttpClient, request: RetrieveRequest, connections: int) -> list[Key]:
    if request.series is not None and request.instance is not None:
        return [(request.study, request.series, request.instance)]
    found = _of_study(client, request, connections) if request.series is None else _of_series(client, request)
    keys = sorted(set(found))
    if not keys:
        raise DataError(
            f"the service has no such {'study' if request.series is None else 'series'}; nothing was written"
        )
    if not all(is_uid(uid) for key in keys for uid in key):
        raise ProtocolError("the search sent a match whose UID is none")
    return keys


def _of_study(client: HttpClient, request: RetrieveRequest, connections: int) -> Iterator[Key]:
    for batch in instances_of_studies(client, request.partition, [request.study], connections=connections):
        rows = batch.to_pydict()
        yield from zip(rows["studyInstanceUid"], rows["seriesInstanceUid"], rows["sopInstanceUid"], strict=True)


def _of_series(client: HttpClient, request: RetrieveRequest) -> Iterator[Key]:
    series = request.series or ""
    path = route(request.partition, "studies", request.study, "series", series, "instances")
    for page in Search(client, path, _DATASETS).pages():
        for match in page:
            uid = ((match.get("00080018") or {}).get("Value") or [""])[0]
            yield request.study, series, str(uid).strip(" \0")


def _in_order(fetcher: Fetcher, keys: Iterable[Key], connections: int, stop: Event) -> Iterator[Retrieved]:
    """The outcomes in the order of the keys; ahead of the one that is awaited go no more than there are connections."""
    under_way: deque[Future[list[Retrieved]]] = deque()
    pool = ThreadPoolExecutor(connections, thread_name_prefix="retrieve")
    try:
        for key in keys:
            under_way.append(pool.submit(fetcher.fetch, key))
            if len(under_way) > 2 * connections:
                yield from under_way.popleft().result()
        while under_way:
            yield from under_way.popleft().result()
    finally:
        # What is still under way ends, and removes what it has begun, before the folder is given back.
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _until_unavailable(files: Iterator[Retrieved]) -> Iterator[Retrieved]:
    failing = 0
    for file in files:
        yield file
        failing = failing + 1 if file.passing else 0
        if failing >= _FAILING_FILES:
            raise ServiceUnavailable("the DICOM service keeps failing for one file after another; run again later")
