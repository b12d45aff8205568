"""Compares the lake with the service and with itself; writes nothing (architecture §6)."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pyspark.sql import DataFrame, Row, SparkSession

from dicom_etl.attributes import ATTRIBUTES, INSTANCE_KEY
from dicom_etl.azure import dicom_tokens
from dicom_etl.clock import utc_now
from dicom_etl.comparing import Comparison, Snapshot, compared, compared_from, listed_entries, snapshot
from dicom_etl.dicomweb.client import connect
from dicom_etl.lake import comparison
from dicom_etl.lake.session import Engine
from dicom_etl.listing import Listing, read_listing
from dicom_etl.open_lake import existing_lake
from dicom_etl.progress import Progress, Silent
from dicom_etl.runs.identity import service_fingerprint
from dicom_etl.settings import Settings

_KEYWORDS = {attribute.column: attribute.keyword for attribute in ATTRIBUTES}


@dataclass(frozen=True, slots=True)
class Difference:
    """One key that is not the same on both sides.

    ``kind`` is missing (the service has it, the lake does not), extra (the other way round), twice (in several rows
    of the lake: ``repair --rebuild`` mends it), sequence, filePath, attributes (``keywords`` names them), values (of
    a series or study) or unlisted (the service's search has it, and its feed does not show it).
    """

    table: str
    kind: str
    key: tuple[str, ...]
    keywords: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verification:
    """Both sides, counted and hashed.

    ``as_of`` is the instant up to which the feed was read (ticks). ``pending`` counts the keys whose last entry no
    recorded run covers yet; ``pending_different`` those of them that are not equal yet: they are no differences,
    and the counts and digests (architecture §6) leave them out on both sides.

    ``gone`` counts the keys that the feed still shows and the service's search does not hold, as after a change of
    UIDs: the service's side leaves them out. ``suspects`` are keys that began with an Update, as the new ones do;
    null where the feed was not read from its first entry. ``search_refused`` says why the search could not be
    asked; then nothing is known of what is gone. ``attributes`` counts differences by keyword; null where the feed
    was read without metadata.
    """

    as_of: int
    covered_until: int
    service_instances: int
    lake_instances: int
    service_digest: str
    lake_digest: str
    pending: int
    pending_different: int
    open_rejects: int
    differences: tuple[Difference, ...]
    gone: tuple[tuple[str, ...], ...] = ()
    suspects: tuple[tuple[str, ...], ...] | None = None
    search_refused: str | None = None
    attributes: dict[str, int] | None = None

    @property
    def equal(self) -> bool:
        return not self.differences

    @property
    def counts(self) -> dict[str, int]:
        """How many rows of each table differ."""
        return {name: sum(d.table == name for d in self.differences) for name in ("instance", "series", "study")}


def verify(
    settings: Settings,
    *,
    metadata: bool = False,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> Verification:
    """What the lake and the service have in common, and what not.

    Reads the whole feed from ``feed.start`` (of an adopted lake, from its beginning), folds it, asks the service's
    search for what it holds, and compares keys, sequences and file paths with ``instance``; with ``metadata`` every
    attribute too; and ``series`` and ``study`` with what ``instance`` gives.
    """
    progress = progress or Silent()
    lake = existing_lake(settings, service_fingerprint(settings.dicom.base_url))
    snap = snapshot(lake)
    with (
        tempfile.TemporaryDirectory(prefix="dicom-etl-verify-") as name,  # 0700
        connect(settings.dicom, dicom_tokens(settings.dicom)) as client,
        Engine(settings.spark, spark, lake.places) as engine,
    ):
        folder = Path(name)
        start = compared_from(lake, settings)
        listing = read_listing(
            settings, client, folder, start=start, include_metadata=metadata, clock=clock, progress=progress
        )
        progress.step("compare")
        session = engine.session(lake.rows())
        entries = listed_entries(session, lake, listing)
        since = settings.feed.start
        with compared(session, snap, listing, entries, client, folder, since=since, attributes=metadata) as found:
            return _verification(settings, snap, listing, found, metadata)


def _verification(
    settings: Settings, snap: Snapshot, listing: Listing, found: Comparison, metadata: bool
) -> Verification:
    to_come = found.different.where("pending")
    theirs = comparison.without(found.live, to_come).cache()
    ours = comparison.without(found.instances, to_come).cache()
    instances = _named("instance", found.different.where("not pending").collect())
    try:
        return Verification(
            as_of=listing.as_of,
            covered_until=max((window.end for window in snap.covered), default=settings.feed.start),
            service_instances=theirs.count(),
            lake_instances=ours.count(),
            service_digest=comparison.digest(theirs),
            lake_digest=comparison.digest(ours),
            pending=found.pending.count(),
            pending_different=to_come.count(),
            open_rejects=snap.open_rejects,
            differences=(
                *instances,
                *_unlisted(found),
                *_named("series", found.series.collect()),
                *_named("study", found.study.collect()),
            ),
            gone=_keys(found.gone),
            suspects=None if found.suspects is None else _keys(found.suspects),
            search_refused=found.found.refused,
            attributes=dict(sorted(Counter(k for d in instances for k in d.keywords).items())) if metadata else None,
        )
    finally:
        theirs.unpersist()
        ours.unpersist()


def _named(table: str, rows: Iterable[Row]) -> list[Difference]:
    return [
        Difference(
            table,
            row["difference"],
            tuple(row[name] for name in INSTANCE_KEY if name in row),
            tuple(_KEYWORDS.get(name, name) for name in _columns(row)),
        )
        for row in rows
    ]


def _columns(row: Row) -> list[str]:
    return row["columns"] if "columns" in row else []  # noqa: SIM401  a Row is a tuple


def _unlisted(found: Comparison) -> list[Difference]:
    return [] if found.unlisted is None else [Difference("instance", "unlisted", key) for key in _keys(found.unlisted)]


def _keys(frame: DataFrame) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(row) for row in frame.select(*INSTANCE_KEY).collect())
