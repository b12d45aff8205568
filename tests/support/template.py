"""Tables as the Data Factory template writes them, its ghosts and nulls included.

design/service-protocol.md: Data Factory template.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import write_deltalake

_TIME, _LONG = pa.timestamp("us", tz="UTC"), pa.int64()
_ATTRIBUTES = ("studyDescription", "issuerOfPatientId", "patientId", "patientName")

# As the template has them: no sequence, no modalitiesInStudy.
SCHEMAS = {
    "instance": pa.schema(
        [
            *(
                (name, pa.string())
                for name in ("partitionName", "studyInstanceUid", "seriesInstanceUid", "sopInstanceUid")
            ),
            ("lastModifiedTimestamp", _TIME),
            ("studyDate", pa.date32()),
            *((name, pa.string()) for name in (*_ATTRIBUTES, "modality", "sopClassUid", "filePath")),
        ]
    ),
    "series": pa.schema(
        [
            *((name, pa.string()) for name in ("partitionName", "studyInstanceUid", "seriesInstanceUid")),
            ("lastModifiedTimestamp", _TIME),
            ("studyDate", pa.date32()),
            *((name, pa.string()) for name in (*_ATTRIBUTES, "modality")),
            ("instanceCount", _LONG),
        ]
    ),
    "study": pa.schema(
        [
            *((name, pa.string()) for name in ("partitionName", "studyInstanceUid")),
            ("lastModifiedTimestamp", _TIME),
            ("studyDate", pa.date32()),
            *((name, pa.string()) for name in _ATTRIBUTES),
            ("seriesCount", _LONG),
            ("instanceCount", _LONG),
        ]
    ),
}


def write_template_table(root: Path, name: str, rows: Iterable[dict[str, Any]]) -> None:
    """One of the three tables with these rows, what they leave out being null; Hive-partitioned by partitionName."""
    schema = SCHEMAS[name]
    table = pa.table([pa.array([row.get(f.name) for row in rows], f.type) for f in schema], schema=schema)
    write_deltalake(root / name, table, mode="append", partition_by=["partitionName"])
