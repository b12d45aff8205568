"""Lays one listing of the service beside one state of the lake (architecture §6; §5, Change of UIDs)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dicom_etl.attributes import INSTANCE_KEY, STUDY_KEY
from dicom_etl.deltalog import local_folder, properties
from dicom_etl.dicomweb.client import DicomClient
from dicom_etl.lake import changes, comparison
from dicom_etl.lake.location import location
from dicom_etl.lake.schema import SERIES, STUDY, Table
from dicom_etl.lake.tables import read_table
from dicom_etl.lake.voids import as_deleted, void_rows
from dicom_etl.landing.rejects import Reject, read_open
from dicom_etl.landing.voids import read_voids, void_until
from dicom_etl.listing import Found, Key, Listing, ask_again
from dicom_etl.merging import check_shared_tables
from dicom_etl.open_lake import ADOPTED, Lake
from dicom_etl.runs import ledger
from dicom_etl.settings import Settings
from dicom_etl.window import Window

_KEY_COLUMNS = ", ".join(f"{name} string" for name in INSTANCE_KEY)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The lake as it is compared; taken before the service is listed, so that the lake is the older."""

    lake: Lake
    versions: Mapping[str, int]
    covered: tuple[Window, ...]
    open_rejects: int
    voids: tuple[Reject, ...]

    def table(self, spark: SparkSession, name: str) -> DataFrame:
        return read_table(spark, self.lake.path(name), self.versions[name])


def snapshot(lake: Lake) -> Snapshot:
    """The lake as it is now. Raises DataError when a table has vanished, or has not the columns that we write."""
    check_shared_tables(lake)
    rejected, _ = lake.table("rejected"), lake.table("change")
    # Before the versions: what a run covers that ends just now must not be missed in an older version.
    covered = tuple(ledger.covered(lake.runs()))
    return Snapshot(
        lake,
        {name: lake.version(name) for name in lake.places.shared},
        covered,
        len(read_open(rejected)),
        tuple(read_voids(rejected)),
    )


def compared_from(lake: Lake, settings: Settings) -> int:
    """From when the service and the lake are compared, in ticks.

    From ``feed.start``, before which nothing was ever read; but an adopted table holds older instances as well.
    """
    instance = lake.opened("instance")
    adopted = instance is not None and ADOPTED in properties(instance)
    return 0 if adopted else settings.feed.start


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both sides, and what is not the same on them; frames that live as long as the comparison.

    ``last`` has one row per key, its last entry; ``live`` what the service holds by both of its tongues,
    ``instances`` what the lake holds; ``different`` as ``lake.comparison`` gives it. ``gone`` are keys that the
    feed shows as Current and the search does not hold (with sequence and timestampTicks), ``unlisted`` keys that
    the search holds and the feed does not show, ``suspects`` keys that began with an Update; the last two are
    None where they cannot be told. ``served_again`` are voids whose key the search holds after all.
    """

    last: DataFrame
    pending: DataFrame
    live: DataFrame
    instances: DataFrame
    different: DataFrame
    gone: DataFrame
    unlisted: DataFrame | None
    suspects: DataFrame | None
    served_again: tuple[Reject, ...]
    found: Found
    series: DataFrame
    study: DataFrame


def listed_entries(spark: SparkSession, lake: Lake, listing: Listing) -> DataFrame:
    """The entries of the feed in a listing, with the columns of ``change``."""
    change = read_table(spark, lake.path("change"))
    return spark.read.schema(change.schema).parquet(*map(location, listing.files)) if listing.files else change.limit(0)


@contextmanager
def compared(
    spark: SparkSession,
    snap: Snapshot,
    listing: Listing,
    entries: DataFrame,
    client: DicomClient,
    folder: Path,
    *,
    since: int,
    attributes: bool = False,
) -> Iterator[Comparison]:
    """The comparison of ``entries`` (all that is listed) with the lake as it was at ``snap``.

    ``since``: ticks of ``feed.start``, before which no run reads. ``client`` is asked again for what seems gone.
    """
    kept: list[DataFrame] = []

    def keep(frame: DataFrame) -> DataFrame:
        kept.append(frame.cache())
        return frame

    try:
        raw = keep(changes.last_of_each_key(entries))
        held = held_keys(spark, listing.found)
        again = _served_again(raw, held, snap.voids)
        last = keep(as_deleted(raw, void_until(v for v in snap.voids if v not in again)))
        pending = keep(comparison.pending_keys(last, [(w.start, w.end) for w in snap.covered], since))
        listed = comparison.live_instances(last, listing.unreadable)
        found, held, gone = find_gone(spark, listed, pending, listing.found, client, folder)
        gone = keep(gone)
        instances = snap.table(spark, "instance")
        live = keep(comparison.without(listed, gone))
        whole = listing.complete
        yield Comparison(
            last=last,
            pending=pending,
            live=live,
            instances=instances,
            different=keep(comparison.instance_differences(live, instances, pending, attributes=attributes)),
            gone=gone,
            unlisted=keep(comparison.keys_without(held, listed, pending)) if held is not None and whole else None,
            suspects=comparison.updated_before_created(entries) if whole else None,
            served_again=again,
            found=found,
            series=_rollup(spark, snap, SERIES, instances),
            study=_rollup(spark, snap, STUDY, instances),
        )
    finally:
        for frame in kept:
            frame.unpersist()


def held_keys(spark: SparkSession, found: Found) -> DataFrame | None:
    """The keys that the search holds; None where it could not be asked."""
    return spark.read.schema(_KEY_COLUMNS).parquet(*map(location, found.files)) if found.usable else None


def find_gone(
    spark: SparkSession, listed: DataFrame, pending: DataFrame, found: Found, client: DicomClient, folder: Path
) -> tuple[Found, DataFrame | None, DataFrame]:
    """What is found, its keys, and the listed instances that are not among them, having asked for each study again.

    The last has the key, ``sequence`` and ``timestampTicks``; without a search nothing is gone.
    """
    held = held_keys(spark, found)
    rows = listed.select(*INSTANCE_KEY, "sequence", "timestampTicks")
    if held is None:
        return found, None, rows.limit(0)
    asked = rows.where(F.col("partitionName").isin(list(found.partitions)))
    missed = comparison.without(comparison.without(asked, pending), held)
    studies = [(row[0], row[1]) for row in missed.select(*STUDY_KEY).distinct().collect()]
    if studies:
        found = ask_again(client, local_folder(str(folder), private=True), found, studies)
        held = held_keys(spark, found)
        missed = comparison.without(missed, held) if held is not None else missed
    return found, held, missed


def gone_entries(gone: DataFrame) -> list[tuple[Key, int, int]]:
    """The key, sequence and ticks of each instance that is gone; few."""
    return [((row[0], row[1], row[2], row[3]), row[4], row[5]) for row in gone.collect()]


def _served_again(raw: DataFrame, held: DataFrame | None, voids: tuple[Reject, ...]) -> tuple[Reject, ...]:
    """The voids that hold back the last entry of a key that the search has."""
    if held is None or not voids:
        return ()
    rows = (
        raw.join(void_rows(raw.sparkSession, void_until(voids)), on=list(INSTANCE_KEY))
        .where("sequence <= voidUntil AND state = 'Current'")
        .join(held, on=list(INSTANCE_KEY), how="left_semi")
        .select(*INSTANCE_KEY)
        .collect()
    )
    keys = {tuple(row) for row in rows}
    return tuple(v for v in voids if (v.partition, v.study, v.series, v.sop) in keys)


def _rollup(spark: SparkSession, snap: Snapshot, table: Table, instances: DataFrame) -> DataFrame:
    return comparison.rollup_differences(table, snap.table(spark, table.name), instances)
