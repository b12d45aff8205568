"""The feed by plain PySpark as most would write it: `python -m bench.plain …`, a line of JSON.

Pages one after another by offset, parsed by `json`, fifty of them at a time as rows into `createDataFrame`, the newest
entry of each instance MERGEd into one table; in the end series and studies by aggregation of that table.
No crash, late row, update or rejected entry is thought of.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx
from delta.tables import DeltaTable
from pyspark.sql import SparkSession, Window
from pyspark.sql import functions as F

from bench.feed import START, Feed, instant
from bench.lakes import settings
from bench.template import first_value
from dicom_etl.tables.engine.session import local_session

PAGE = 200
PAGES_A_TIME = 50
_KEY = ("studyInstanceUid", "seriesInstanceUid", "sopInstanceUid")
_TAGS = {"studyDate": "00080020", "modality": "00080060", "patientId": "00100020", "studyDescription": "00081030"}
_TEXTS = (*_KEY, "action", "state", "timestamp", "filePath", *_TAGS, "patientName", "metadata")
_SCHEMA = "sequence long, " + ", ".join(f"{name} string" for name in _TEXTS)


def load(spark: SparkSession, base_url: str, end: str, root: Path) -> int:
    """How many entries were loaded into the table ``instance`` below ``root``."""
    path = str(root / "instance")
    read = 0
    with httpx.Client(timeout=60, trust_env=False) as client:
        while True:
            rows: list[tuple[Any, ...]] = []
            for _ in range(PAGES_A_TIME):
                query = {"offset": str(read), "limit": str(PAGE), "startTime": instant(START), "endTime": end}
                page = client.get(f"{base_url}/v2/changefeed", params=query).raise_for_status().json()
                rows += [_row(entry) for entry in page]
                read += len(page)
                if len(page) < PAGE:
                    break
            if rows:
                _merge(spark, path, rows)
            if len(rows) < PAGE * PAGES_A_TIME:
                return read


def _row(entry: dict[str, Any]) -> tuple[Any, ...]:
    metadata = entry.get("metadata") or {}
    values = {name: first_value(metadata.get(tag)) for name, tag in _TAGS.items()}
    name = first_value(metadata.get("00100010"))
    values["patientName"] = name.get("Alphabetic") if isinstance(name, dict) else None
    values["metadata"] = json.dumps(metadata)
    return (entry["sequence"], *(values.get(column, entry.get(column)) for column in _TEXTS))


def _merge(spark: SparkSession, path: str, rows: list[tuple[Any, ...]]) -> None:
    newest = Window.partitionBy(*_KEY).orderBy(F.desc("sequence"))
    last = (
        spark.createDataFrame(rows, _SCHEMA)
        .withColumn("rank", F.row_number().over(newest))
        .where(F.col("rank") == 1)
        .drop("rank")
    )
    if not DeltaTable.isDeltaTable(spark, path):
        last.where(F.col("action") != "Delete").write.format("delta").save(path)
        return
    (
        DeltaTable.forPath(spark, path)
        .alias("t")
        .merge(last.alias("s"), " AND ".join(f"t.{name} = s.{name}" for name in _KEY))
        .whenMatchedDelete("s.action = 'Delete'")
        .whenMatchedUpdateAll()
        .whenNotMatchedInsertAll("s.action <> 'Delete'")
        .execute()
    )


def roll_up(spark: SparkSession, root: Path) -> None:
    """Series and studies as aggregates of the whole table, overwritten."""
    instances = spark.read.format("delta").load(str(root / "instance"))
    for name, key in (("series", _KEY[:2]), ("study", _KEY[:1])):
        values = [F.max(column).alias(column) for column in ("studyDate", "patientId", "patientName", "timestamp")]
        rows = instances.groupBy(*key).agg(*values, F.count("*").alias("instanceCount"))
        rows.write.format("delta").mode("overwrite").save(str(root / name))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--base-url", required=True)
    options.add_argument("--root", type=Path, required=True)
    options.add_argument("--entries", type=int, required=True)
    given = options.parse_args()
    began = time.monotonic()
    with local_session(settings(given.base_url, given.root).spark, given.entries) as spark:
        started = time.monotonic()
        entries = load(spark, given.base_url, instant(Feed(given.entries).base_end), given.root)
        loaded = time.monotonic()
        roll_up(spark, given.root)
        seconds = {"start": started - began, "load": loaded - started, "rollup": time.monotonic() - loaded}
    assert entries == given.entries
    sys.stdout.write(json.dumps(seconds) + "\n")


if __name__ == "__main__":
    main()
