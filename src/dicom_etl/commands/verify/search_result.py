"""What the service's search holds, as files of studies with their counts and of instances.

design/architecture.md: Comparison and repair.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession

from dicom_etl.commands.verify.scratch import Scratch
from dicom_etl.core.attributes import DEFAULT_PARTITION, INSTANCE_KEY, STUDY_KEY
from dicom_etl.core.errors import AccessDenied, ConfigurationError, ProtocolError
from dicom_etl.dicomweb.retrieve import gone_instances
from dicom_etl.dicomweb.search import partitions
from dicom_etl.dicomweb.study_search import INSTANCE_KEYS, STUDY_COUNTS, instances_of_studies, study_counts
from dicom_etl.remote.http.client import HttpClient
from dicom_etl.tables.engine.frames import local_rows
from dicom_etl.tables.engine.location import read_parquet

Key = tuple[str, str, str, str]
# What a search or a retrieval answers that this identity may not make, or the service does not offer.
_REFUSALS = (AccessDenied, ConfigurationError, ProtocolError)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The studies that the search holds in ``partitions``, each with its number of instances.

    ``file`` has the columns of STUDY_COUNTS. ``complete``: no study can be missing in it. ``named``: the service has
    partitions. ``refused`` says why the search could not be asked; then there is no file.
    """

    file: str | None = None
    partitions: tuple[str, ...] = ()
    named: bool = False
    complete: bool = False
    studies: int = 0
    refused: str | None = None

    @property
    def usable(self) -> bool:
        return self.refused is None

    def counts(self, spark: SparkSession) -> DataFrame:
        """partitionName, studyInstanceUid, instances; a study that changed meanwhile may stand there twice."""
        return _read(spark, [] if self.file is None else [self.file], STUDY_COUNTS)

    def partition(self, name: str) -> str | None:
        """The partition as the service is asked for it."""
        return name if self.named else None


def search_studies(client: HttpClient, folder: Scratch, connections: int) -> SearchResult:
    """The studies of all partitions, or why the search cannot be asked."""
    try:
        names = partitions(client)
        everywhere: list[str | None] = [None] if names is None else [*names]
        with _Writer(folder, "studies.parquet", STUDY_COUNTS) as file:
            counted = [study_counts(client, one, connections=connections, sink=file.write) for one in everywhere]
    except _REFUSALS as error:
        return SearchResult(refused=str(error))
    return SearchResult(
        file=folder.path(file.name),
        partitions=tuple(one or DEFAULT_PARTITION for one in everywhere),
        named=names is not None,
        complete=all(one.complete for one in counted),
        studies=file.rows,
    )


def held_instances(
    client: HttpClient, folder: Scratch, search: SearchResult, studies: DataFrame, *, connections: int
) -> tuple[SearchResult, DataFrame]:
    """The keys of the instances that the search holds of these studies, each study asked by itself.

    ``studies`` has STUDY_KEY; those in partitions that are not searched have none. Without a usable search there is
    no key; the search comes back refused when it refuses now.
    """
    spark = studies.sparkSession
    if not search.usable:
        return search, _read(spark, [], INSTANCE_KEYS)
    try:
        with _Writer(folder, f"instances-{uuid4()}.parquet", INSTANCE_KEYS) as file:
            for partition in search.partitions:
                uids = (row[1] for row in studies.where(studies[STUDY_KEY[0]] == partition).toLocalIterator())
                asked = search.partition(partition)
                for batch in instances_of_studies(client, asked, uids, connections=connections):
                    file.write(batch)
    except _REFUSALS as error:
        return replace(search, refused=str(error)), _read(spark, [], INSTANCE_KEYS)
    return search, _read(spark, [folder.path(file.name)], INSTANCE_KEYS)


@dataclass(frozen=True, slots=True)
class KeyFile:
    """Keys of instances in a file, each once, that any session can read; no file holds no key.

    ``refused`` says why the service could not be asked for them.
    """

    path: str | None = None
    rows: int = 0
    refused: str | None = None

    def keys(self, spark: SparkSession) -> DataFrame:
        """The keys: INSTANCE_KEY."""
        return _read(spark, [] if self.path is None else [self.path], INSTANCE_KEYS)


def proven_gone(
    client: HttpClient, folder: Scratch, search: SearchResult, keys: DataFrame, *, connections: int
) -> KeyFile:
    """Those of the distinct ``keys`` whose metadata the service answers with 404: it does not have them.

    A service that refuses to answer proves nothing, and neither does a 404 of one that cannot be searched: what stands
    in its place may answer so to everything.
    """
    if not search.usable:
        return KeyFile(refused=search.refused)
    try:
        with _Writer(folder, f"instances-{uuid4()}.parquet", INSTANCE_KEYS) as file:
            for partition in search.partitions:
                rows = keys.where(keys[INSTANCE_KEY[0]] == partition).select(*INSTANCE_KEY[1:]).toLocalIterator()
                uids = ((row[0], row[1], row[2]) for row in rows)
                gone = gone_instances(client, search.partition(partition), uids, connections=connections)
                file.write_keys((partition, *key) for key in gone)
    except _REFUSALS as error:
        return KeyFile(refused=str(error))
    return KeyFile(folder.path(file.name), file.rows)


def _read(spark: SparkSession, files: list[str], schema: pa.Schema) -> DataFrame:
    types = {field.name: "long" if field.type == pa.int64() else "string" for field in schema}
    if not files:
        return local_rows(spark, [], **types)
    return read_parquet(spark, ", ".join(f"{name} {kind}" for name, kind in types.items()), files)


class _Writer:
    """One Parquet file of keys, written as they come; a context manager. ``rows`` counts them."""

    _ROWS_PER_BATCH = 10_000

    def __init__(self, folder: Scratch, name: str, schema: pa.Schema) -> None:
        self.name = name
        self.rows = 0
        self._schema = schema
        self._sink = folder.folder.create(name)
        self._parquet = pq.ParquetWriter(self._sink, schema, compression="zstd")

    def write(self, batch: pa.RecordBatch) -> None:
        self._parquet.write_batch(batch)
        self.rows += batch.num_rows

    def write_keys(self, keys: Iterable[Key]) -> None:
        rest = iter(keys)
        while batch := list(islice(rest, self._ROWS_PER_BATCH)):
            columns = [pa.array(values, pa.string()) for values in zip(*batch, strict=True)]
            self.write(pa.RecordBatch.from_arrays(columns, schema=self._schema))

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._parquet.close()
        self._sink.close()
