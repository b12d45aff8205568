"""Which instances, series and studies two runs left differently."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dicom_etl.commands.views import shared_as_of
from dicom_etl.core.attributes import INSTANCE_KEY
from dicom_etl.core.errors import DataError, UsageError
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import EPOCH, TICKS_PER_MICROSECOND, from_datetime
from dicom_etl.lake.ledger import Run, covered
from dicom_etl.lake.open import existing_lake, refuse_incomplete
from dicom_etl.lake.past import When, last_run, readable, run_at
from dicom_etl.lake.rejected import Reject, newest_of, read_history, refusals
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.lake.statistics import shared_rows
from dicom_etl.lake.voids import void_until, voids_among
from dicom_etl.tables.changes import Span, Unused, changed_by_entries, differences
from dicom_etl.tables.engine.errors import named_errors
from dicom_etl.tables.engine.session import Engine
from dicom_etl.tables.merge import read_table
from dicom_etl.tables.schema import INSTANCE, TABLES

# How far the service's clock may be before ours: an entry of that time can have been read by a run that ended then.
_CLOCKS = timedelta(hours=1)
_BY_NAME = {table.name: table for table in TABLES}


@dataclass(frozen=True, slots=True)
class Between:
    """Two runs that succeeded, the earlier first."""

    since: Run
    until: Run


def between(runs: Sequence[Run], since: When, until: When | None) -> Between:
    """The runs that are to be compared; without ``until`` the last one that succeeded is the later.

    Raises UsageError when one is none, or they are the wrong way round.
    """
    first = run_at(runs, since)
    last = last_run(runs) if until is None else run_at(runs, until)
    if last.run_id < first.run_id:
        raise UsageError(f"--until: run {last.run_id} comes before run {first.run_id}, which --since names")
    return Between(first, last)


@contextmanager
def changes(
    settings: Settings,
    since: When,
    until: When | None = None,
    table: str = "instance",
    *,
    spark: SparkSession | None = None,
) -> Iterator[DataFrame]:
    """The keys of ``table`` that were inserted, updated or deleted between two runs: ``tables.changes.differences``.

    By the table's versions; of `instance`, where these are gone, by the entries in `change`. Raises UsageError as
    ``between``; DataError when neither tells, StorageError or AccessDenied when `change` is wanted and may not be read.
    """
    snapshot = existing_lake(settings, private=False)
    refuse_incomplete(snapshot, private=False)
    asked = between(snapshot.runs(), since, until)
    with Engine(settings.spark, spark, snapshot.lake.paths) as engine:
        session = engine.session(shared_rows(snapshot))
        if all(readable(snapshot, run, table) for run in (asked.since, asked.until)):
            states = [shared_as_of(session, snapshot, run, table) for run in (asked.since, asked.until)]
        elif table == INSTANCE.name:
            whole = existing_lake(settings)
            refuse_incomplete(whole)
            states = _states_by_entries(session, whole, asked)
        else:
            raise DataError(
                f"the versions of {table} that these runs left are gone (maintenance.retention_hours), and change "
                "tells of instances only: ask for --table instance, or name later runs"
            )
        with named_errors(table):
            yield differences(_BY_NAME[table], *states)


def _states_by_entries(spark: SparkSession, snapshot: LakeSnapshot, asked: Between) -> list[DataFrame]:
    """The rows of `instance` that changed, as they were and as they are, by their entries: key and sequence.

    Raises DataError when that cannot be told of one of them.
    """
    runs = snapshot.runs()
    repaired = [r.run_id for r in runs if r.verb in ("repair", "adopt") and r.status == "succeeded"]
    if any(asked.since.run_id < run_id <= asked.until.run_id for run_id in repaired):
        raise _cannot_tell("a repair or an adoption came in between, which no entry of the feed tells of")
    # Before the look at `change`: a reject that is written in between is of a run after ``until``.
    unused = unused_entries(read_history(snapshot.table("rejected"), asked.until.run_id))
    entries = read_table(spark, snapshot.lake.path("change"))
    with named_errors("change"):
        counts = {row["runId"]: row["count"] for row in entries.groupBy("runId").count().collect()}
        span = span_of(runs, counts, asked)
        changed = changed_by_entries(entries, unused, span)
        unknown = changed.where(F.col("wasPresent").isNull() | F.col("isPresent").isNull()).count()
    if unknown:
        raise _cannot_tell(f"of {unknown} instances it is not known what run {asked.since.run_id} left")
    return [
        changed.where(f"{side}Present").select(*INSTANCE_KEY, F.col(f"{side}Sequence").alias("sequence"))
        for side in ("was", "is")
    ]


def unused_entries(history: Sequence[Reject]) -> Unused:
    """What rows of `rejected`, from the oldest to the newest, say of entries that had no effect."""
    return Unused(
        void_until(voids_among(newest_of(history))),
        [
            (one.sequence, from_datetime(one.timestamp) // TICKS_PER_MICROSECOND, one.from_run, one.usable_run)
            for one in refusals(history)
        ],
    )


def span_of(runs: Sequence[Run], counts: dict[int, int], asked: Between) -> Span:
    """What `change` can tell of the time between; ``counts`` are its rows by run.

    Raises DataError when entries of that time itself were purged.
    """
    since = asked.since.run_id
    succeeded = {run.run_id for run in runs if run.status == "succeeded"}
    purged = [r.run_id for r in runs if r.run_id in succeeded and counts.get(r.run_id, 0) < r.entries_read]
    if any(since < run_id <= asked.until.run_id for run_id in purged):
        raise _cannot_tell("entries of that time were purged (maintenance.change_retention_days)")
    # What a repair or an adoption found stands in no entry, so that only what came after it counts.
    repaired = [r.run_id for r in runs if r.run_id in succeeded and r.verb in ("repair", "adopt")]
    floor = max((run_id for run_id in (*purged, *repaired) if run_id <= since), default=0)
    return Span(
        since,
        asked.until.run_id,
        floor,
        _new_from([run for run in runs if run.run_id <= since], floor),
        tuple(sorted(run_id for run_id in counts if run_id not in succeeded)),
    )


def _new_from(before: Sequence[Run], floor: int) -> datetime | None:
    """From when on an entry is newer than all that the run ``floor`` and earlier ones had read.

    None where the runs have not covered the feed from its first entry without a gap: an Update may be of an instance
    that the tables had not.
    """
    read = covered(before)
    if len(read) != 1 or read[0].start > 0:
        return None
    return max((run.finished_at for run in before if run.run_id <= floor), default=EPOCH) + _CLOCKS


def _cannot_tell(why: str) -> DataError:
    return DataError(
        f"the versions of instance that these runs left are gone (maintenance.retention_hours), and change cannot tell "
        f"either: {why}; name later runs"
    )
