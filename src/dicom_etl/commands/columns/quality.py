"""Keeps `header_quality` equal to `instance_tags`: by what changed there, or where that is not known, whole."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import Column as Expression
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dicom_etl.core.errors import Superseded
from dicom_etl.lake.delta.table import properties, txn_version
from dicom_etl.lake.snapshot import Lake
from dicom_etl.outputs.columns.design import ColumnDesign
from dicom_etl.outputs.stored_tags import DESIGN, QUALITY, StoredTags
from dicom_etl.tables.merge import Fence, read_table
from dicom_etl.tables.replace import replace_table
from dicom_etl.tables.schema import TableDesign
from dicom_etl.tables.tag_quality import HEADER_QUALITY, QualitySource, merge_quality, quality_changes, quality_rows
from dicom_etl.tables.tag_rows import UNKNOWN


@dataclass(frozen=True, slots=True)
class QualityWriter:
    """Who writes `header_quality`; ``stands`` is its version where it equals `instance_tags` as that stood before."""

    spark: SparkSession
    lake: Lake
    source: QualitySource
    design: TableDesign
    execution_id: int
    stands: int | None


def quality_source(design: ColumnDesign) -> QualitySource:
    """What is counted of a design's columns; the set `imaging` has the device, perhaps under another name."""
    named = {column.path.text: column.name for column in design.columns}
    tags = tuple(column.name for column in design.columns)
    return QualitySource(tags, named["Manufacturer"], named["ManufacturerModelName"])


def standing(lake: Lake, stored: StoredTags, design: ColumnDesign) -> int | None:
    """The version of `header_quality` where it equals `instance_tags`; None where that is not certain.

    It is written behind `instance_tags` under the same id, or a later one. So where its marker is lower, an execution
    died between.
    """
    table, counted = stored.quality, stored.tables.get("instance_tags")
    if table is None or counted is None or properties(table).get(DESIGN) != design.to_json():
        return None
    own = txn_version(table, lake.app_id(QUALITY))
    return int(table.version()) if own >= txn_version(counted, lake.app_id("instance_tags")) else None


def write_quality(writer: QualityWriter, rows: DataFrame, instance_version: int) -> int:
    """The version of `header_quality` that equals ``instance_version`` of `instance_tags`.

    ``rows`` are those that ``classified`` gave. Raises Superseded.
    """
    spark, path = writer.spark, writer.lake.path(QUALITY)
    fence = Fence(writer.lake.app_id(QUALITY), writer.execution_id)
    if writer.stands is not None:
        changes = quality_changes(writer.source, rows).localCheckpoint()
        version = merge_quality(spark, path, changes, fence)
    else:
        instances = read_table(spark, writer.lake.path("instance_tags"), instance_version)
        counted = quality_rows(writer.source, instances)
        version = replace_table(spark, HEADER_QUALITY, path, lambda _: counted, fence, writer.design)
    if version is None:
        raise Superseded(f"{QUALITY}: a later execution has written; this one stops")
    return version


def in_order(held: ColumnDesign, wanted: ColumnDesign) -> Expression:
    """`headerQuality` of rows that were made of the tags ``held``, in the order of ``wanted``."""
    if held.columns == wanted.columns:
        return F.col("headerQuality")
    places = {column.path: place for place, column in enumerate(held.columns, 1)}
    digits = (
        F.substring("headerQuality", places[column.path], 1) if column.path in places else F.lit(UNKNOWN)
        for column in wanted.columns
    )
    # Null without a header, and so is the whole.
    return F.when(F.col("headerQuality").isNotNull(), F.concat(*digits)).alias("headerQuality")
