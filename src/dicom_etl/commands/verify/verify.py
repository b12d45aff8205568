"""The verb `verify` and its result; ``inventory`` lists the service, ``compare`` joins it with the lake.

Nothing is written to the lake.

design/architecture.md: Comparison and repair.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dicom_etl.commands.verify.compare import Comparer, Comparison, Snapshot, compare, comparison_start, snapshot
from dicom_etl.commands.verify.digest import digest
from dicom_etl.commands.verify.inventory import Service, ServiceInventory, take_inventory
from dicom_etl.commands.verify.scratch import Scratch, scratch
from dicom_etl.commands.verify.unread import Unread
from dicom_etl.core.attributes import ATTRIBUTES, INSTANCE_KEY, SERIES_KEY, STUDY_KEY
from dicom_etl.core.clock import utc_now
from dicom_etl.core.progress import NullProgress, Progress
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import format_instant
from dicom_etl.dicomweb.connect import connect
from dicom_etl.lake.lake_id import service_fingerprint
from dicom_etl.lake.open import existing_lake
from dicom_etl.lake.statistics import shared_rows
from dicom_etl.remote.identity import dicom_tokens
from dicom_etl.tables import differences
from dicom_etl.tables.engine.session import Engine

_KEYWORDS = {attribute.column: attribute.keyword for attribute in ATTRIBUTES}
# Of more, a person reads none.
MOST_SHOWN = 1_000


@dataclass(frozen=True, slots=True)
class Difference:
    """One key that is not the same on both sides.

    ``kind`` is missing (the service has it, the lake does not), extra (the other way round), duplicate (in several
    rows of the lake: ``repair --rebuild`` removes them), sequence, filePath, attributes (``keywords`` names them),
    values (of a series or study), missingInFeed (the service's search has it, and its feed does not show it), unknown
    (the lake has it, and the part of the feed that was read has no entry for it), overtaken (its last entry is
    Replaced, and the entry that replaced it is not there) or rejected (an entry of it is an open reject).
    """

    table: str
    kind: str
    key: tuple[str, ...]
    keywords: tuple[str, ...] = ()

    def as_row(self) -> dict[str, str]:
        """By name, as a command and a job print it: the kind with its keywords, the parts of the key with slashes."""
        kind = f"{self.kind}: {', '.join(self.keywords)}" if self.keywords else self.kind
        return {"table": self.table, "difference": kind, "key": _key_text(self.key)}


@dataclass(frozen=True, slots=True)
class Keys:
    """How many keys there are, and the first ``MOST_SHOWN`` of them in order."""

    count: int
    first: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Verification:
    """Both sides, counted and hashed.

    ``as_of`` is the instant up to which the feed was read (ticks). ``pending`` counts the keys whose last entry no
    recorded run covers yet; ``pending_different`` those of them that are not equal yet: they are no differences,
    and the counts and digests (design/architecture.md: Comparison and repair) leave them out on both sides. ``unread``
    names the stretches that no run has read or will read; what they alone hold is pending as well.

    ``kinds`` counts the differences by table and kind, ``differences`` are the first ``MOST_SHOWN`` of each table.
    ``gone`` are the keys that the feed still shows and the service proves not to have, as after a change of UIDs: the
    service's side leaves them out. ``suspects`` are keys that began with an Update, as the new ones do; null where
    the feed was not read from its first entry. ``search_refused`` says why the search could not be asked; then
    nothing is known of what is gone, and nothing is called equal. ``search_complete``: every study that it holds was
    listed; else one that neither the feed nor the lake has could be missing. ``attributes`` counts differences by
    keyword; null where the feed was read without metadata.
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
    kinds: Mapping[tuple[str, str], int]
    differences: tuple[Difference, ...]
    gone: Keys
    suspects: Keys | None = None
    search_refused: str | None = None
    search_complete: bool = False
    attributes: dict[str, int] | None = None
    unread: Unread = Unread()  # noqa: RUF009 - frozen

    @property
    def equal(self) -> bool:
        return not self.kinds and self.search_refused is None

    @property
    def counts(self) -> dict[str, int]:
        """How many rows of each table differ."""
        names = ("instance", "series", "study")
        return {name: sum(n for (table, _), n in self.kinds.items() if table == name) for name in names}

    def as_row(self) -> dict[str, Any]:
        """Verdict, counts and digests by name, as a command and a job print them; no keys."""
        return {
            "equal": self.equal,
            "asOf": format_instant(self.as_of),
            "coveredUntil": format_instant(self.covered_until),
            "serviceInstances": self.service_instances,
            "lakeInstances": self.lake_instances,
            "serviceDigest": self.service_digest,
            "lakeDigest": self.lake_digest,
            "pending": self.pending,
            "pendingDifferences": self.pending_different,
            "notRead": self.unread.text,
            "openRejects": self.open_rejects,
            "search": self.search_refused or "compared",
            "searchComplete": self.search_complete,
            "missingInSearch": None if self.search_refused else self.gone.count,
            "possibleUidChanges": None if self.suspects is None else self.suspects.count,
            **{f"{table}Differences": count for table, count in self.counts.items()},
            "attributeDifferences": self.attributes,
            "differencesByKind": {f"{table}.{kind}": count for (table, kind), count in self.kinds.items()},
        }

    def keys_as_row(self) -> dict[str, list[str]]:
        """The keys of ``gone`` and ``suspects`` by their printed names; a name without keys is left out."""
        keys = {"missingInSearch": self.gone, "possibleUidChanges": self.suspects}
        return {name: [_key_text(key) for key in some.first] for name, some in keys.items() if some and some.count}


def verify(
    settings: Settings,
    *,
    metadata: bool = False,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
) -> Verification:
    """What the lake and the service have in common, and what not.

    Reads the whole feed from the earliest coverage or ``feed.start`` (of an adopted lake, from its beginning), folds
    it, asks the service's search for what it holds, and compares keys, sequences and file paths with ``instance``;
    with ``metadata`` every attribute too; and ``series`` and ``study`` with what ``instance`` gives.
    """
    progress = progress or NullProgress()
    opened = existing_lake(settings, service_fingerprint(settings.dicom.base_url))
    snap, paths = snapshot(opened), opened.lake.paths
    with (
        connect(settings.dicom, dicom_tokens(settings.dicom), sleep=sleep) as client,
        scratch(paths, spark) as folder,
        Engine(settings.spark, spark, paths) as engine,
    ):
        service = Service(client, settings, clock, progress, metadata)
        inventory = take_inventory(service, folder, comparison_start(opened, settings))
        progress.step("compare")
        comparison = compare(Comparer(engine.session(shared_rows(opened)), service, folder), snap, inventory)
        return _verification(service, folder, snap, inventory, comparison)


def _verification(
    service: Service, folder: Scratch, snap: Snapshot, inventory: ServiceInventory, comparison: Comparison
) -> Verification:
    to_come = comparison.different.where("pending")
    service_instances, service_digest = digest(folder, differences.without(comparison.live, to_come))
    lake_instances, lake_digest = digest(folder, differences.without(comparison.instances, to_come))
    differing = {
        "instance": comparison.different.where("not pending"),
        "series": comparison.series,
        "study": comparison.study,
    }
    kinds = {
        (table, kind): n for table, rows in differing.items() for kind, n in differences.counts_by_kind(rows).items()
    }
    return Verification(
        as_of=inventory.as_of,
        covered_until=max((window.end for window in snap.covered), default=service.settings.feed.start),
        service_instances=service_instances,
        lake_instances=lake_instances,
        service_digest=service_digest,
        lake_digest=lake_digest,
        pending=comparison.pending.count(),
        pending_different=to_come.count(),
        open_rejects=len(snap.open_rejects),
        kinds=kinds,
        differences=tuple(
            one for table in dict.fromkeys(table for table, _ in kinds) for one in _first(table, differing[table])
        ),
        gone=_keys(comparison.gone),
        suspects=None if comparison.suspects is None else _keys(comparison.suspects),
        search_refused=comparison.search.refused,
        search_complete=comparison.search.complete,
        attributes=_by_keyword(differing["instance"]) if service.metadata else None,
        unread=comparison.unread,
    )


def _key_text(key: tuple[str | None, ...]) -> str:
    """The parts of a key; a row of another writer may lack one."""
    return "/".join(part or "" for part in key)


_KEY_OF = {"instance": INSTANCE_KEY, "series": SERIES_KEY, "study": STUDY_KEY}


def _first(table: str, rows: DataFrame) -> list[Difference]:
    key = _KEY_OF[table]
    columns = ["columns"] if "columns" in rows.columns else []
    listed = rows.select(*key, "difference", *columns).orderBy(*key).limit(MOST_SHOWN).collect()
    return [
        Difference(table, row["difference"], tuple(row[: len(key)]), _keywords(row["columns"] if columns else ()))
        for row in listed
    ]


def _keywords(columns: Collection[str]) -> tuple[str, ...]:
    return tuple(_KEYWORDS.get(name, name) for name in columns)


def _by_keyword(rows: DataFrame) -> dict[str, int]:
    counted = rows.select(F.explode("columns").alias("column")).groupBy("column").count().collect()
    return dict(sorted((_KEYWORDS.get(row[0], row[0]), row[1]) for row in counted))


def _keys(frame: DataFrame) -> Keys:
    first = frame.select(*INSTANCE_KEY).orderBy(*INSTANCE_KEY).limit(MOST_SHOWN + 1).collect()
    count = len(first) if len(first) <= MOST_SHOWN else frame.count()
    return Keys(count, tuple(tuple(row) for row in first[:MOST_SHOWN]))
