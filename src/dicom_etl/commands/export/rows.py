"""The rows of a result, through Parquet files: their digest, and one file of them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from typing import Any, BinaryIO, Literal, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

RowsFormat = Literal["parquet", "csv"]
Rows = list[list[Any]]

# What a row group of the result holds at most: readers skip whole ones, and a writer holds one in memory.
_GROUP_ROWS, _GROUP_BYTES = 100_000, 64 << 20


class RowsDigest:
    """The number and the digest of rows, whatever their order: the sum, modulo 2^256, of the SHA-256 of each.

    Of a row the JSON list of its values counts, in UTF-8 without spaces: times as RFC 3339, bytes in hexadecimal.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum = 0

    def add(self, rows: Rows) -> None:
        for row in rows:
            line = json.dumps(row, default=plain_value, ensure_ascii=False, separators=(",", ":"))
            self._sum += int.from_bytes(hashlib.sha256(line.encode("utf-8", "surrogatepass")).digest(), "big")
        self.count += len(rows)

    def hexdigest(self) -> str:
        """64 digits in hexadecimal."""
        return f"{self._sum % (1 << 256):064x}"


def plain_value(value: Any) -> Any:
    """A value that JSON has no word for, as text."""
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    return value.hex() if isinstance(value, bytes) else str(value)


def count_csv(file: BinaryIO) -> int:
    """The rows of a file of ``writer``'s CSV, without its header: a line feed within quotes ends none."""
    rows, quotes = -1, 0
    for line in file:
        quotes += line.count(b'"')
        rows += quotes % 2 == 0
    return rows


def listed(batch: pa.RecordBatch) -> Rows:
    """The rows of a batch as lists of Python's values; columns may have the same name."""
    return [list(row) for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)]


class Writer(Protocol):
    """Writes the rows of a result into one file."""

    def write(self, batch: pa.RecordBatch, rows: Rows) -> None: ...


@contextmanager
def writer(rows_format: RowsFormat, sink: BinaryIO, schema: pa.Schema) -> Iterator[Writer]:
    """What writes rows of ``schema`` to ``sink``, complete when the block ends."""
    if rows_format == "parquet":
        with pq.ParquetWriter(sink, schema, compression="zstd") as parquet:
            rows_to = _Parquet(parquet)
            yield rows_to
            rows_to.flush()
    else:
        text = io.TextIOWrapper(sink, encoding="utf-8", newline="", errors="surrogatepass")
        yield _Csv(text, schema.names)
        text.flush()
        text.detach()


class _Parquet:
    """Gathers batches into row groups."""

    def __init__(self, sink: pq.ParquetWriter) -> None:
        self._sink = sink
        self._group: list[pa.RecordBatch] = []

    def write(self, batch: pa.RecordBatch, rows: Rows) -> None:
        del rows
        if batch.num_rows:
            self._group.append(batch)
        full = sum(one.num_rows for one in self._group) >= _GROUP_ROWS
        if full or sum(one.nbytes for one in self._group) >= _GROUP_BYTES:
            self.flush()

    def flush(self) -> None:
        if self._group:
            self._sink.write_table(pa.Table.from_batches(self._group))
        self._group = []


class _Csv:
    """A header, and "" for null, as `query --format csv` has it; nested values are JSON."""

    def __init__(self, sink: io.TextIOWrapper, names: list[str]) -> None:
        self._csv = csv.writer(sink, lineterminator="\n")
        self._csv.writerow(names)

    def write(self, batch: pa.RecordBatch, rows: Rows) -> None:
        del batch
        self._csv.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, default=plain_value, ensure_ascii=False)
    return str(plain_value(value))
