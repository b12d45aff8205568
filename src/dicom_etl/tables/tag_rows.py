"""The rows of `instance_tags` as a function of `instance`, the headers in `change`, and what stands there already."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from dicom_etl.core.attributes import INSTANCE_KEY
from dicom_etl.tables.engine.frames import local_rows
from dicom_etl.tables.fold import REMOVE, UPSERT
from dicom_etl.tables.schema import Table

SAME = "same"
# What stood there before, of a row that was classified.
WAS = "was"
_KEY = list(INSTANCE_KEY)
# Of these `headerState`s the first has been parsed; without a header all tags are null.
MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the rows are made of: living instances, their headers by sequence, Create entries, and the stored rows.

    ``touched`` are the keys to look at; None: all of ``live`` and ``stored``.
    """

    live: DataFrame
    headers: DataFrame
    creates: DataFrame
    stored: DataFrame
    touched: DataFrame | None


def live_rows(instances: DataFrame) -> DataFrame:
    """Of `instance` what a tag row needs: the key, ``sequence`` and ``lastModifiedTimestamp``."""
    return instances.select(*_KEY, "sequence", "lastModifiedTimestamp")


def create_entries(changes: DataFrame, above_run: int, up_to_run: int, rejected: Collection[int] = ()) -> DataFrame:
    """The Create entries that may count for a row that runs in (above_run, up_to_run] have changed.

    The key and ``created``, the sequence. Beside those of these runs they are the dormant ones of earlier runs, which
    made no row then: read when a later entry had replaced them, or ``rejected``. Parquet's dictionaries tell which
    parts of a file hold a state, so that others are not read. (Without them 35 of 600 rows of a random history had the
    wrong Create: an update was read in a later run than its Create.)
    """
    run_id, created = F.col("runId"), F.col("action") == "Create"
    own = changes.where((run_id > above_run) & (run_id <= up_to_run) & created)
    entries = own.unionByName(changes.where((run_id <= above_run) & created & (F.col("state") != "Current")))
    if rejected:
        near = F.col("sequence").between(min(rejected), max(rejected))
        known = local_rows(changes.sparkSession, [(one,) for one in sorted(rejected)], sequence="long")
        entries = entries.unionByName(
            changes.where((run_id <= above_run) & created & near).join(F.broadcast(known), "sequence", "left_semi"),
            allowMissingColumns=True,
        )
    return entries.dropna(subset=_KEY).select(*_KEY, F.col("sequence").alias("created"))


def touched_keys(changes: DataFrame, above_run: int, up_to_run: int) -> DataFrame:
    """The key of every entry that runs in (above_run, up_to_run] have landed, whatever became of the entry."""
    landed = (F.col("runId") > above_run) & (F.col("runId") <= up_to_run)
    return changes.where(landed).select(*_KEY).dropna().distinct()


def differing_keys(live: DataFrame, stored: DataFrame) -> DataFrame:
    """The keys whose sequence in ``live`` is not that in ``stored``, or that only one of them has."""
    left = live.select(*_KEY, F.struct("sequence").alias("_live"))
    right = stored.select(*_KEY, F.struct("sequence").alias("_stored"))
    both = left.join(right, on=_KEY, how="full")
    return both.where(~F.col("_live").eqNullSafe(F.col("_stored"))).select(*_KEY)


def classified(table: Table, inputs: Inputs, was: Sequence[str] = ()) -> DataFrame:
    """Columns of ``table`` (`instance_tags`) and ``effect``: UPSERT, REMOVE or SAME; one row a key that was looked at.

    The struct WAS has the columns ``was`` of the stored row, and is null where there was none.

    A row whose header is not in ``headers`` keeps what stands there for the same sequence: the header may have been
    purged since. Else its ``headerState`` is ``missing`` and its tags are null.
    """
    stored = inputs.stored.select(*_KEY, F.struct(*table.values).alias("_old"))
    live = inputs.live.withColumn("_live", F.lit(True))
    if inputs.touched is None:
        both = live.join(stored, on=_KEY, how="full")
    else:
        both = inputs.touched.join(live, on=_KEY, how="left").join(stored, on=_KEY, how="left")
    created = _created(inputs.creates, inputs.live)
    header = inputs.headers.select("sequence", F.struct(*_of_header(table)).alias("_new"))
    rows = both.join(created, on=_KEY, how="left").join(header, on="sequence", how="left")
    desired = rows.select(*_KEY, "_live", "_old", F.struct(*_values(table)).alias("_row"))
    values = (F.col(f"_row.{name}").alias(name) for name in table.values)
    return desired.select(*_KEY, *values, _effect(), *([before(was)] if was else []))


def before(was: Sequence[str]) -> Column:
    """The struct WAS of a row whose stored one is ``_old``."""
    fields = F.struct(*(F.col(f"_old.{name}").alias(name) for name in was))
    return F.when(F.col("_old").isNotNull(), fields).alias(WAS)


def _of_header(table: Table) -> list[str]:
    return [name for name in table.values if name not in ("sequence", "lastModifiedTimestamp", "createdSequence")]


def _created(creates: DataFrame, live: DataFrame) -> DataFrame:
    """The last Create of each living instance up to its own entry: since then it has the same pixels."""
    known = creates.join(live.select(*_KEY, "sequence"), on=_KEY)
    return known.where(F.col("created") <= F.col("sequence")).groupBy(*_KEY).agg(F.max("created").alias("_created"))


def _values(table: Table) -> list[Column]:
    same_entry = F.col("_old.sequence").eqNullSafe(F.col("sequence")) & F.col("_old").isNotNull()
    own: dict[str, Column] = {
        "sequence": F.col("sequence"),
        "lastModifiedTimestamp": F.col("lastModifiedTimestamp"),
        # Greatest: a range that is read again brings older Creates than the one that stands.
        "createdSequence": F.greatest("_created", "_old.createdSequence"),
    }
    for name in _of_header(table):
        kept = F.when(F.col("_new").isNotNull(), F.col(f"_new.{name}")).when(same_entry, F.col(f"_old.{name}"))
        own[name] = F.coalesce(kept, F.lit(MISSING)) if name == "headerState" else kept
    return [own[name].alias(name) for name in table.values]


def _effect() -> Column:
    gone, absent = F.col("_live").isNull(), F.col("_old").isNull()
    return (
        F.when(gone & absent, SAME)
        .when(gone, REMOVE)
        .when(absent | ~F.col("_row").eqNullSafe(F.col("_old")), UPSERT)
        .otherwise(SAME)
        .alias("effect")
    )
