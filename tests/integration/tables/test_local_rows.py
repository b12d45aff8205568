"""Rows of this process as a frame: what they are, and that no Python process makes them."""

from __future__ import annotations

import pyspark
import pytest
from pyspark.sql import DataFrame, SparkSession

from dicom_etl.tables.engine.frames import local_rows

ROWS = [("p", "1.2", 1), ("p", None, 2**40), ("é", "", 3)]


def _plan(frame: DataFrame) -> str:
    return str(frame._jdf.queryExecution().executedPlan().toString())


def test_the_rows_come_back_as_they_were(spark: SparkSession) -> None:
    """Nulls and empty texts, in order, with the types asked for."""
    frame = local_rows(spark, ROWS, partitionName="string", studyInstanceUid="string", sequence="long")
    assert [tuple(row) for row in frame.collect()] == ROWS
    assert frame.schema.simpleString() == "struct<partitionName:string,studyInstanceUid:string,sequence:bigint>"


def test_no_rows_are_an_empty_frame(spark: SparkSession) -> None:
    """Of the same columns."""
    frame = local_rows(spark, [], sequence="long")
    assert frame.collect() == []
    assert frame.schema.simpleString() == "struct<sequence:bigint>"


@pytest.mark.skipif(pyspark.__version__ < "4", reason="Spark 3 takes no Arrow tables")
def test_no_python_process_is_started_for_them(spark: SparkSession) -> None:
    """The plan scans what the JVM holds; of plain tuples it scans an RDD, which Python workers make (the twin)."""
    columns = {"partitionName": "string", "studyInstanceUid": "string", "sequence": "long"}
    assert "ExistingRDD" not in _plan(local_rows(spark, ROWS, **columns))
    assert "ExistingRDD" in _plan(spark.createDataFrame(ROWS, ", ".join(f"{n} {t}" for n, t in columns.items())))
