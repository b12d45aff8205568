"""How Spark is told where a table or a file lies."""

from __future__ import annotations

from collections.abc import Iterable

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from dicom_etl.remote.uri import is_remote


def location(uri: str) -> str:
    """The place as Hadoop takes it: a folder of this machine names its file system, an address is one already.

    A plain path would be looked for in ``fs.defaultFS``, which on a cluster or an edge node is another file system
    than the disk that delta-rs takes. Nothing is encoded: Hadoop takes ``%20`` for three characters of a name. And
    ``file:`` without slashes: with three, Delta's CREATE TABLE finds two different paths (tried with 4.4.0).
    """
    return uri if is_remote(uri) else f"file:{uri}"


def sql_name(uri: str) -> str:
    """The table that lies there, as SQL names it."""
    path = location(uri).replace("`", "``")
    return f"delta.`{path}`"


def read_parquet(spark: SparkSession, schema: StructType | str, paths: Iterable[str]) -> DataFrame:
    """The rows of Parquet files that no table holds, or of folders of them.

    A folder's name may hold what Spark takes for a pattern, such as ``[x]``: the paths are taken as they are, by the
    option that Spark sets where it reads its own tables.
    """
    reader = spark.read.schema(schema).option("__globPaths__", "false")
    return reader.parquet(*map(location, paths))
