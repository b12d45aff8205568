"""What the rows of `instance_tags` are computed from: touched keys, differing keys, or everything."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dicom_etl.commands.columns.landed import Landed
from dicom_etl.commands.columns.quality import in_order
from dicom_etl.core.attributes import INSTANCE_KEY
from dicom_etl.lake.delta.table import read_rows
from dicom_etl.lake.snapshot import LakeSnapshot
from dicom_etl.outputs.columns.design import ColumnDesign
from dicom_etl.outputs.execution import Mode
from dicom_etl.outputs.follow import Step
from dicom_etl.outputs.stored_tags import StoredTags
from dicom_etl.tables.file_skipping import study_ranges
from dicom_etl.tables.merge import Ranges, read_table
from dicom_etl.tables.rollup import instances_within
from dicom_etl.tables.tag_headers import ParseBatches, current_entries, landed_entries, latest_headers, shuffle_joins
from dicom_etl.tables.tag_rows import (
    Inputs,
    create_entries,
    differing_keys,
    dormant_creates,
    live_rows,
    touched_keys,
)
from dicom_etl.tables.tag_schema import TagTables

# A comparison that finds more keys computes all rows: the sequences of these keys go to every task.
MOST_DIFFERING = 250_000


@dataclass(frozen=True, slots=True)
class Work:
    """What an execution works with: the lake, the step, the tag tables as wanted and as they stand, and a parser."""

    snapshot: LakeSnapshot
    step: Step
    design: ColumnDesign
    tables: TagTables
    stored: StoredTags
    parse: ParseBatches

    def changes(self, spark: SparkSession) -> DataFrame:
        """`change` as the target run left it."""
        return read_table(spark, self.snapshot.lake.path("change"), self.step.target.change_version)

    def instances(self, spark: SparkSession) -> DataFrame:
        """`instance` as the target run left it."""
        return read_table(spark, self.snapshot.lake.path("instance"), self.step.target.instance_version)

    def stored_rows(self, spark: SparkSession) -> DataFrame:
        """What `instance_tags` holds, in the columns that it is to have: null where it has none of that type."""
        table = self.tables.instance
        held = self.stored.columns(table.name)
        if not held:
            return spark.createDataFrame([], table.columns)
        path, version = self.snapshot.lake.path(table.name), self.stored.versions[table.name]
        wanted = {field.name: field.dataType.typeName() for field in table.columns.fields}
        rows = read_table(spark, path, version)
        if (made_of := self.stored.instance_design) is not None:
            rows = rows.withColumn("headerQuality", in_order(made_of, self.design))
        return rows.selectExpr(*(_kept(held, name, kind) for name, kind in wanted.items()))


def _kept(held: dict[str, str], name: str, kind: str) -> str:
    return f"`{name}`" if held.get(name) == kind else f"cast(NULL AS {kind}) AS `{name}`"


@dataclass(frozen=True, slots=True)
class Scope:
    """The studies that an execution may change, and the ranges of their UIDs."""

    studies: frozenset[str]
    ranges: Ranges

    def of(self, rows: DataFrame) -> DataFrame:
        """Those of the rows, of `instance` or a tag table, that may belong to the studies."""
        return instances_within(rows, self.ranges, self.studies)


@dataclass(frozen=True, slots=True)
class Computed:
    """The inputs of one execution; without ``scope`` they are everything, and the tables are replaced."""

    mode: Mode
    inputs: Inputs
    scope: Scope | None


def computed(spark: SparkSession, work: Work, entries: Landed | None) -> Computed:
    """What the step asks for, in this session; ``entries`` are those that it follows, if it does."""
    if entries is not None:
        return _changed(spark, work, entries)
    return _compared(spark, work) if work.step.mode == "compare" else _everything(spark, work)


def _changed(spark: SparkSession, work: Work, entries: Landed) -> Computed:
    scope = Scope(entries.studies, study_ranges(entries.studies))
    changes = work.changes(spark)
    own = entries.frame(spark, changes)
    rebuilt = work.step.rebuilt
    dormant = dormant_creates(changes, (rebuilt, entries.since), _rejected(work.snapshot))
    inputs = Inputs(
        live=live_rows(scope.of(work.instances(spark))),
        headers=latest_headers(current_entries(own), work.tables.columns, work.parse),
        creates=create_entries(own, rebuilt).unionByName(scope.of(dormant)),
        stored=scope.of(work.stored_rows(spark)),
        touched=touched_keys(own),
    )
    return Computed("changed", inputs, scope)


def _rejected(snapshot: LakeSnapshot) -> frozenset[int]:
    """The sequences of all entries that could not be used when they were read."""
    return frozenset(read_rows(snapshot.table("rejected"), ["sequence"])["sequence"].to_pylist())


def _compared(spark: SparkSession, work: Work) -> Computed:
    shuffle_joins(spark)
    live, stored = live_rows(work.instances(spark)), work.stored_rows(spark)
    entries = landed_entries(work.changes(spark), 0, work.step.to_run)
    # Entries may say more of rows whose sequence stands: a header that was not kept when it was read before.
    landed = touched_keys(landed_entries(entries, work.step.since, work.step.to_run))
    differing = differing_keys(live, stored).unionByName(landed).distinct().localCheckpoint()
    if differing.count() > MOST_DIFFERING:
        return _everything(spark, work)
    uids = frozenset(row[0] for row in differing.select("studyInstanceUid").distinct().collect())
    scope = Scope(uids, study_ranges(uids))
    wanted = live.join(F.broadcast(differing), on=list(INSTANCE_KEY), how="left_semi").select("sequence")
    # Before they are parsed: of ten million headers a repair concerns some.
    headers = current_entries(entries).join(F.broadcast(wanted), on="sequence", how="left_semi")
    inputs = Inputs(
        live=scope.of(live),
        headers=latest_headers(headers, work.tables.columns, work.parse),
        creates=create_entries(entries, work.step.rebuilt),
        stored=scope.of(stored),
        touched=differing,
        created_stands=not work.step.after_rebuild,
    )
    return Computed("compare", inputs, scope)


def _everything(spark: SparkSession, work: Work) -> Computed:
    shuffle_joins(spark)
    entries = landed_entries(work.changes(spark), 0, work.step.to_run)
    inputs = Inputs(
        live=live_rows(work.instances(spark)),
        headers=latest_headers(current_entries(entries), work.tables.columns, work.parse),
        creates=create_entries(entries, work.step.rebuilt),
        stored=work.stored_rows(spark),
        touched=None,
        created_stands=not work.step.after_rebuild,
    )
    return Computed("full", inputs, None)
