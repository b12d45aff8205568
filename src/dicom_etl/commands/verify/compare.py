"""Compares one inventory of the service with one state of the lake.

design/architecture.md: Comparison and repair, Change of UIDs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from uuid import uuid4

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dicom_etl.commands.verify.inventory import Service, ServiceInventory, list_again
from dicom_etl.commands.verify.scratch import Scratch
from dicom_etl.commands.verify.search_result import SearchResult, held_instances, proven_gone
from dicom_etl.commands.verify.unread import Unread, unread_windows
from dicom_etl.core.attributes import INSTANCE_KEY, STUDY_KEY
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import Window, windows_around
from dicom_etl.lake import ledger
from dicom_etl.lake.delta.table import properties
from dicom_etl.lake.open import ADOPTED
from dicom_etl.lake.rejected import Reject, read_open
from dicom_etl.lake.snapshot import Lake, LakeSnapshot
from dicom_etl.lake.voids import Key, read_voids, void_until
from dicom_etl.run.merge import check_shared_tables
from dicom_etl.tables import differences, fold, rollup
from dicom_etl.tables.engine.frames import local_rows
from dicom_etl.tables.engine.location import location, read_parquet
from dicom_etl.tables.merge import read_table
from dicom_etl.tables.schema import SERIES, STUDY
from dicom_etl.tables.voids import as_deleted, void_rows

# Ticks before any entry.
_FIRST_ENTRY = 0
# More instants than this are read again as one stretch.
_MOST_INSTANTS = 10_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The lake as it is compared; taken before the service is listed, so that the lake is the older.

    ``tables`` gives the rows of a shared table in a session.
    """

    lake: Lake
    tables: Mapping[str, Callable[[SparkSession], DataFrame]]
    covered: tuple[Window, ...]
    open_rejects: tuple[Reject, ...]
    voids: tuple[Reject, ...]

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The coverage, as half-open ranges of ticks."""
        return [(window.start, window.end) for window in self.covered]


def snapshot(opened: LakeSnapshot) -> Snapshot:
    """The lake as it was opened, or last refreshed.

    The ledger comes first there: what a run covers that ends just then must not be missed in an older version. Raises
    DataError when a table has vanished, or has not the columns that we write.
    """
    check_shared_tables(opened)
    lake, rejected, _ = opened.lake, opened.table("rejected"), opened.table("change")
    return Snapshot(
        lake,
        {name: partial(read_table, path=lake.path(name), version=opened.version(name)) for name in lake.paths.shared},
        tuple(ledger.covered(opened.runs())),
        tuple(read_open(rejected)),
        tuple(read_voids(rejected)),
    )


def comparison_start(opened: LakeSnapshot, settings: Settings) -> int:
    """From when the service and the lake are compared, in ticks.

    From `feed.start`, or the start of the earliest coverage when that is earlier: `--start` reads any range, and
    `feed.start` may have been moved. Of an adopted lake from the first entry, since it holds older instances as well.
    """
    runs = opened.runs()
    # By the ledger too: a table that has vanished takes its properties along.
    adopted = any(run.verb == "adopt" and run.status == "succeeded" for run in runs)
    if adopted or any(ADOPTED in properties(table) for table in opened.shared().values()):
        return _FIRST_ENTRY
    return min([settings.feed.start, *(window.start for window in ledger.covered(runs))])


@dataclass(frozen=True, slots=True)
class Comparison:
    """Both sides, and what is not the same on them; frames that live as long as the folder.

    ``last`` has one row per key, its last entry; ``live`` what the service holds by feed and search, ``instances``
    what the lake holds. ``different`` has one row per key that differs: the key, ``difference``, ``columns`` and
    ``pending`` (``Difference`` in `verify` names the kinds). ``gone`` are keys that the feed shows and the service
    proves not to have (with sequence and timestampTicks), ``suspects`` keys that began with an Update, None where the
    feed was not read from its first entry. ``in_search`` are the keys that the search holds of the studies that were
    asked for, ``restored`` the voids that it refutes. ``search`` is refused where the search, or the proof that an
    instance is gone, could not be had. ``complete``: the feed was read from its first entry. ``unread`` is what no run
    reads; its keys are ``pending``.
    """

    last: DataFrame
    pending: DataFrame
    live: DataFrame
    instances: DataFrame
    different: DataFrame
    gone: DataFrame
    suspects: DataFrame | None
    in_search: DataFrame
    restored: tuple[Reject, ...]
    search: SearchResult
    complete: bool
    series: DataFrame
    study: DataFrame
    unread: Unread

    def missing_in_feed(self) -> int:
        """How many keys the search holds and the feed does not show."""
        return self.different.where("difference = 'missingInFeed' AND NOT pending").count()


@dataclass(frozen=True, slots=True)
class SearchedStudies:
    """What the search says of the studies that were asked one by one.

    ``studies`` are these, None when there was none to ask for; ``keys`` are the instances that it holds of them.
    ``restored`` are the voids that it refutes. ``inventory`` has the feed's end as it was after the search answered.
    """

    search: SearchResult
    inventory: ServiceInventory
    studies: DataFrame | None
    keys: DataFrame
    restored: tuple[Reject, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparer:
    """What every step of a comparison works with."""

    spark: SparkSession
    service: Service
    folder: Scratch

    def keep(self, frame: DataFrame) -> DataFrame:
        """The same rows, computed once and put into a file.

        A cache keeps the frame's whole plan, and a comparison builds each frame from those before: Spark then took
        minutes to plan 10 rows. A file has no plan, and of 10^7 rows only the columns are read that are asked for.
        """
        path = self.folder.path(f"frame-{uuid4()}")
        frame.write.parquet(location(path))
        return read_parquet(self.spark, frame.schema, [path])

    def entries(self, change: str, files: tuple[str, ...]) -> DataFrame:
        """The entries in the files, with the columns of the table ``change``."""
        table = read_table(self.spark, change)
        return read_parquet(self.spark, table.schema, files) if files else table.limit(0)

    def keys(self, keys: Iterable[Key] = ()) -> DataFrame:
        return local_rows(self.spark, keys, **dict.fromkeys(INSTANCE_KEY, "string"))

    def reject_keys(self, rejects: Iterable[Reject]) -> DataFrame:
        """The keys of those rejects that have a whole one."""
        return self.keys((r.partition, r.study, r.series, r.sop) for r in rejects if r.study and r.series and r.sop)


def compare(one: Comparer, snap: Snapshot, inventory: ServiceInventory, more: DataFrame | None = None) -> Comparison:
    """The comparison of all that is listed, and of ``more`` entries read since, with the lake as it was at ``snap``.

    What seems to be missing is asked for again: overtaken entries by their time, studies that differ one by one,
    instances that seem to be gone by their metadata.
    """
    inventory, entries, raw = _last_entries(one, snap, inventory, more)
    instances = snap.tables["instance"](one.spark)
    searched = _searched_studies(one, snap, inventory, raw, instances)
    voids = void_until(v for v in snap.voids if v not in searched.restored)
    last = one.keep(as_deleted(raw, voids)) if voids else raw
    windows, unread = _unread(one, snap, inventory, entries, instances)
    pending = one.keep(_pending(one, snap, inventory, searched, last).unionByName(unread))
    gone, search = _gone(one, searched, last, pending)
    live = one.keep(differences.without(differences.live_instances(last, inventory.unreadable), gone))
    if search.usable and not search.studies and not live.isEmpty():
        search = replace(search, refused="it holds nothing")
    different = differences.instance_differences(live, instances, pending, attributes=one.service.metadata)
    summaries = one.keep(rollup.summaries(instances))
    return Comparison(
        last=last,
        pending=pending,
        live=live,
        instances=instances,
        different=one.keep(_judged(one, snap, searched, different, _Keys(last, pending, gone))),
        gone=gone,
        suspects=differences.updated_before_created(entries) if inventory.complete else None,
        in_search=searched.keys,
        restored=searched.restored,
        search=search,
        complete=inventory.complete,
        series=one.keep(differences.rollup_differences(SERIES, snap.tables["series"](one.spark), summaries)),
        study=one.keep(differences.rollup_differences(STUDY, snap.tables["study"](one.spark), summaries)),
        unread=Unread(windows, differences.among(live, unread).count() if windows else 0),
    )


def _last_entries(
    one: Comparer, snap: Snapshot, inventory: ServiceInventory, more: DataFrame | None
) -> tuple[ServiceInventory, DataFrame, DataFrame]:
    """The inventory, its entries, and the last entry of each key.

    An entry that was overtaken by one that is not listed is read again once, with the end of the feed: while pages are
    read, the service goes on. What is still overtaken then differs, however long one waits.
    """
    change = snap.lake.path("change")

    def last_of(listed: ServiceInventory) -> tuple[DataFrame, DataFrame]:
        entries = one.entries(change, listed.files)
        entries = entries if more is None else entries.unionByName(more)
        return entries, one.keep(fold.last_of_each_key(entries, reread=True))

    entries, raw = last_of(inventory)
    windows = _overtaken_windows(raw, snap)
    if not windows:
        return inventory, entries, raw
    inventory = list_again(one.service, one.folder, inventory, windows)
    return inventory, *last_of(inventory)


def _overtaken_windows(raw: DataFrame, snap: Snapshot) -> list[Window]:
    """The times of the entries that are covered and overtaken: few windows that hold them."""
    rows = differences.overtaken(raw).where(differences.covered_by(snap.ranges)).select("timestampTicks").distinct()
    ticks = [row[0] for row in rows.limit(_MOST_INSTANTS + 1).collect()]
    if len(ticks) <= _MOST_INSTANTS:
        return windows_around(ticks)
    first, last = rows.agg(F.min("timestampTicks"), F.max("timestampTicks")).collect()[0]
    return [Window(first, last + 1)]


def _searched_studies(
    one: Comparer, snap: Snapshot, inventory: ServiceInventory, raw: DataFrame, instances: DataFrame
) -> SearchedStudies:
    """What the search holds of the studies where that matters, each asked for by itself.

    They are those that the feed and the search count otherwise, and those of an extra row of the lake, of a Replaced
    entry and of a void. Of all others, each instance that the feed shows is held.
    """
    search = inventory.search
    nothing = SearchedStudies(search, inventory, None, one.keys())
    if not search.usable:
        return nothing
    last = as_deleted(raw, void_until(snap.voids))
    listed = differences.live_instances(last).where(F.col("partitionName").isin(list(search.partitions)))
    # Without the beginning of the feed its counts tell nothing: older instances could stand for those that are gone.
    counted = differences.differing_studies(listed, search.counts(one.spark)) if inventory.complete else listed
    extra = differences.without(instances.select(*INSTANCE_KEY), listed)
    void = void_rows(one.spark, void_until(snap.voids))
    studies = one.keep(differences.studies_of(counted, extra, last.where("state = 'Replaced'"), void))
    if studies.isEmpty():
        return nothing
    connections = one.service.connections
    search, keys = held_instances(one.service.client, one.folder, search, studies, connections=connections)
    if not search.usable:
        return replace(nothing, search=search)
    # What was created or deleted until the search answered has an entry by now.
    inventory = list_again(one.service, one.folder, inventory, [])
    return SearchedStudies(search, inventory, studies, keys, _restored(raw, keys, snap.voids))


def _restored(raw: DataFrame, in_search: DataFrame, voids: tuple[Reject, ...]) -> tuple[Reject, ...]:
    """The voids that hold back the last entry of a key that the search has."""
    if not voids:
        return ()
    rows = (
        differences.among(raw.join(void_rows(raw.sparkSession, void_until(voids)), on=list(INSTANCE_KEY)), in_search)
        .where("sequence <= voidUntil AND state = 'Current'")
        .select(*INSTANCE_KEY)
        .collect()
    )
    keys = {tuple(row) for row in rows}
    return tuple(v for v in voids if (v.partition, v.study, v.series, v.sop) in keys)


def _pending(
    one: Comparer, snap: Snapshot, before: ServiceInventory, searched: SearchedStudies, last: DataFrame
) -> DataFrame:
    """The keys with a last entry that a later run reads, also one that came while the search was asked."""
    since = one.service.settings.feed.start
    newest = searched.inventory.files[len(before.files) :]
    listed = differences.pending_keys(last, snap.ranges, since)
    if not newest:
        return listed
    fresh = fold.last_of_each_key(one.entries(snap.lake.path("change"), newest), reread=True)
    return listed.unionByName(differences.pending_keys(fresh, snap.ranges, since)).distinct()


def _unread(
    one: Comparer, snap: Snapshot, inventory: ServiceInventory, entries: DataFrame, instances: DataFrame
) -> tuple[tuple[Window, ...], DataFrame]:
    """The stretches that no run reads, and the keys that lie in them alone and that the lake does not hold.

    Of an adopted lake there are none, and everything is compared: what its first writer missed is missing.
    """
    since = one.service.settings.feed.start
    windows = () if inventory.start == _FIRST_ENTRY else unread_windows(inventory.start, since, snap.covered)
    if not windows:
        return (), one.keys()
    return windows, one.keep(differences.outside_of_scope(entries, snap.ranges, since, instances))


def _gone(
    one: Comparer, searched: SearchedStudies, last: DataFrame, pending: DataFrame
) -> tuple[DataFrame, SearchResult]:
    """The instances that the feed shows and the service proves not to have: key, sequence and timestampTicks.

    The search comes back refused when the proof of one that it does not hold could not be had.
    """
    shown = last.where("state <> 'Deleted'").select(*INSTANCE_KEY, "sequence", "timestampTicks")
    if searched.studies is None:
        none = F.lit(0).cast("long")
        return one.keys().withColumns({"sequence": none, "timestampTicks": none}), searched.search
    asked = differences.among(shown, searched.studies, STUDY_KEY)
    asked = asked.where(F.col("partitionName").isin(list(searched.search.partitions)))
    missed = one.keep(differences.without(asked, pending, searched.keys))
    connections = one.service.connections
    gone = proven_gone(one.service.client, one.folder, searched.search, missed, connections=connections)
    search = searched.search
    if gone.refused is not None and not missed.isEmpty():
        search = replace(search, refused=gone.refused)
    return one.keep(differences.among(missed, gone.keys(one.spark))), search


@dataclass(frozen=True, slots=True)
class _Keys:
    """The last entry of each key, the keys that a later run will read, and those that are gone."""

    last: DataFrame
    pending: DataFrame
    gone: DataFrame


def _judged(one: Comparer, snap: Snapshot, searched: SearchedStudies, different: DataFrame, keys: _Keys) -> DataFrame:
    """The differences of instances, with those that only the search, the states and the rejects show."""
    complete, last, pending = searched.inventory.complete, keys.last, keys.pending
    different = differences.judged(different, last=last, in_search=searched.keys, complete=complete)
    stale = differences.without(last.where("state = 'Replaced'"), pending, keys.gone)
    different = differences.and_keys(different, stale, "overtaken", replacing=True)
    if complete:
        shown = last.where("state <> 'Deleted'")
        different = differences.and_keys(different, differences.without(searched.keys, shown, pending), "missingInFeed")
    rejected = one.reject_keys(snap.open_rejects)
    return differences.and_keys(different, differences.without(rejected, pending), "rejected")


def voids_from_now(snap: Snapshot, comparison: Comparison, gone: Iterable[tuple[Key, int, int]]) -> dict[Key, int]:
    """The voids that hold after a repair: those of before that the search does not refute, and of what is ``gone``."""
    kept = void_until(void for void in snap.voids if void not in comparison.restored)
    return {**kept, **{key: sequence for key, sequence, _ in gone}}


def gone_entries(gone: DataFrame) -> list[tuple[Key, int, int]]:
    """The key, sequence and ticks of each instance that is gone; few."""
    return [((row[0], row[1], row[2], row[3]), row[4], row[5]) for row in gone.collect()]
