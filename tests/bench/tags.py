"""The tag tables in one process with one JVM: a backfill, then windows after another: `python -m bench.tags …`.

Lines of JSON: the backfill, reading the column `metadata` alone, and for each window the seconds of its sync, of the
update of the tag tables, and of one plain MERGE of the same rows into a copy of `instance_tags`; what the JVM has read.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from bench.feed import Feed
from bench.lakes import settings
from bench.processes import Server, jvm_below
from dicom_etl.commands.columns.update import Tools, update_in
from dicom_etl.commands.sync import sync_in
from dicom_etl.commands.sync_request import SyncRequest
from dicom_etl.core.attributes import INSTANCE_KEY
from dicom_etl.core.clock import utc_now
from dicom_etl.core.progress import NullProgress
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake.open import existing_lake
from dicom_etl.run.write_session import Resources
from dicom_etl.tables.engine.session import Engine, whole_tables_session


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.monotonic()
    done = work()
    return time.monotonic() - began, done


def read_by_jvm() -> int:
    """Bytes that the JVM below this process has read so far, from the page cache or not."""
    return int(Path(f"/proc/{jvm_below()}/io").read_text().partition("rchar: ")[2].split()[0])


def backfilled(lake: Settings, engine: Engine) -> dict[str, Any]:
    tools = Tools(lake, engine, NullProgress(), utc_now, time.sleep)
    seconds, done = timed(lambda: update_in(tools, existing_lake(lake), "full"))
    assert done is not None
    session = whole_tables_session(engine.session(10**7))
    headers = session.read.format("delta").load(f"{lake.lake.root}/change")
    reading, _ = timed(lambda: headers.agg(F.sum(F.length("metadata"))).collect())
    return {"kind": "backfill", "seconds": seconds, "headers": done.counts.touched, "metadataSeconds": reading}


def window(lake: Settings, engine: Engine) -> dict[str, Any]:
    tools = Tools(lake, engine, NullProgress(), utc_now, time.sleep)
    resources = Resources(lake, None, engine, NullProgress(), utc_now, time.sleep)
    syncing, _ = timed(lambda: list(sync_in(resources, SyncRequest())))
    copy = Path(f"{lake.lake.root}-copy")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(f"{lake.lake.root}/instance_tags", copy)
    before = read_by_jvm()
    updating, done = timed(lambda: update_in(tools, existing_lake(lake)))
    after = read_by_jvm()
    assert done is not None
    merging = plain_merge(engine.session(1000), Path(lake.lake.root) / "instance_tags", copy, done.counts.touched)
    return {
        "kind": "window", "syncSeconds": syncing, "seconds": updating, "mergeSeconds": merging,
        "touched": done.counts.touched, "written": done.counts.written, "bytesRead": after - before,
    }  # fmt: skip


def plain_merge(spark: SparkSession, new: Path, copy: Path, rows: int) -> float:
    """The seconds of one MERGE of the rows that the update wrote, from a file, into a copy of the table before."""
    changed = spark.read.format("delta").load(str(new)).exceptAll(spark.read.format("delta").load(str(copy)))
    file = copy.with_name(f"{copy.name}-rows")
    shutil.rmtree(file, ignore_errors=True)
    changed.limit(rows).coalesce(1).write.parquet(str(file))
    source = spark.read.parquet(str(file))
    low, high = source.agg(F.min("studyInstanceUid"), F.max("studyInstanceUid")).collect()[0]
    keys = " AND ".join(f"t.{name} = s.{name}" for name in INSTANCE_KEY)
    near = f"{keys} AND t.studyInstanceUid BETWEEN '{low}' AND '{high}'"
    merge = DeltaTable.forPath(spark, str(copy)).alias("t").merge(source.alias("s"), near)
    return timed(merge.whenMatchedUpdateAll().whenNotMatchedInsertAll().execute)[0]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--base-url", required=True)
    options.add_argument("--root", required=True)
    options.add_argument("--start", type=int, required=True)
    options.add_argument("--entries", type=int, required=True)
    options.add_argument("--windows", type=int, required=True)
    given = options.parse_args()
    server = Server(given.base_url)
    lake = settings(given.base_url, Path(given.root), given.start)
    with Engine(lake.spark) as engine:
        _say(backfilled(lake, engine))
        for count in range(1, given.windows + 1):
            feed = Feed(given.entries, ["create"] * count)
            server.show(given.entries, feed.windows)
            _say(window(lake, engine))


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
