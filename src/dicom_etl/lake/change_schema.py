"""The columns of ``change`` and the properties it is made with (design/architecture.md: Tables)."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from dicom_etl.core.attributes import ATTRIBUTES, Attribute
from dicom_etl.lake.delta.table import STATISTICS_PROPERTY

TIMESTAMP = pa.timestamp("us", tz="UTC")

# The key of `change`, and nothing that belongs to a patient: bounds stand in the Delta log and in the Parquet
# footers in clear.
STATISTICS_COLUMNS: tuple[str, ...] = ("runId", "sequence")

CHANGE_PROPERTIES: dict[str, str] = {STATISTICS_PROPERTY: ",".join(STATISTICS_COLUMNS)}


def change_schema(attributes: Sequence[Attribute] = ATTRIBUTES) -> pa.Schema:
    """One row per entry and run; key runId, sequence; ``metadata`` last.

    Plain types only, so that Spark, delta-rs, Polars and DuckDB read the table alike.
    """
    return pa.schema(
        [
            ("runId", pa.int64()),
            ("readAt", TIMESTAMP),
            ("sequence", pa.int64()),
            ("timestamp", TIMESTAMP),
            ("timestampTicks", pa.int64()),
            ("partitionName", pa.string()),
            ("studyInstanceUid", pa.string()),
            ("seriesInstanceUid", pa.string()),
            ("sopInstanceUid", pa.string()),
            ("action", pa.string()),
            ("state", pa.string()),
            ("filePath", pa.string()),
            *((a.column, pa.date32() if a.is_date else pa.string()) for a in attributes),
            ("metadata", pa.string()),
        ]
    )
