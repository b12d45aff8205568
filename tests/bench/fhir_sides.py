"""The two ways to write a FHIR server that `make compare-fhir` compares: DICOMcast's algorithm, and ours."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from bench.dicomcast import DicomCast, FeedEntry
from bench.fhir_judge import Served, read_server
from bench.fhir_report import Figures
from bench.fhir_story import SYSTEM
from dicom_etl.commands.columns.update import update as update_columns
from support.site import Site
from tests.fhir.hapi import Hapi

_PAGE = 100  # the largest that v1 of the feed takes


@dataclass(slots=True)
class Side:
    """One way: ``prepare`` makes what is written from, ``write`` writes the server.

    ``unread`` counts the entries of a feed that it has not applied.
    """

    name: str
    server: Hapi
    prepare: Callable[[], Any]
    write: Callable[[Any], None]
    unread: Callable[[Sequence[FeedEntry]], int]
    figures: list[Figures] = field(default_factory=list)

    def play(self) -> None:
        """Let it follow what has happened, and note what that took."""
        began = time.monotonic()
        given = self.prepare()
        prepared, before = time.monotonic(), self.server.counters()
        self.write(given)
        seconds = time.monotonic() - prepared
        self.figures.append(Figures(self.server.counters() - before, seconds, prepared - began))


def update_fhir(site: Site) -> None:
    """What `dicom-etl fhir` does: the one place where the comparison calls it."""
    from dicom_etl.commands.fhir.update import update

    update(site.settings)


def our_side(site: Site, server: Hapi) -> Side:
    """Ours: the tables by sync and columns, the server by `dicom-etl fhir`."""
    site = site.having(f"fhir.base_url={server.base_url}", f"fhir.default_system={SYSTEM}")

    def tables() -> None:
        site.sync()
        update_columns(site.settings, spark=site.spark)

    def unread(feed: Sequence[FeedEntry]) -> int:
        return len({entry.sequence for entry in feed} - {row["sequence"] for row in site.rows("change")})

    return Side("ours", server, tables, lambda _given: update_fhir(site), unread)


class CastSide:
    """DICOMcast's algorithm: what it had written when it ended at an Update, and how it goes on past that by hand."""

    def __init__(self, client: httpx.Client, dicom_url: str, server: Hapi) -> None:
        self.cast = DicomCast(client, server.base_url, f"{dicom_url}/v1/", SYSTEM)
        self.ended_at: int | None = None
        self.ended: Served | None = None
        self.side = Side("Updates skipped", server, self._entries, self._read, lambda _feed: self._skipped)
        self._skipped = 0
        self._dicom_url = dicom_url

    def note_end(self) -> None:
        """Keep what the server has at its first end, and let somebody move it past Updates from then on."""
        if self.cast.wedged_at is not None and self.ended is None:
            self.ended_at = self.cast.wedged_at
            self.ended = read_server(self.cast.client, self.cast.fhir_url)

    def _entries(self) -> list[FeedEntry]:
        return list(feed_above(self.cast.client, self._dicom_url, self.cast.synced))

    def _read(self, entries: Sequence[FeedEntry]) -> None:
        by_hand = self.ended is not None
        self._skipped += sum(entry.action == "Update" for entry in entries) if by_hand else 0
        self.cast.read(entries, skip_updates=by_hand)


def feed_above(client: httpx.Client, dicom_url: str, sequence: int) -> Iterator[FeedEntry]:
    """The rows of the change feed above a sequence, as DICOMcast asks for them: by v1, with headers."""
    while True:
        query = {"offset": sequence, "limit": _PAGE, "includeMetadata": "true"}
        rows = client.get(f"{dicom_url}/v1/changefeed", params=query).raise_for_status().json()
        if not rows:
            return
        yield from map(FeedEntry.of, rows)
        sequence = rows[-1]["sequence"]
