"""Compacts and vacuums every table of the lake, as its only writer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime

from fsspec.implementations.local import LocalFileSystem
from pyspark.sql import SparkSession

from dicom_etl.clock import utc_now
from dicom_etl.lake.maintenance import Maintained, maintain_table
from dicom_etl.lake.session import Engine
from dicom_etl.one_run import row_origin
from dicom_etl.open_lake import TABLES, existing_lake, highest_run_id
from dicom_etl.progress import Progress, Silent
from dicom_etl.runs import ledger
from dicom_etl.runs.claim import claim
from dicom_etl.runs.ledger import Run
from dicom_etl.settings import Settings


def maintain(
    settings: Settings,
    *,
    spark: SparkSession | None = None,
    progress: Progress | None = None,
    clock: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Maintained]:
    """What was done to each table; the ledger gets a row of the verb ``maintain``.

    Raises DataError when there is no lake, AnotherWriter when somebody else writes it.
    """
    progress = progress or Silent()
    lake = existing_lake(settings)
    started = clock()
    with (
        Engine(settings.spark, spark) as engine,
        claim(
            LocalFileSystem(),
            lake.places.claims,
            verb="maintain",
            floor=highest_run_id(lake),
            clock=clock,
            sleep=sleep,
            progress=engine.pulse,
        ) as held,
    ):
        for name in TABLES:
            if lake.has(name):
                progress.step(f"maintain {name}")
                yield maintain_table(
                    engine.session(lake.rows()), name, lake.path(name), settings.maintenance.retention_hours
                )
        row = Run(
            run_id=held.run_id,
            verb="maintain",
            status="succeeded",
            started_at=started,
            finished_at=clock(),
            change_version=lake.version("change"),
            instance_version=lake.version("instance"),
            series_version=lake.version("series"),
            study_version=lake.version("study"),
            **row_origin(settings),
        )
        ledger.record(lake.table("run"), row, lake.identity)
