"""The rows of `instance_tags` as a function of `instance`, the headers in `change`, and what stands there already."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
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
# In `headerQuality`: the header was gone when the tag was chosen, so nothing is known of it.
UNKNOWN = "-"


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the rows are made of: living instances, their headers by key and sequence, Creates, and the stored rows.

    ``touched`` are the keys to look at; None: all of ``live`` and ``stored``. Without ``created_stands`` no
    ``createdSequence`` of ``stored`` counts: ``creates`` have all of them.
    """

    live: DataFrame
    headers: DataFrame
    creates: DataFrame
    stored: DataFrame
    touched: DataFrame | None
    created_stands: bool = True


def live_rows(instances: DataFrame) -> DataFrame:
    """Of `instance` what a tag row needs: the key, ``sequence`` and ``lastModifiedTimestamp``."""
    return instances.select(*_KEY, "sequence", "lastModifiedTimestamp")


def create_entries(entries: DataFrame, from_run: int) -> DataFrame:
    """The key and ``created``, the sequence, of each of the entries of this run and later ones that is a Create.

    ``from_run`` is the last that rebuilt the tables: what was read before may be of a service that was restored since.
    """
    creates = entries.where((F.col("action") == "Create") & (F.col("runId") >= from_run)).dropna(subset=_KEY)
    return creates.select(*_KEY, F.col("sequence").alias("created"))


def dormant_creates(changes: DataFrame, runs: tuple[int, int], rejected: Collection[int]) -> DataFrame:
    """The same of ``runs`` from one to another, for Creates that made no row then but may count for a later row.

    They were read when a later entry had replaced them, or ``rejected``. Parquet's dictionaries tell which parts of a
    file hold a state, so that others are not read. (Without them 35 of 600 rows of a random history had the wrong
    Create: an update was read in a later run than its Create.)
    """
    earlier = changes.where(F.col("runId").between(*runs) & (F.col("action") == "Create"))
    entries = earlier.where(F.col("state") != "Current")
    if rejected:
        near = F.col("sequence").between(min(rejected), max(rejected))
        known = local_rows(changes.sparkSession, [(one,) for one in sorted(rejected)], sequence="long")
        bad = earlier.where(near).join(F.broadcast(known), "sequence", "left_semi")
        entries = entries.unionByName(bad, allowMissingColumns=True)
    return create_entries(entries, runs[0])


def touched_keys(entries: DataFrame) -> DataFrame:
    """The key of every entry, whatever became of it."""
    return entries.select(*_KEY).dropna().distinct()


def differing_keys(live: DataFrame, stored: DataFrame) -> DataFrame:
    """The keys whose sequence or time in ``live`` is not that in ``stored``, or that only one of them has.

    After a service was restored, a key may have its old sequence again.
    """
    left = live.select(*_KEY, F.struct("sequence", "lastModifiedTimestamp").alias("_live"))
    right = stored.select(*_KEY, F.struct("sequence", "lastModifiedTimestamp").alias("_stored"))
    both = left.join(right, on=_KEY, how="full")
    return both.where(~F.col("_live").eqNullSafe(F.col("_stored"))).select(*_KEY)


def classified(table: Table, inputs: Inputs, was: Sequence[str] = ()) -> DataFrame:
    """Columns of ``table`` (`instance_tags`) and ``effect``: UPSERT, REMOVE or SAME; one row a key that was looked at.

    The struct WAS has the columns ``was`` of the stored row, and is null where there was none.

    A row whose header is not in ``headers`` keeps what stands there for the same sequence: the header may have been
    purged since. Else its ``headerState`` is ``missing`` and its tags are null.
    """
    stored = inputs.stored.select(*_KEY, F.expr(f"struct({_names(table.values)}) AS _old"))
    live = inputs.live.withColumn("_live", F.lit(True))
    if inputs.touched is None:
        both = live.join(stored, on=_KEY, how="full")
    else:
        both = inputs.touched.join(live, on=_KEY, how="left").join(stored, on=_KEY, how="left")
    created = inputs.creates.groupBy(*_KEY).agg(F.collect_list("created").alias("_creates"))
    header = inputs.headers.selectExpr(*_KEY, "sequence", f"struct({_names(_of_header(table))}) AS _new")
    rows = both.join(created, on=_KEY, how="left").join(header, on=[*_KEY, "sequence"], how="left")
    values = ", ".join(_values(table, inputs.created_stands))
    desired = rows.select(*_KEY, "_live", "_old", F.expr(f"struct({values}) AS _row"))
    return desired.select(*_KEY, "_row.*", _effect(), *([before(was)] if was else []))


def before(was: Sequence[str]) -> Column:
    """The struct WAS of a row whose stored one is ``_old``."""
    fields = F.struct(*(F.col(f"_old.{name}").alias(name) for name in was))
    return F.when(F.col("_old").isNotNull(), fields).alias(WAS)


def _of_header(table: Table) -> list[str]:
    return [name for name in table.values if name not in ("sequence", "lastModifiedTimestamp", "createdSequence")]


def _values(table: Table, created_stands: bool) -> list[str]:
    """The values of the row that is to stand, as SQL.

    Built of `Column` objects sixty tags take 800 calls of the JVM: a fifth of a second of each window.
    """
    same_entry = "_old IS NOT NULL AND _old.sequence <=> sequence"
    stands = "array(_old.createdSequence)" if created_stands else "array()"
    own = {
        "sequence": "sequence",
        "lastModifiedTimestamp": "lastModifiedTimestamp",
        # The last Create up to its own entry: since then it has the same pixels. Also the one that stands: a range that
        # is read again brings older ones.
        "createdSequence": f"array_max(filter(concat(ifnull(_creates, array()), {stands}), one -> one <= sequence))",
    }
    for name in _of_header(table):
        kept = f"CASE WHEN _new IS NOT NULL THEN _new.`{name}` WHEN {same_entry} THEN _old.`{name}` END"
        own[name] = f"coalesce({kept}, '{MISSING}')" if name == "headerState" else kept
    return [f"{own[name]} AS `{name}`" for name in table.values]


def _names(columns: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in columns)


def _effect() -> Column:
    gone, absent = F.col("_live").isNull(), F.col("_old").isNull()
    return (
        F.when(gone & absent, SAME)
        .when(gone, REMOVE)
        .when(absent | ~F.col("_row").eqNullSafe(F.col("_old")), UPSERT)
        .otherwise(SAME)
        .alias("effect")
    )
