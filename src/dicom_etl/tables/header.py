"""The view ``header``: each living instance with the header that its row was made from."""

from __future__ import annotations

from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

from dicom_etl.core.attributes import INSTANCE_KEY

# What the view has beside the columns of `instance`.
COLUMNS = ("runId", "metadata")


def headers(instances: DataFrame, changes: DataFrame) -> DataFrame:
    """The rows and columns of ``instances``, then ``runId`` and ``metadata`` of the entry of each in ``changes``.

    An entry may stand in ``changes`` several times, once for each run that read it: a reading with a header is taken
    before one without, then that of the highest ``runId``. A reading that found the entry Replaced is none: the service
    gives the header of the newer entry there. Both columns are null where ``changes`` holds no such reading, as after a
    purge or for adopted rows. A column of ``instances`` that has the name of one of them (of an adopted table) is left
    out.
    """
    key = [*INSTANCE_KEY, "sequence"]
    # Partitioned by the whole key, so that a condition on a study is applied before the headers are sorted.
    newest = Window.partitionBy(*key).orderBy(F.col("metadata").isNull().asc(), F.col("runId").desc())
    readings = changes.where(F.col("state") == "Current").select(*key, *COLUMNS)
    best = readings.withColumn("_place", F.row_number().over(newest)).where(F.col("_place") == 1).drop("_place")
    own = instances.drop(*COLUMNS)
    return own.join(best, on=key, how="left").select(*own.columns, *COLUMNS)
