"""Compares the lake with the service and with itself; writes nothing (architecture §6)."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession

from dicom_etl.attributes import INSTANCE_KEY
from dicom_etl.azure import dicom_tokens
from dicom_etl.clock import utc_now
from dicom_etl.deltalog import local_folder
from dicom_etl.dicomweb.changefeed import read_feed, service_now
from dicom_etl.dicomweb.client import connect
from dicom_etl.lake import changes, comparison
from dicom_etl.lake.schema import SERIES, STUDY
from dicom_etl.lake.session import Engine
from dicom_etl.lake.tables import read_table
from dicom_etl.landing.files import Landing
from dicom_etl.landing.rejects import read_open
from dicom_etl.open_lake import Lake, existing_lake
from dicom_etl.progress import Progress, Silent
from dicom_etl.runs import ledger
from dicom_etl.runs.identity import service_fingerprint
from dicom_etl.settings import Settings
from dicom_etl.window import Window, from_datetime


@dataclass(frozen=True, slots=True)
class Difference:
    """One key that is not the same on both sides; ``kind`` is missing, extra, sequence, filePath or values."""

    table: str
    kind: str
    key: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verification:
    """Both sides, counted and hashed.

    ``as_of`` is the instant up to which the feed was read (ticks). ``pending`` counts the keys whose last entry no
    recorded run covers yet; ``pending_different`` those of them that are not equal yet: they are no differences,
    and the counts and digests (architecture §6) leave them out on both sides.
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

    @property
    def equal(self) -> bool:
        return not self.differences

    @property
    def counts(self) -> dict[str, int]:
        """How many rows of each table differ."""
        return {name: sum(d.table == name for d in self.differences) for name in ("instance", "series", "study")}


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The versions of the tables that are compared: taken before the feed is read, so that the lake is the older."""

    lake: Lake
    versions: dict[str, int]
    covered: list[Window]
    open_rejects: int

    def table(self, spark: SparkSession, name: str) -> DataFrame:
        return read_table(spark, self.lake.path(name), self.versions[name])


def verify(
    settings: Settings,
    *,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> Verification:
    """What the lake and the service have in common, and what not.

    Reads the whole feed from ``feed.start`` without metadata, folds it, and compares keys, sequences and file
    paths with ``instance``; and ``series`` and ``study`` with what ``instance`` gives.
    """
    progress = progress or Silent()
    lake = existing_lake(settings, service_fingerprint(settings.dicom.base_url))
    snapshot = _Snapshot(
        lake,
        {name: lake.version(name) for name in lake.places.shared},
        ledger.covered(lake.runs()),
        len(read_open(lake.table("rejected"))),
    )
    with tempfile.TemporaryDirectory(prefix="dicom-etl-verify-") as folder:  # 0700
        progress.step("read the feed")
        as_of, files = _read_feed(settings, Path(folder), progress, clock)
        progress.step("compare")
        with Engine(settings.spark, spark) as engine:
            return _compared(settings, engine.session(lake.rows()), snapshot, files, as_of)


def _read_feed(
    settings: Settings, folder: Path, progress: Progress, clock: Callable[[], datetime]
) -> tuple[int, list[str]]:
    """The feed without metadata as Parquet files, and up to when it was read."""
    with connect(settings.dicom, dicom_tokens(settings.dicom)) as client:
        now = max(from_datetime(clock()), service_now(client) or 0)
        window = Window(min(settings.feed.start, now), now)
        where = local_folder(str(folder), private=True)
        with Landing(where, run_id=0, read_at=clock(), keep_metadata=False) as landing:
            read_feed(
                client,
                window,
                batch_size=settings.feed.batch_size,
                connections=settings.dicom.connections,
                sink=landing.add,
                include_metadata=False,
                progress=progress.read,
            )
            landed = landing.finish(now)
    return now, [str(folder / file.path) for file in landed.files]


def _compared(
    settings: Settings, spark: SparkSession, snapshot: _Snapshot, files: list[str], as_of: int
) -> Verification:
    last = _last(spark, snapshot, files).cache()
    pending = comparison.pending_keys(last, [(w.start, w.end) for w in snapshot.covered]).cache()
    instances = snapshot.table(spark, "instance")
    service = comparison.live_instances(last)
    different = comparison.instance_differences(service, instances, pending).cache()
    to_come = different.where("pending")
    theirs, ours = comparison.without(service, to_come).cache(), comparison.without(instances, to_come).cache()
    differences = [
        *_named("instance", different.where("not pending")),
        *_named("series", comparison.rollup_differences(SERIES, snapshot.table(spark, "series"), instances)),
        *_named("study", comparison.rollup_differences(STUDY, snapshot.table(spark, "study"), instances)),
    ]
    return Verification(
        as_of=as_of,
        covered_until=max((window.end for window in snapshot.covered), default=settings.feed.start),
        service_instances=theirs.count(),
        lake_instances=ours.count(),
        service_digest=comparison.digest(theirs),
        lake_digest=comparison.digest(ours),
        pending=pending.count(),
        pending_different=to_come.count(),
        open_rejects=snapshot.open_rejects,
        differences=tuple(differences),
    )


def _last(spark: SparkSession, snapshot: _Snapshot, files: list[str]) -> DataFrame:
    """The last entry of each key, as read now."""
    change = read_table(spark, snapshot.lake.path("change"))
    entries = spark.read.schema(change.schema).parquet(*files) if files else change.limit(0)
    return changes.last_of_each_key(entries)


def _named(table: str, rows: DataFrame) -> list[Difference]:
    collected = rows.collect()
    return [
        Difference(table, row["difference"], tuple(row[name] for name in INSTANCE_KEY if name in rows.columns))
        for row in collected
    ]
