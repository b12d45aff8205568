"""How many living headers of `change` have each tag; which tags a header has, a function that is handed in says."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from dicom_etl.tables.tag_headers import ParseBatches, read_in_small_batches


def tags_seen(entries: DataFrame, live: DataFrame, tags_of: ParseBatches) -> dict[str, int]:
    """Tag to the number of headers with it; ``entries`` of `change`, of which those count whose ``live`` row stands.

    ``tags_of`` makes of ``runId``, ``sequence`` and ``metadata`` the columns ``runId``, ``sequence`` and ``tags`` (with
    a space between). An entry that several runs have read counts once.
    """
    read_in_small_batches(entries.sparkSession)
    newest = entries.groupBy("sequence").agg(F.max("runId").alias("runId"))
    headers = entries.select("runId", "sequence", "metadata").mapInArrow(
        tags_of, "runId long, sequence long, tags string"
    )
    living = headers.join(newest, on=["runId", "sequence"]).join(
        live.select("sequence"), on="sequence", how="left_semi"
    )
    patterns = living.groupBy("tags").agg(F.count(F.lit(1)).alias("headers"))
    tags = patterns.select(F.explode(F.split("tags", " ")).alias("tag"), "headers").where("tag != ''")
    return {
        row["tag"]: int(row["headers"]) for row in tags.groupBy("tag").agg(F.sum("headers").alias("headers")).collect()
    }
