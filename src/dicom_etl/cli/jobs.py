"""The options that every job for spark-submit takes; the jobs do without the command line's libraries."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from dicom_etl.core.errors import UsageError
from dicom_etl.core.logs import configure_as_asked, configure_logging
from dicom_etl.core.settings.load import load_settings
from dicom_etl.core.settings.model import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class _Parser(argparse.ArgumentParser):
    """argparse ends with 2 by itself; ours is 64."""

    def error(self, message: str) -> NoReturn:
        configure_as_asked(sys.argv[1:])
        raise UsageError(message)


def job_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that knows --config, --set, --log-format and --dry-run; a job adds its own."""
    parser = _Parser(description=description, allow_abbrev=False)
    parser.add_argument("--config", type=Path, help="settings file")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="SECTION.KEY=VALUE")
    parser.add_argument("--log-format", choices=["text", "json"], default="text")
    parser.add_argument("--dry-run", action="store_true", help="show the plan; change nothing")
    return parser


def job_session() -> SparkSession:
    """The session that the cluster provides, looked at before anything is read: also when nothing is due.

    Raises ConfigurationError when it knows no Delta Lake.
    """
    from pyspark.sql import SparkSession  # noqa: PLC0415  a dry run does without

    from dicom_etl.tables.engine.session import check_and_quiet  # noqa: PLC0415

    spark = SparkSession.builder.getOrCreate()
    check_and_quiet(spark)
    return spark


def job_settings(given: argparse.Namespace) -> Settings:
    """The settings of the job; logging is set up as asked."""
    configure_logging(given.log_format)
    return load_settings(given.config, given.overrides)
