"""`header_quality` from rows of `instance_tags` and from changes of them, with literal expectations."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from dicom_etl.tables.merge import Fence
from dicom_etl.tables.replace import replace_table
from dicom_etl.tables.schema import TableDesign
from dicom_etl.tables.tag_quality import (
    HEADER_QUALITY,
    QualitySource,
    merge_quality,
    quality_changes,
    quality_rows,
)
from support.frames import NOON
from support.site import table_rows

APP = "00000000-0000-0000-0000-000000000001"
SOURCE = QualitySource(("kvp", "rows"), "maker", "model")
WAS = "lastModifiedTimestamp timestamp, headerState string, headerQuality string, maker string, model string"
# What a row of `instance_tags` tells: the time, whether it has a header, its digits, and the device.
ACME = (NOON, "ok", "16", "ACME", "One")
OTHER = (NOON, "ok", "1-", "ACME", "One")
NEXT_DAY = (NOON + timedelta(days=1), "ok", "43", "ACME", "One")
MISSING = (NOON, "missing", None, None, None)
DAY, DAY_AFTER = datetime(2024, 5, 1, tzinfo=UTC).date(), datetime(2024, 5, 2, tzinfo=UTC).date()


def changes(spark: SparkSession, *rows: tuple[str, Any, Any]) -> DataFrame:
    """Rows as they are classified: the effect, what is there now, and what was there before."""
    nothing = (None,) * 5
    given = [(*(now or nothing), effect, was) for effect, now, was in rows]
    return quality_changes(SOURCE, spark.createDataFrame(given, f"{WAS}, effect string, was struct<{WAS}>"))


def counted(rows: list[dict[str, Any]]) -> dict[tuple[Any, ...], dict[str, int]]:
    """The counts that are not 0, by tag, day and device; fails when a key is there twice."""
    keys = ("tag", "day", "manufacturer", "manufacturerModelName")
    found = {tuple(row[key] for key in keys): {n: v for n, v in row.items() if v and n not in keys} for row in rows}
    assert len(found) == len(rows)
    return found


def test_each_row_is_counted_for_each_tag_by_its_digit(spark: SparkSession) -> None:
    rows = quality_rows(SOURCE, spark.createDataFrame([ACME, ACME, OTHER, NEXT_DAY, MISSING], WAS))
    assert counted([row.asDict() for row in rows.collect()]) == {
        ("kvp", DAY, "ACME", "One"): {"present": 3},
        ("rows", DAY, "ACME", "One"): {"unparsable": 2, "noHeader": 1},
        ("kvp", DAY_AFTER, "ACME", "One"): {"empty": 1},
        ("rows", DAY_AFTER, "ACME", "One"): {"otherVr": 1},
        ("kvp", DAY, None, None): {"noHeader": 1},
        ("rows", DAY, None, None): {"noHeader": 1},
    }


def test_changes_of_rows_are_added_and_what_comes_to_nothing_goes(spark: SparkSession, tmp_path: Path) -> None:
    """Rows that are new, that change, also to another day, that go, and that stay the same."""
    path, design = str(tmp_path / "header_quality"), TableDesign((), 720, False, {})
    first = quality_rows(SOURCE, spark.createDataFrame([ACME, MISSING], WAS))
    assert replace_table(spark, HEADER_QUALITY, path, lambda _: first, Fence(APP, 1), design) == 0
    merge_quality(spark, path, changes(spark, ("upsert", ACME, None)), Fence(APP, 2))
    assert counted(table_rows(path)) == {
        ("kvp", DAY, "ACME", "One"): {"present": 2},
        ("rows", DAY, "ACME", "One"): {"unparsable": 2},
        ("kvp", DAY, None, None): {"noHeader": 1},
        ("rows", DAY, None, None): {"noHeader": 1},
    }
    moved = changes(spark, ("upsert", NEXT_DAY, ACME), ("remove", None, MISSING), ("same", ACME, ACME))
    merge_quality(spark, path, moved, Fence(APP, 3))
    assert counted(table_rows(path)) == {
        ("kvp", DAY, "ACME", "One"): {"present": 1},
        ("rows", DAY, "ACME", "One"): {"unparsable": 1},
        ("kvp", DAY_AFTER, "ACME", "One"): {"empty": 1},
        ("rows", DAY_AFTER, "ACME", "One"): {"otherVr": 1},
    }
    assert merge_quality(spark, path, moved, Fence(APP, 3)) is None, "an execution that was overtaken adds nothing"
    assert len(table_rows(path)) == 4
