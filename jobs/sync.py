"""spark-submit jobs/sync.py: bring the tables up to the service, in the session that the cluster provides."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pyspark.sql import SparkSession

from dicom_etl.errors import DataError
from dicom_etl.exits import ended
from dicom_etl.logs import configure_logging
from dicom_etl.settings import load_settings
from dicom_etl.sync import request, sync


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--start", "--end", "--until", "--max-runs"):
        parser.add_argument(name, type=int if name == "--max-runs" else str)
    parser.add_argument("--strict", action="store_true", help="fail when an entry was rejected")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--log-format", choices=["text", "json"], default="text")
    given = parser.parse_args()
    configure_logging(given.log_format)
    settings = load_settings(given.config, given.overrides)
    asked = request(given.start, given.end, given.until, given.max_runs)
    rejected = 0
    for run in sync(settings, asked, spark=SparkSession.builder.getOrCreate()):
        rejected += run.rejected
        print(json.dumps(run.as_row(), default=str))
    if given.strict and rejected:
        raise DataError(f"{rejected} entries were rejected; see the table rejected")
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
