"""The columns, types and properties of the three shared tables (design/architecture.md: Tables)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pyspark.sql.types import (
    DataType,
    DateType,
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from dicom_etl.core.attributes import (
    ATTRIBUTES,
    INSTANCE_KEY,
    SERIES_ATTRIBUTES,
    SERIES_KEY,
    STUDY_ATTRIBUTES,
    STUDY_KEY,
    Attribute,
)
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake.column_facts import comment_of

CLUSTER_COLUMN = "studyInstanceUid"
PARTITION_COLUMN = "partitionName"

# Nothing that identifies a patient may stand in the log's statistics (design/architecture.md: Patient data); UIDs,
# times and the study date are what MERGE and the usual queries prune by.
_STATISTICS = (*INSTANCE_KEY, "sequence", "lastModifiedTimestamp", "studyDate")


@dataclass(frozen=True, slots=True)
class Table:
    """One of the tables that Spark writes: its name, its key, all its columns in order, and what clusters it."""

    name: str
    key: tuple[str, ...]
    columns: StructType
    cluster: str = CLUSTER_COLUMN

    @property
    def values(self) -> tuple[str, ...]:
        """The columns that are not part of the key, in order."""
        return tuple(name for name in self.columns.names if name not in self.key)


def _table(name: str, key: tuple[str, ...], attributes: tuple[Attribute, ...], *rest: tuple[str, DataType]) -> Table:
    columns: list[tuple[str, DataType]] = [
        *((column, StringType()) for column in key),
        ("lastModifiedTimestamp", TimestampType()),
        *((a.column, DateType() if a.is_date else StringType()) for a in attributes),
        *rest,
    ]
    return Table(
        name,
        key,
        StructType([StructField(column, kind, True, dict(comment_of(name, column))) for column, kind in columns]),
    )


INSTANCE = _table("instance", INSTANCE_KEY, ATTRIBUTES, ("filePath", StringType()), ("sequence", LongType()))
SERIES = _table("series", SERIES_KEY, SERIES_ATTRIBUTES, ("instanceCount", LongType()))
STUDY = _table(
    "study",
    STUDY_KEY,
    STUDY_ATTRIBUTES,
    ("seriesCount", LongType()),
    ("instanceCount", LongType()),
    ("modalitiesInStudy", StringType()),
)
TABLES = (INSTANCE, SERIES, STUDY)


def statistics_columns(table: Table, *, partitioned: bool) -> tuple[str, ...]:
    """The columns of ``table`` that get statistics; Delta refuses those it is partitioned by."""
    left_out = {PARTITION_COLUMN} if partitioned else set()
    pruned_by = dict.fromkeys((*_STATISTICS, table.cluster))  # Delta clusters by no column without
    return tuple(name for name in pruned_by if name in table.columns.names and name not in left_out)


@dataclass(frozen=True, slots=True)
class TableDesign:
    """How a shared table is made: its partitions, and what its properties say.

    Without ``partition_columns`` it is clustered by study. ``identity`` is the lake's. ``kept`` are properties of a
    table that is replaced; ours prevail.
    """

    partition_columns: tuple[str, ...]
    retention_hours: int
    deletion_vectors: bool
    identity: Mapping[str, str]
    kept: Mapping[str, str] = field(default_factory=dict)

    def properties(self, table: Table) -> dict[str, str]:
        """The Delta table properties."""
        columns = statistics_columns(table, partitioned=bool(self.partition_columns))
        return {
            **self.kept,
            "delta.dataSkippingStatsColumns": ",".join(columns),
            # UIDs of one scanner share more than Delta's 32 characters (design/spark.md: Merge and file skipping).
            "delta.dataSkippingStringPrefixLength": "64",
            "delta.enableDeletionVectors": "true"
            if self.deletion_vectors and supports_deletion_vectors(table)
            else "false",
            **retention_properties(self.retention_hours),
            **self.identity,
        }


def table_design(settings: Settings, identity: Mapping[str, str]) -> TableDesign:
    """The design of new tables by the settings."""
    return TableDesign(
        (PARTITION_COLUMN,) if settings.lake.layout == "partitioned" else (),
        settings.maintenance.retention_hours,
        settings.lake.deletion_vectors,
        identity,
    )


def supports_deletion_vectors(table: Table) -> bool:
    """Whether a MERGE may mark rows instead of rewriting their files.

    Not where there is a column ``filePath``: Delta's MERGE gives that name to one of its own, and ends with
    AMBIGUOUS_REFERENCE (tried with 4.4.0; delta-io/delta issues 2943 and 5296).
    """
    return "filePath" not in table.columns.names


def retention_properties(retention_hours: int) -> dict[str, str]:
    """The properties that govern VACUUM; ``RETAIN`` is ignored since Delta 4.1.

    design/spark.md: Vacuum and retention.
    """
    return {
        "delta.deletedFileRetentionDuration": f"interval {retention_hours} hours",
        # Must not be shorter than the above; 720 hours is Delta's own default.
        "delta.logRetentionDuration": f"interval {max(retention_hours, 720)} hours",
    }
