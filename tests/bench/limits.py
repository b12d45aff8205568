"""What bounds dicom-etl on this machine: each limit a process of its own, `python -m bench.limits NAME …`.

download: the feed's bytes and nothing else; landing: download, parse, Parquet, one commit, by one or two processes;
session: a Spark session that starts and reads one Delta row; merge: warm MERGEs of a window into `instance`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any

import httpx

from bench.feed import START, Feed, instant
from bench.lakes import settings
from dicom_etl.core.settings.model import Settings
from dicom_etl.core.timerange import Window
from dicom_etl.dicomweb.connect import connect
from dicom_etl.dicomweb.feed.reader import FeedReader, FeedReadResult, read_feed
from dicom_etl.lake.change_schema import change_schema
from dicom_etl.lake.delta.add_file import AddFile
from dicom_etl.lake.delta.commit import commit_files
from dicom_etl.lake.delta.folder import local_folder
from dicom_etl.lake.lake_id import service_fingerprint
from dicom_etl.lake.open import find_lake, highest_run_id, make_lake, make_private_tables
from dicom_etl.lake.paths import lake_paths
from dicom_etl.lake.statistics import shared_rows
from dicom_etl.landing.landing import Landed, Landing

CONNECTIONS = 10
_READ_AT = datetime(2024, 5, 1, tzinfo=UTC)


def download(base_url: str, entries: int) -> dict[str, Any]:
    """Every page of the feed, by httpx on as many connections as our client has; the bytes are dropped."""
    feed = Feed(entries)
    asks = iter([(feed.event(place).ticks, _end(feed, place)) for place in range(0, entries, 200)])
    lock = Lock()

    def fetch(client: httpx.Client) -> Iterator[int]:
        while True:
            with lock:
                ask = next(asks, None)
            if ask is None:
                return
            query = {"startTime": instant(ask[0]), "endTime": instant(ask[1]), "offset": "0", "limit": "200"}
            yield len(client.get(f"{base_url}/v2/changefeed", params=query).raise_for_status().content)

    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    began = time.monotonic()
    with (
        httpx.Client(limits=limits, timeout=60, trust_env=False) as client,
        ThreadPoolExecutor(CONNECTIONS) as pool,
    ):
        received = sum(pool.map(lambda _: sum(fetch(client)), range(CONNECTIONS)))
    return {"insideSeconds": time.monotonic() - began, "bytes": received}


def _end(feed: Feed, place: int) -> int:
    return feed.event(place + 200).ticks if place + 200 < feed.entries else feed.base_end


def land(given: Settings, run_id: int, window: Window, connections: int) -> tuple[Landed, FeedReadResult]:
    """Download, parse and write one range; the files are not committed yet."""
    lake = find_lake(lake_paths(given))
    assert lake is not None
    folder = local_folder(lake.lake.path("change"), private=True)
    with connect(given.dicom) as client, Landing(folder, run_id=run_id, read_at=_READ_AT) as landing:
        reading = read_feed(FeedReader(client, given.feed.batch_size, connections), window, landing.add)
        return landing.finish(reading.window.end), reading


def commit(given: Settings, run_id: int, files: tuple[AddFile, ...]) -> int:
    """The version of ``change`` that has the files, by one commit."""
    lake = find_lake(lake_paths(given))
    assert lake is not None
    return commit_files(
        lake.table("change"),
        files,
        app_id=lake.lake.app_id("change"),
        run_id=run_id,
        details={},
        schema=change_schema(),
    )


def _land_part(task: tuple[str, str, int, Window, int]) -> tuple[tuple[AddFile, ...], int, int]:
    base_url, root, run_id, window, connections = task
    landed, reading = land(settings(base_url, Path(root)), run_id, window, connections)
    return landed.files, landed.entries, reading.slices


def landing(base_url: str, root: Path, entries: int, processes: int) -> dict[str, Any]:
    """The whole feed into a new table ``change``, in parts side by side, and one commit of them all."""
    given = settings(base_url, root)
    lake = make_lake(lake_paths(given), service_fingerprint(base_url))
    make_private_tables(lake)
    whole = Window(START, Feed(entries).base_end)
    edges = [whole.start + (whole.end - whole.start) * part // processes for part in range(processes + 1)]
    tasks = [(base_url, str(root), 1, Window(start, end), CONNECTIONS // processes) for start, end in pairwise(edges)]
    began = time.monotonic()
    if processes == 1:
        parts = [_land_part(tasks[0])]
    else:
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            parts = pool.map(_land_part, tasks)
    commit(given, 1, tuple(file for files, _, _ in parts for file in files))
    return {
        "insideSeconds": time.monotonic() - began,
        "entries": sum(count for _, count, _ in parts),
        "slices": sum(slices for _, _, slices in parts),
    }


def session(root: Path) -> dict[str, Any]:
    """A session with the flags of a small window, and one row of ``instance``."""
    from dicom_etl.tables.engine.session import local_session
    from dicom_etl.tables.merge import read_table

    began = time.monotonic()
    with local_session(settings("", root).spark, rows=0) as spark:
        started = time.monotonic()
        rows = read_table(spark, str(root / "instance")).limit(1).collect()
        assert len(rows) == 1
        return {"startSeconds": started - began, "readSeconds": time.monotonic() - started}


def merge(base_url: str, root: Path, start: int, entries: int, windows: int) -> dict[str, Any]:
    """Windows landed one after another, and for each the MERGE into ``instance`` alone timed, in one session."""
    from dicom_etl.tables import fold
    from dicom_etl.tables.engine.session import Engine
    from dicom_etl.tables.file_skipping import study_ranges
    from dicom_etl.tables.merge import Fence, merge_instance, read_table

    given = settings(base_url, root, start)
    feed = Feed(entries, ["create"] * windows)
    seconds = []
    snapshot = find_lake(lake_paths(given))
    assert snapshot is not None
    lake = snapshot.lake
    with Engine(given.spark) as engine:
        spark = engine.session(shared_rows(snapshot))
        first_id = highest_run_id(snapshot) + 1
        for run_id, number in enumerate(range(windows), start=first_id):
            places_of = feed.window(number)
            window = Window(feed.event(places_of[0]).ticks, feed.event(places_of[-1]).ticks + 1)
            landed, _ = land(given, run_id, window, CONNECTIONS)
            commit(given, run_id, landed.files)
            began = time.monotonic()
            merged = merge_instance(
                spark,
                lake.path("instance"),
                lambda one, run=run_id: fold.changing(fold.folded(read_table(one, lake.path("change")), run, ())),
                study_ranges(landed.studies),
                Fence(lake.app_id("instance"), run_id),
            )
            seconds.append(time.monotonic() - began)
            assert merged.inserted == len(places_of)
    return {"mergeSeconds": seconds}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("limit", choices=["download", "landing", "session", "merge"])
    options.add_argument("--base-url", default="")
    options.add_argument("--root", type=Path, default=Path())
    options.add_argument("--start", type=int, default=START)
    options.add_argument("--entries", type=int, default=0)
    options.add_argument("--processes", type=int, default=1)
    options.add_argument("--windows", type=int, default=5)
    given = options.parse_args()
    if given.limit == "download":
        found = download(given.base_url, given.entries)
    elif given.limit == "landing":
        found = landing(given.base_url, given.root, given.entries, given.processes)
    elif given.limit == "session":
        found = session(given.root)
    else:
        found = merge(given.base_url, given.root, given.start, given.entries, given.windows)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
