"""Windows one after another in one process with one JVM, as `dicom-etl watch` works: `python -m bench.warm …`.

A line of JSON for each window: the seconds of the whole `sync` (claim, reading, MERGEs, ledger), the ledger's row, what
the MERGEs did to files, how many files each table has then.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from bench.feed import WINDOW_ENTRIES, Feed
from bench.lakes import file_counts, merge_figures, settings, versions
from bench.processes import Server
from dicom_etl.commands.sync import sync_in
from dicom_etl.commands.sync_request import SyncRequest
from dicom_etl.core.clock import utc_now
from dicom_etl.core.progress import NullProgress
from dicom_etl.run.write_session import Resources
from dicom_etl.tables.engine.session import Engine


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--base-url", required=True)
    options.add_argument("--start", type=int, required=True)
    options.add_argument("--entries", type=int, required=True)
    options.add_argument("--set", action="append", default=[], dest="more")
    options.add_argument("--per-window", type=int, default=WINDOW_ENTRIES, help="entries of a window")
    options.add_argument("--after", type=int, default=0, help="windows that the lakes have already")
    options.add_argument("lakes", nargs="+", help="FOLDER=KIND,KIND: windows of these kinds into the lake there")
    given = options.parse_args()
    server = Server(given.base_url)
    first = settings(given.base_url, Path(given.lakes[0].partition("=")[0]), given.start, given.more)
    with Engine(first.spark) as engine:
        for text in given.lakes:
            root, _, kinds = text.rpartition("=")
            windows = kinds.split(",")
            for count in range(given.after + 1, len(windows) + 1):
                server.show(given.entries, windows[:count], per_window=given.per_window)
                before = versions(Path(root))
                began = time.monotonic()
                lake = settings(given.base_url, Path(root), given.start, given.more)
                (run,) = sync_in(Resources(lake, None, engine, NullProgress(), utc_now, time.sleep), SyncRequest())
                seconds = time.monotonic() - began
                feed = Feed(given.entries, windows[:count], given.per_window)
                studies = feed.studies(feed.window(count - 1))
                line = {
                    "kind": windows[count - 1],
                    "seconds": seconds,
                    "run": run.as_row(),
                    "requests": server.counters(),
                    "files": merge_figures(Path(root), studies, before),
                    "held": file_counts(Path(root)),
                }
                sys.stdout.write(json.dumps(line, default=str) + "\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
