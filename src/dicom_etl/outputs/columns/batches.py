"""Arrow batches of headers to Arrow batches of columns, as Spark's Python workers run it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import pyarrow as pa

from dicom_etl.outputs.columns.design import ColumnDesign, design_from_json
from dicom_etl.outputs.columns.parse import HeaderReader

_TYPES = {
    "string": pa.string(),
    "long": pa.int64(),
    "double": pa.float64(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


def batch_parser(design: ColumnDesign) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """From batches of ``runId``, ``sequence`` and ``metadata`` (JSON text) to batches of what the headers hold.

    Columns: ``runId``, ``sequence``, ``headerState``, ``headerQuality`` (a digit of `Outcome` for each column of the
    design), and those of the design. It is sent to other processes, and so holds text alone.
    """
    return partial(_parsed, design.to_json())


def _parsed(design: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    schema, reader = _reader(design)
    for batch in batches:
        if batch.num_rows:
            yield _columns(batch, schema, reader)


# A worker outlives its tasks; what reads a header takes longer to make than a window has headers to read.
@lru_cache(maxsize=2)
def _reader(design: str) -> tuple[pa.Schema, HeaderReader]:
    made_of = design_from_json(design)
    fixed = {"runId": pa.int64(), "sequence": pa.int64(), "headerState": pa.string(), "headerQuality": pa.string()}
    own = {column.name: _TYPES[column.type] for column in made_of.columns}
    return pa.schema([*fixed.items(), *own.items()]), HeaderReader(made_of)


def _columns(batch: pa.RecordBatch, schema: pa.Schema, reader: HeaderReader) -> pa.RecordBatch:
    headers = [reader.read(text) for text in batch["metadata"].to_pylist()]
    states = [header.state.value for header in headers]
    quality = ["".join(map(str, map(int, header.outcomes))) for header in headers]
    values = zip(*(header.values for header in headers), strict=True)
    lists = [states, quality, *values]
    arrays = [pa.array(one, field.type) for one, field in zip(lists, list(schema)[2:], strict=True)]
    return pa.record_batch([batch["runId"], batch["sequence"], *arrays], schema=schema)
