"""Keys of instances in one Parquet file, written as they come (architecture §6, verify)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from dicom_etl.attributes import INSTANCE_KEY
from dicom_etl.deltalog import TableFolder

_SCHEMA = pa.schema([(name, pa.string()) for name in INSTANCE_KEY])
_ROWS_PER_GROUP = 10_000


def write_keys(folder: TableFolder, name: str, keys: Iterable[tuple[str, str, str, str]]) -> int:
    """How many keys (partition, study, series, SOP instance) the new file ``name`` holds; one batch is in memory."""
    written = 0
    with folder.create(name) as sink, pq.ParquetWriter(sink, _SCHEMA, compression="zstd") as parquet:
        rest = iter(keys)
        while batch := list(islice(rest, _ROWS_PER_GROUP)):
            columns = [pa.array(values, pa.string()) for values in zip(*batch, strict=True)]
            parquet.write_table(pa.Table.from_arrays(columns, schema=_SCHEMA))
            written += len(batch)
    return written
