"""spark-submit jobs/maintain.py: compact and vacuum the tables, in the session that the cluster provides."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from pyspark.sql import SparkSession

from dicom_etl.exits import ended
from dicom_etl.logs import configure_logging
from dicom_etl.maintain import maintain
from dicom_etl.settings import load_settings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--log-format", choices=["text", "json"], default="text")
    given = parser.parse_args()
    configure_logging(given.log_format)
    settings = load_settings(given.config, given.overrides)
    for done in maintain(settings, spark=SparkSession.builder.getOrCreate()):
        print(json.dumps(dataclasses.asdict(done)))
    return 0


if __name__ == "__main__":
    raise SystemExit(ended(main))
