"""Small frames with the columns of ``change`` and ``instance``, every value a test leaves out being null."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import DateType, LongType, StringType, StructField, StructType, TimestampType

from dicom_etl.core.attributes import ATTRIBUTES, INSTANCE_KEY
from dicom_etl.tables.schema import INSTANCE, SERIES, STUDY

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)

_LONG, _TEXT, _TIME = LongType(), StringType(), TimestampType()
CHANGE = StructType(
    [
        StructField("runId", _LONG),
        StructField("sequence", _LONG),
        StructField("timestamp", _TIME),
        StructField("timestampTicks", _LONG),
        *(StructField(name, _TEXT) for name in (*INSTANCE_KEY, "action", "state", "filePath")),
        *(StructField(a.column, DateType() if a.is_date else _TEXT) for a in ATTRIBUTES),
        StructField("metadata", _TEXT),
    ]
)
SOURCE = StructType([*INSTANCE.columns.fields, StructField("effect", _TEXT)])


def ticks(moment: datetime) -> int:
    return int(moment.timestamp()) * 10_000_000


def entry(sop: str, sequence: int, action: str, state: str, **given: Any) -> dict[str, Any]:
    """An entry of run 1 at noon, in study 1.1 and series 1.1.1 unless told otherwise."""
    moment = given.get("timestamp", NOON)
    return {
        "runId": 1,
        "sequence": sequence,
        "timestamp": moment,
        "timestampTicks": ticks(moment),
        "partitionName": "p",
        "studyInstanceUid": "1.1",
        "seriesInstanceUid": "1.1.1",
        "sopInstanceUid": sop,
        "action": action,
        "state": state,
        **given,
    }


def instance(sop: str, sequence: int | None, **given: Any) -> dict[str, Any]:
    """A row of ``instance`` at noon, in study 1.1 and series 1.1.1 unless told otherwise."""
    return {
        "partitionName": "p",
        "studyInstanceUid": "1.1",
        "seriesInstanceUid": "1.1.1",
        "sopInstanceUid": sop,
        "lastModifiedTimestamp": NOON,
        "sequence": sequence,
        **given,
    }


def changes_frame(spark: SparkSession, rows: Iterable[dict[str, Any]]) -> DataFrame:
    """Rows with the columns of ``change``."""
    return _frame(spark, rows, CHANGE)


def instances_frame(spark: SparkSession, rows: Iterable[dict[str, Any]]) -> DataFrame:
    return _frame(spark, rows, INSTANCE.columns)


def series_frame(spark: SparkSession, rows: Iterable[dict[str, Any]]) -> DataFrame:
    return _frame(spark, rows, SERIES.columns)


def study_frame(spark: SparkSession, rows: Iterable[dict[str, Any]]) -> DataFrame:
    return _frame(spark, rows, STUDY.columns)


def source_frame(spark: SparkSession, rows: Iterable[dict[str, Any]]) -> DataFrame:
    """Rows with the columns of ``instance`` and ``effect``, as the MERGE takes them."""
    return _frame(spark, rows, SOURCE)


def _frame(spark: SparkSession, rows: Iterable[dict[str, Any]], schema: StructType) -> DataFrame:
    return spark.createDataFrame([tuple(row.get(name) for name in schema.names) for row in rows], schema)


def collected(frame: DataFrame) -> list[dict[str, Any]]:
    """The rows as dictionaries, instants aware in UTC (Spark gives them naive, in the process's zone)."""
    return [{name: _aware(value) for name, value in row.asDict().items()} for row in frame.collect()]


def _aware(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) else value


def day(text: str) -> date:
    return date.fromisoformat(text)
