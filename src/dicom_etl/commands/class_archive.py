"""Makes the archive of classes: a JVM does a little of everything, and remembers what it loaded."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from dicom_etl.core.attributes import INSTANCE_KEY
from dicom_etl.core.settings.model import Spark
from dicom_etl.tables.compact import MaintenancePlan, maintain_table
from dicom_etl.tables.engine.class_archive import FOLDER, archive_of
from dicom_etl.tables.engine.java import java_home
from dicom_etl.tables.engine.session import local_session
from dicom_etl.tables.fold import UPSERT
from dicom_etl.tables.merge import Fence, Source, create_table, merge_instance, merge_rollup, read_table
from dicom_etl.tables.rollup import instances_of, instances_within, listed_series, series_rows, study_rows, summaries
from dicom_etl.tables.schema import INSTANCE, SERIES, STUDY, TABLES, TableDesign

_SETTINGS = Spark(master="local[2]", driver_memory="1g", shuffle_partitions=2)


def make_archive(folder: Path = FOLDER) -> Path:
    """The archive, made once by a JVM that does a little of everything and remembers it at its end."""
    archive = archive_of(java_home(), folder)
    if archive.is_file():
        return archive
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dicom-etl-classes-", dir=folder) as scratch:
        made = Path(scratch) / "new.jsa"
        with local_session(_SETTINGS, rows=0, archive=made) as spark:
            _train(spark, Path(scratch))
        if made.is_file():
            made.replace(archive)  # whole or not at all: another start may look for it just now
    return archive


def _train(spark: SparkSession, folder: Path) -> None:
    """Make the three tables, merge into them, read and compact one: what the verbs load."""
    for table in TABLES:
        create_table(spark, table, str(folder / table.name), TableDesign((), 720, False, {}))
    paths = {table.name: str(folder / table.name) for table in TABLES}
    ranges = [("1", "2")]
    for run_id in (1, 2):
        merge_instance(spark, paths["instance"], _changes(run_id), ranges, Fence("training", run_id))
        keys = listed_series(spark, [("1", "1.2", "1.2.3")])
        instances = instances_within(read_table(spark, paths["instance"]), ranges, {"1.2"})
        made = summaries(instances_of(instances, keys), keys).localCheckpoint()
        for table, rows in ((SERIES, series_rows(made)), (STUDY, study_rows(made))):
            fence = Fence(f"training {table.name}", run_id)
            merge_rollup(spark, table, paths[table.name], rows, ranges, fence)
    maintain_table(spark, "study", paths["study"], 720, MaintenancePlan(0, 1))
    read_table(spark, paths["study"]).groupBy("patientId").count().orderBy("count").collect()


def _changes(run_id: int) -> Source:
    """The changes of a run: an instance new in each, and one that each changes."""

    def changes(session: SparkSession) -> DataFrame:
        keys = F.lit("1").alias("partitionName"), F.lit("1.2").alias("studyInstanceUid")
        rest = [f.name for f in INSTANCE.columns.fields if f.name not in (*INSTANCE_KEY, "sequence")]
        kinds = {f.name: f.dataType for f in INSTANCE.columns.fields}
        return session.range(run_id + 1).select(
            *keys,
            F.lit("1.2.3").alias("seriesInstanceUid"),
            F.col("id").cast("string").alias("sopInstanceUid"),
            *(F.lit(None).cast(kinds[name]).alias(name) for name in rest),
            F.lit(run_id).cast("long").alias("sequence"),
            F.lit(UPSERT).alias("effect"),
        )

    return changes
