"""What `study_tags` says of a study's completeness, on small frames with literal expectations."""

from __future__ import annotations

from typing import Any

import pytest
from pyspark.sql import SparkSession

from dicom_etl.core.attributes import Level
from dicom_etl.tables.tag_rollup import series_rows, study_rows, summaries
from dicom_etl.tables.tag_schema import TagColumn, TagTables
from support.frames import instance

NUMBERS = [("1.1.1", 1), ("1.1.1", 4), ("1.1.2", 7), ("1.1.2", None)]
EXPECTED = [5, None, 6, None]


@pytest.mark.parametrize(
    ("number", "expected", "level"),
    [
        ("instanceNumber", "numberOfStudyRelatedInstances", "study"),
        ("no", "howMany", "series"),
        ("instanceNumber", "numberOfStudyRelatedInstances", "instance"),
    ],
)
def test_a_study_tells_its_completeness_whatever_its_columns_are_called(
    spark: SparkSession, number: str, expected: str, level: Level
) -> None:
    """`name=` and `level=` of the settings: the tags count, and what the latest header says."""
    tables = TagTables(
        (
            TagColumn("kvp", "double", "series", "KVP"),
            TagColumn(number, "long", "instance", "InstanceNumber"),
            TagColumn(expected, "long", level, "NumberOfStudyRelatedInstances"),
        )
    )
    rows: list[dict[str, Any]] = [
        {**instance(f"1.{at}", at, seriesInstanceUid=series), "kvp": 80.0, number: own, expected: EXPECTED[at]}
        for at, (series, own) in enumerate(NUMBERS)
    ]
    columns = tables.instance.columns
    frame = spark.createDataFrame([tuple(row.get(name) for name in columns.names) for row in rows], columns)
    made_of = summaries(tables, frame)
    (study,) = (row.asDict() for row in study_rows(tables, made_of, 1_800_000_000).collect())
    assert (study["instanceCount"], study["expectedInstances"], study["missingNumbers"]) == (4, 6, 2)
    at_series = {row["seriesInstanceUid"]: row.asDict() for row in series_rows(tables, made_of).collect()}
    assert {uid: row["kvp"] for uid, row in at_series.items()} == {"1.1.1": 80.0, "1.1.2": 80.0}
    assert [expected in study, expected in at_series["1.1.1"]] == [level == "study", level != "instance"]
