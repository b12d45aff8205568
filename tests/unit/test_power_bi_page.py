"""The queries and measures of docs/power-bi.md ask for what there is; its freshness is where the first gap begins."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from dicom_etl.lake.ledger import SCHEMA as RUN
from dicom_etl.outputs.columns.design import imaging_columns
from dicom_etl.tables.schema import TABLES

PAGE = Path(__file__).parents[2] / "docs" / "power-bi.md"
NOON = datetime.fromisoformat("2026-03-01T12:00:00")  # as the SQL endpoint has it: UTC, without a zone
# Runs as (status, from, to) in hours after noon; to is None where the verb read no feed. Then what is covered.
LEDGERS: dict[str, tuple[list[tuple[str, float, float | None]], float]] = {
    "one after the other": ([("succeeded", 0, 1), ("succeeded", 1, 2)], 2),
    "in another order, and twice": ([("succeeded", 1, 3), ("succeeded", 0, 1), ("succeeded", 1, 2)], 3),
    "a gap": ([("succeeded", 0, 1), ("succeeded", 0.5, 2), ("succeeded", 4, 5), ("succeeded", 5, 6)], 2),
    "what failed, or covers nothing": ([("succeeded", 0, 1), ("failed", 1, 2), ("succeeded", 9, 9)], 1),
    "a verb that reads no feed": ([("succeeded", 0, 1), ("succeeded", 2, None)], 1),
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("case", LEDGERS)
def test_the_freshness_ends_at_the_first_gap(case: str) -> None:
    """By the page's SQL, which the SQL endpoint and DuckDB read alike."""
    runs, covered = LEDGERS[case]
    rows = [
        {
            "status": status,
            "windowStart": NOON + timedelta(hours=start),
            "coveredUntil": None if end is None else NOON + timedelta(hours=end),
        }
        for status, start, end in runs
    ]
    (statement,) = [text for text in blocks("sql") if "coveredUntil" in text]
    with duckdb.connect() as connection:
        connection.register("rows", pa.Table.from_pylist(rows))
        connection.execute("CREATE SCHEMA dbo; CREATE TABLE dbo.run AS SELECT * FROM rows")
        assert connection.execute(statement).fetchall() == [(NOON + timedelta(hours=covered),)]


def test_studies_by_scanner_and_month_count_each_study_once_a_scanner() -> None:
    """Two series of one scanner are one study; a series that the tag tables lack is under null."""
    key = {"partitionName": "Microsoft.Default", "studyInstanceUid": "1"}
    day = {"studyDate": NOON.date()}
    series = [{**key, **day, "seriesInstanceUid": uid} for uid in ("1.1", "1.2", "1.3", "1.4")]
    models = {"1.1": "Scan 1", "1.2": "Scan 1", "1.3": "Scan 2"}
    tags = [{**key, "seriesInstanceUid": uid, "manufacturerModelName": model} for uid, model in models.items()]
    (statement,) = [text for text in blocks("sql") if "manufacturerModelName" in text]
    with duckdb.connect() as connection:
        connection.execute("CREATE SCHEMA dbo")
        for name, rows in (("series", series), ("series_tags", tags)):
            connection.register("rows", pa.Table.from_pylist(rows))
            connection.execute(f"CREATE TABLE dbo.{name} AS FROM rows")
        found = connection.execute(statement).fetchall()
    assert sorted(found, key=str) == [("Scan 1", 2026, 3, 1), ("Scan 2", 2026, 3, 1), (None, 2026, 3, 1)]


def test_every_column_that_a_measure_names_is_one_of_its_table() -> None:
    """`series[instanceCount]` and so on; what no service has run is at least spelt right."""
    columns = {table.name: {field.name for field in table.columns} for table in TABLES} | {"run": set(RUN.names)}
    tags = [column.name for column in imaging_columns()]
    columns["series_tags"] = {*tags, *(f"{name}_values" for name in tags)}
    asked = re.findall(r"\b(instance|series|series_tags|study|run)\[(\w+)\]", PAGE.read_text(encoding="utf-8"))
    assert len(set(asked)) >= 10
    assert [(table, name) for table, name in asked if name not in columns[table]] == []
    for code in blocks("dax"):
        assert code.count("(") == code.count(")")
