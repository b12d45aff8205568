"""Lists what the service shows, its feed and its search, into files that Spark reads.

design/architecture.md: Comparison and repair.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from dicom_etl.commands.verify.scratch import Scratch
from dicom_etl.commands.verify.search_result import SearchResult, search_studies
from dicom_etl.core.entry import Entry
from dicom_etl.core.progress import Progress
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import Window, from_datetime
from dicom_etl.dicomweb.feed.reader import any_entry, feed_reader, read_feed, service_now
from dicom_etl.landing.entry_files import EntryFiles
from dicom_etl.remote.http.client import HttpClient

# Below the id of every run, so that what a run has read since counts as later.
_FIRST_READING = -1_000_000


@dataclass(frozen=True, slots=True)
class ServiceInventory:
    """What the service showed between two instants.

    ``files`` hold the entries of the feed from ``start`` on, with the columns of ``change``: all of those before
    ``as_of`` (ticks), and what came while the search was asked. An entry that was read twice is there twice; the
    reading with the higher ``runId`` is the later one. ``complete``: there is no entry before ``start``.
    ``unreadable`` are sequences whose metadata was asked for and cannot be used. ``next_reading`` is the ``runId`` of
    another reading.
    """

    start: int
    as_of: int
    complete: bool
    files: tuple[str, ...]
    next_reading: int
    unreadable: frozenset[int]
    search: SearchResult


@dataclass(frozen=True, slots=True)
class Service:
    """The service, and how it is read for a comparison."""

    client: HttpClient
    settings: Settings
    clock: Callable[[], datetime]
    progress: Progress
    metadata: bool

    @property
    def connections(self) -> int:
        return self.settings.dicom.connections

    def now(self) -> int:
        """The later of our clock and the service's, in ticks: little of what is served lies after it, or soon will."""
        return max(from_datetime(self.clock()), service_now(self.client) or 0)

    def read(self, window: Window, sink: Callable[[list[Entry]], None]) -> None:
        """Give ``sink`` the entries of the window. Raises as ``read_feed``."""
        read_feed(
            feed_reader(self.client, self.settings, metadata=self.metadata, progress=self.progress.read), window, sink
        )

    def read_end(self, since: int, sink: Callable[[list[Entry]], None]) -> None:
        """Read the feed again from the end of what was listed, ``feed.delay`` before ``since`` (ticks)."""
        delay = self.settings.feed.delay
        self.read(Window(max(0, since - delay), self.now() + delay), sink)


def take_inventory(service: Service, folder: Scratch, start: int) -> ServiceInventory:
    """The feed from ``start`` (ticks), then the search, then the end of the feed once more.

    The second look tells what changed while the search was asked: such keys have an entry by then that no run
    covers. Headers are not kept, only the kept attributes, and those with ``service.metadata`` only.
    """
    as_of = service.now()
    window = Window(min(start, as_of), as_of)
    with EntryFiles(folder.folder, service.clock(), _FIRST_READING, metadata=service.metadata) as files:
        service.progress.step("read the feed")
        service.read(window, files.add)
        service.progress.step("ask the search")
        search = search_studies(service.client, folder, service.connections)
        files.next_reading()
        service.read_end(as_of, files.add)
    return ServiceInventory(
        start=window.start,
        as_of=as_of,
        complete=window.start <= 0 or not any_entry(service.client, Window(0, window.start)),
        files=tuple(folder.path(name) for name in files.names),
        next_reading=_FIRST_READING + 2,
        unreadable=frozenset(files.unusable),
        search=search,
    )


def list_again(
    service: Service, folder: Scratch, inventory: ServiceInventory, windows: Iterable[Window]
) -> ServiceInventory:
    """The inventory with another reading of these windows and of the end of the feed, in files of their own."""
    with EntryFiles(folder.folder, service.clock(), inventory.next_reading, metadata=service.metadata) as files:
        for window in windows:
            service.read(window, files.add)
        service.read_end(inventory.as_of, files.add)
    more = tuple(folder.path(name) for name in files.names)
    return replace(
        inventory,
        files=inventory.files + more,
        next_reading=inventory.next_reading + 1,
        unreadable=inventory.unreadable | frozenset(files.unusable),
    )
