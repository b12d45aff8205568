"""Which standard tags the headers have, as Spark's Python workers find them, for the set ``all``."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from dicom_etl.outputs.columns.parse import top_level_tags

SCHEMA = pa.schema([("runId", pa.int64()), ("sequence", pa.int64()), ("tags", pa.string())])
BETWEEN = " "


def tags_of_headers(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """From batches of ``runId``, ``sequence`` and ``metadata`` to those of SCHEMA.

    ``tags`` are the header's own standard ones in order, with a space between: headers of one device are alike, so
    few texts are left where they are counted. Private tags, of which there is no end, are left out.
    """
    for batch in batches:
        texts = [_standard(text) for text in batch["metadata"].to_pylist()]
        yield pa.record_batch([batch["runId"], batch["sequence"], pa.array(texts, pa.string())], schema=SCHEMA)


def _standard(metadata: str | None) -> str:
    tags = top_level_tags(metadata) if metadata else ()
    return BETWEEN.join(sorted(tag for tag in tags if _is_standard(tag)))


def _is_standard(tag: str) -> bool:
    return len(tag) == 8 and tag.isalnum() and tag.isascii() and tag[3] in "02468ACEace"
