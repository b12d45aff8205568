"""Lists what the service shows now, its feed and its search, into files that only this user may read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dicom_etl.attributes import DEFAULT_PARTITION
from dicom_etl.deltalog import TableFolder, local_folder
from dicom_etl.dicomweb.changefeed import any_entry, read_feed, service_now
from dicom_etl.dicomweb.client import DicomClient
from dicom_etl.dicomweb.query import partitions, search
from dicom_etl.entry import Entry
from dicom_etl.errors import AccessDenied, ConfigurationError, ProtocolError
from dicom_etl.landing.files import Landing
from dicom_etl.landing.keyfile import write_keys
from dicom_etl.landing.values import stripped
from dicom_etl.progress import Progress
from dicom_etl.settings import Settings
from dicom_etl.window import Window, from_datetime

Key = tuple[str, str, str, str]

_STUDY, _SERIES, _SOP = "0020000D", "0020000E", "00080018"


@dataclass(frozen=True, slots=True)
class Found:
    """What the search holds in ``partitions``: files of keys, or the reason why it could not be asked."""

    files: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()
    refused: str | None = None

    @property
    def usable(self) -> bool:
        return self.refused is None


@dataclass(frozen=True, slots=True)
class Listing:
    """What the service showed between two moments.

    ``files`` hold the entries of the feed from ``start`` on, with the columns of ``change``: all of those before
    ``as_of`` (ticks), and what came while the search was asked. ``complete``: there is no entry before ``start``.
    ``unreadable`` are sequences whose metadata was asked for and cannot be used.
    """

    start: int
    as_of: int
    complete: bool
    files: tuple[str, ...]
    unreadable: frozenset[int]
    found: Found


def read_listing(
    settings: Settings,
    client: DicomClient,
    folder: Path,
    *,
    start: int,
    include_metadata: bool,
    clock: Callable[[], datetime],
    progress: Progress,
) -> Listing:
    """The feed from ``start`` (ticks), then the search, then the end of the feed once more.

    The second look tells what changed while the search was asked: such keys have an entry by then that no run
    covers. Headers are not kept, only the kept attributes, and those with ``include_metadata`` only.
    """
    where = local_folder(str(folder), private=True)
    as_of = now(client, clock)
    window = Window(min(start, as_of), as_of)
    delay = settings.feed.delay
    with Landing(where, run_id=0, read_at=clock(), keep_metadata=False) as landing:

        def read(part: Window) -> None:
            _read(settings, client, part, landing.add, include_metadata, progress)

        progress.step("read the feed")
        read(window)
        progress.step("ask the search")
        found = list_instances(client, where)
        end = now(client, clock) + delay
        read(Window(max(window.start, as_of - delay), end))
        landed = landing.finish(end)
    return Listing(
        start=window.start,
        as_of=as_of,
        complete=window.start <= 0 or not any_entry(client, Window(0, window.start)),
        files=tuple(str(folder / file.path) for file in landed.files),
        unreadable=frozenset(u.sequence for u in landed.unusable) if include_metadata else frozenset(),
        found=found,
    )


def now(client: DicomClient, clock: Callable[[], datetime]) -> int:
    """The later of our clock and the service's, in ticks: nothing that is served lies after it for long."""
    return max(from_datetime(clock()), service_now(client) or 0)


def _read(
    settings: Settings,
    client: DicomClient,
    window: Window,
    sink: Callable[[list[Entry]], None],
    include_metadata: bool,
    progress: Progress,
) -> None:
    read_feed(
        client,
        window,
        batch_size=settings.feed.batch_size,
        connections=settings.dicom.connections,
        sink=sink,
        include_metadata=include_metadata,
        progress=progress.read,
    )


def list_instances(client: DicomClient, folder: TableFolder) -> Found:
    """The keys that the search holds in all partitions, or why it cannot be asked.

    A search that knows nothing at all is taken as one that this identity may not use: by it, everything would be
    gone.
    """
    name = "search-0.parquet"
    try:
        names = partitions(client)
        everywhere: list[str | None] = [None] if names is None else [*names]
        count = write_keys(folder, name, (key for one in everywhere for key in _instances(client, one)))
    except (AccessDenied, ConfigurationError, ProtocolError) as error:
        return Found(refused=str(error))
    if not count:
        return Found(refused="it holds nothing")
    return Found((f"{folder.path}/{name}",), tuple(one or DEFAULT_PARTITION for one in everywhere))


def ask_again(client: DicomClient, folder: TableFolder, found: Found, studies: Iterable[tuple[str, str]]) -> Found:
    """The same, and the instances that the search holds of these (partition, study), asked one by one.

    Pages of a search move while others write, and one may be skipped: nothing is called gone by one look.
    """
    name = f"search-{len(found.files)}.parquet"
    named = partitions(client) is not None
    keys = (
        key
        for partition, study in studies
        for key in _instances(client, partition if named else None, {"StudyInstanceUID": study})
    )
    write_keys(folder, name, keys)
    return Found((*found.files, f"{folder.path}/{name}"), found.partitions)


def _instances(client: DicomClient, partition: str | None, filters: dict[str, str] | None = None) -> Iterator[Key]:
    include = ("StudyInstanceUID", "SeriesInstanceUID")
    for match in search(client, "instances", partition=partition, filters=filters, include=include):
        yield (partition or DEFAULT_PARTITION, _uid(match, _STUDY), _uid(match, _SERIES), _uid(match, _SOP))


def _uid(match: dict[str, Any], tag: str) -> str:
    values = match.get(tag, {}).get("Value") or [None]
    uid = stripped(values[0]) if isinstance(values[0], str) else None
    if uid is None:
        raise ProtocolError("the search sent an instance without its UIDs")
    return uid
