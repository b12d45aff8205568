"""The Data Factory template's algorithm on Spark, as faithfully as is known.

design/service-protocol.md: Data Factory template.

A page by offset; group by key and `last()` of every column; keep what has a filePath or is a Delete; upsert and
delete in `instance`; aggregate the whole of `instance` into `series` and the whole of `series` into `study` for the
keys that the page touched; a vacuum with each of the three writes; go on until a page writes nothing.

In its favour: pages are parsed by Python, not by a schema inferred from each page (defect 12), the session is warm
(the template starts a Spark activity for each page), and an empty page starts no job.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DateType, LongType, StringType, StructField, StructType, TimestampType

BATCH_SIZE = 200
RETENTION_HOURS = 720
INSTANCE_KEY = ("partitionName", "studyInstanceUid", "seriesInstanceUid", "sopInstanceUid")
KEYS = {"instance": INSTANCE_KEY, "series": INSTANCE_KEY[:3], "study": INSTANCE_KEY[:2]}
_STUDY_ATTRIBUTES = ("studyDate", "studyDescription", "issuerOfPatientId", "patientId", "patientName")
COLUMNS = {
    "instance": (
        *INSTANCE_KEY, "lastModifiedTimestamp", *_STUDY_ATTRIBUTES, "modality", "sopClassUid", "filePath",
    ),
    "series": (*KEYS["series"], "lastModifiedTimestamp", *_STUDY_ATTRIBUTES, "modality", "instanceCount"),
    "study": (*KEYS["study"], "lastModifiedTimestamp", *_STUDY_ATTRIBUTES, "seriesCount", "instanceCount"),
}  # fmt: skip
_TAGS = {
    "studyDate": "00080020",
    "studyDescription": "00081030",
    "issuerOfPatientId": "00100021",
    "patientId": "00100020",
    "patientName": "00100010",
    "modality": "00080060",
    "sopClassUid": "00080016",
}
_TYPES = {
    "lastModifiedTimestamp": TimestampType(),
    "studyDate": DateType(),
    "seriesCount": LongType(),
    "instanceCount": LongType(),
}


@dataclass(frozen=True, slots=True)
class PageDone:
    """One turn of its loop: entries of the page, rows given to the sink of `instance`, seconds."""

    entries: int
    rows_written: int
    seconds: float


def run(
    spark: SparkSession, base_url: str, start: str, end: str, paths: Mapping[str, str], pages: int | None = None
) -> list[PageDone]:
    """One activity of the pipeline: a window of the feed into the three tables; at most so many ``pages``.

    ``start`` and ``end`` as its parameters StartTime and EndTime; ``paths`` by table name. A page that cannot be had
    ends it as if it were done (on failure Continue := false).
    """
    done: list[PageDone] = []
    with httpx.Client(timeout=30, trust_env=False) as client:
        while pages is None or len(done) < pages:
            began = time.monotonic()
            try:
                entries = _page(client, base_url, start, end, offset=len(done) * BATCH_SIZE)
            except (httpx.HTTPError, ValueError):
                return done
            written = load_page(spark, entries, paths) if entries else 0
            done.append(PageDone(len(entries), written, time.monotonic() - began))
            if not goes_on(written):
                return done
    return done


def goes_on(rows_written: int) -> bool:
    """Its rule to stop: a page that wrote no row ends the window, and a short page does not (defect 2)."""
    return rows_written > 0


def _page(client: httpx.Client, base_url: str, start: str, end: str, offset: int) -> list[dict[str, Any]]:
    query = {
        "includeMetadata": "true",
        "offset": str(offset),
        "limit": str(BATCH_SIZE),
        "startTime": start,
        "endTime": end,
    }
    return list(client.get(f"{base_url}/v2/changefeed", params=query).raise_for_status().json())


def load_page(spark: SparkSession, entries: Sequence[Mapping[str, Any]], paths: Mapping[str, str]) -> int:
    """Its data flow: how many rows went to the sink of ``instance``, after all three tables were written."""
    fields = [StructField(name, _TYPES.get(name, StringType())) for name in (*COLUMNS["instance"], "action")]
    rows = spark.createDataFrame([row_of(entry) for entry in entries], StructType(fields))
    others = [name for name in rows.columns if name not in INSTANCE_KEY]
    last = rows.groupBy(*INSTANCE_KEY).agg(*(F.last(name).alias(name) for name in others))
    kept = last.where(F.col("filePath").isNotNull() | (F.col("action") == "Delete")).persist()
    try:
        count = kept.count()
        if count:
            _write(spark, "instance", paths["instance"], kept, F.col("s.action") == "Delete")
            _write_series(spark, kept, paths)
            _write_study(spark, kept, paths)
        return count
    finally:
        kept.unpersist()


def row_of(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """The columns of one entry: the first values of the attributes, and the action."""
    metadata = entry.get("metadata") or {}
    values: dict[str, Any] = {name: first_value(metadata.get(tag)) for name, tag in _TAGS.items()}
    name = values["patientName"]
    values["patientName"] = name.get("Alphabetic") if isinstance(name, Mapping) else None
    values["studyDate"] = study_date(values["studyDate"])
    values = {key: value if value is None or isinstance(value, date) else str(value) for key, value in values.items()}
    values |= {key: entry.get(key) for key in (*INSTANCE_KEY, "filePath", "action")}
    values["lastModifiedTimestamp"] = timestamp(str(entry["timestamp"]))
    return tuple(values[column] for column in (*COLUMNS["instance"], "action"))


def first_value(element: Any) -> Any:
    values = element.get("Value") if isinstance(element, Mapping) else None
    return values[0] if values else None


def timestamp(text: str) -> datetime | None:
    """The first 23 characters with three fraction digits; null for any other form (defect 6)."""
    try:
        return datetime.strptime(text[:23], "%Y-%m-%dT%H:%M:%S.%f").replace(tzinfo=UTC)
    except ValueError:
        return None


def study_date(value: Any) -> date | None:
    """yyyyMMdd and nothing else (defect 11)."""
    if not isinstance(value, str) or len(value) != 8:
        return None
    try:
        return datetime.strptime(value, "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        return None


def _write_series(spark: SparkSession, page: DataFrame, paths: Mapping[str, str]) -> None:
    """All of ``instance`` aggregated, then restricted to the page's keys."""
    instances = spark.read.format("delta").load(paths["instance"])
    series = (
        instances.groupBy(*KEYS["series"])
        .agg(*_last("lastModifiedTimestamp", *_STUDY_ATTRIBUTES, "modality"), F.count("*").alias("instanceCount"))
        .join(page.select(*KEYS["series"]).distinct(), on=list(KEYS["series"]), how="left_semi")
        .select(*COLUMNS["series"])
    )
    # deleteIf(instanceCount <= 0) of a group that exists: never true (defect 1).
    _write(spark, "series", paths["series"], series, F.col("s.instanceCount") <= 0)


def _write_study(spark: SparkSession, page: DataFrame, paths: Mapping[str, str]) -> None:
    """All of ``series`` aggregated, then restricted to the page's keys."""
    series = spark.read.format("delta").load(paths["series"])
    studies = (
        series.groupBy(*KEYS["study"])
        .agg(
            *_last("lastModifiedTimestamp", *_STUDY_ATTRIBUTES),
            F.count("*").alias("seriesCount"),
            F.sum("instanceCount").alias("instanceCount"),
        )
        .join(page.select(*KEYS["study"]).distinct(), on=list(KEYS["study"]), how="left_semi")
        .select(*COLUMNS["study"])
    )
    _write(spark, "study", paths["study"], studies, F.col("s.instanceCount") <= 0)


def _last(*names: str) -> list[Any]:
    return [F.last(name).alias(name) for name in names]


def _write(spark: SparkSession, table: str, path: str, rows: DataFrame, deleted: Any) -> None:
    """A Delta sink with upsert and delete, auto-compaction and vacuum, partitioned by partitionName."""
    builder = DeltaTable.createIfNotExists(spark).location(path).partitionedBy("partitionName")
    for name in COLUMNS[table]:
        builder = builder.addColumn(name, _TYPES.get(name, StringType()))
    target = (
        builder.property("delta.autoOptimize.autoCompact", "true")
        .property("delta.deletedFileRetentionDuration", f"interval {RETENTION_HOURS} hours")
        .execute()
    )
    same_key = F.lit(True)
    for name in KEYS[table]:
        same_key &= F.col(f"t.{name}") == F.col(f"s.{name}")
    assignments = {name: F.col(f"s.{name}") for name in COLUMNS[table]}
    (
        target.alias("t")
        .merge(rows.alias("s"), same_key)
        .withSchemaEvolution()
        .whenMatchedDelete(deleted)
        .whenMatchedUpdate(set=assignments)
        .whenNotMatchedInsert(~deleted, values=assignments)
        .execute()
    )
    target.vacuum()


def main() -> None:
    """Some pages into the tables at a place, with the session that dicom-etl would have: a line of JSON."""
    from bench.lakes import settings
    from dicom_etl.tables.engine.session import local_session

    options = argparse.ArgumentParser(description=main.__doc__)
    for name in ("--base-url", "--start", "--end"):
        options.add_argument(name, required=True)
    options.add_argument("--root", type=Path, required=True)
    options.add_argument("--pages", type=int, default=5)
    options.add_argument("--stored", type=int, default=0, help="instances in its tables: decides as for ours")
    given = options.parse_args()
    paths = {name: str(given.root / name) for name in KEYS}
    with local_session(settings(given.base_url, given.root).spark, given.stored) as spark:
        done = run(spark, given.base_url, given.start, given.end, paths, given.pages)
    found = [{"entries": page.entries, "rows": page.rows_written, "seconds": page.seconds} for page in done]
    sys.stdout.write(json.dumps({"pages": found}) + "\n")


if __name__ == "__main__":
    main()
