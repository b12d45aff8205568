"""The rows of an archive of any size, made directly: what the three tables hold after the feed's first creates."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from bench.feed import FRACTION, IMAGES, LANES, PER_STUDY, SERIES, START, STEP, instances_of_study, study_day, uids
from dicom_emulator.state.uids import DEFAULT_PARTITION
from dicom_etl.lake.delta.add_file import Statistics

_TEXT, _LONG, _TIME = pa.string(), pa.int64(), pa.timestamp("us", tz="UTC")
_STUDY_VALUES = [("studyDate", pa.date32()), *((name, _TEXT) for name in (
    "studyDescription", "issuerOfPatientId", "patientId", "patientName"
))]  # fmt: skip
_KEY = [(name, _TEXT) for name in ("partitionName", "studyInstanceUid", "seriesInstanceUid", "sopInstanceUid")]
SCHEMAS = {
    "instance": pa.schema([
        *_KEY, ("lastModifiedTimestamp", _TIME), *_STUDY_VALUES,
        *((name, _TEXT) for name in ("modality", "sopClassUid", "filePath")), ("sequence", _LONG),
    ]),
    "series": pa.schema([
        *_KEY[:3], ("lastModifiedTimestamp", _TIME), *_STUDY_VALUES, ("modality", _TEXT), ("instanceCount", _LONG),
    ]),
    "study": pa.schema([
        *_KEY[:2], ("lastModifiedTimestamp", _TIME), *_STUDY_VALUES,
        ("seriesCount", _LONG), ("instanceCount", _LONG), ("modalitiesInStudy", _TEXT),
    ]),
}  # fmt: skip
_MODALITIES = ("CR", "CT", "MR", "US")
_STUDIES_A_TIME = 5_000


def whole_rounds(entries: int) -> int:
    """The most creates, of at most so many, after which no study is incomplete."""
    return entries // (PER_STUDY * LANES) * PER_STUDY * LANES


def archive_rows(table: str, entries: int) -> Iterator[pa.Table]:
    """The rows of a table after so many creates (of whole rounds), by study UID, 900 000 instances at a time."""
    studies = sorted(range(entries // PER_STUDY), key=lambda number: uids(number * SERIES).study)
    make = {"instance": _instances, "series": _series, "study": _studies}[table]
    for first in range(0, len(studies), _STUDIES_A_TIME):
        some = studies[first : first + _STUDIES_A_TIME]
        yield pa.Table.from_pydict(dict(zip(SCHEMAS[table].names, make(some), strict=True)), schema=SCHEMAS[table])


def _instances(studies: Iterable[int]) -> list[list[object]]:
    rows = [row for study in studies for row in _instances_of(study)]
    return [list(column) for column in zip(*rows, strict=True)]


def _instances_of(study: int) -> Iterator[tuple[object, ...]]:
    shared = _shared(study)
    modality = _modality(study)
    for place, instance in enumerate(instances_of_study(study)):
        series = uids(study * SERIES + place // IMAGES).series
        sop = f"{series}.{place % IMAGES + 1}"
        path = f"AHDS/bench/dicom/bench/{DEFAULT_PARTITION}/{instance + 1}.dcm"
        yield (
            DEFAULT_PARTITION, uids(study * SERIES).study, series, sop, _microseconds(instance), *shared,
            modality, "1.2.840.10008.5.1.4.1.1.2", path, instance + 1,
        )  # fmt: skip


def _series(studies: Iterable[int]) -> list[list[object]]:
    rows = []
    for study in studies:
        last = instances_of_study(study)[-1]
        for place in range(SERIES):
            known = uids(study * SERIES + place)
            newest = _microseconds(last - (SERIES - 1 - place) * IMAGES * LANES)
            rows.append(
                (DEFAULT_PARTITION, known.study, known.series, newest, *_shared(study), _modality(study), IMAGES)
            )
    return [list(column) for column in zip(*rows, strict=True)]


def _studies(studies: Iterable[int]) -> list[list[object]]:
    rows = [
        (
            DEFAULT_PARTITION, uids(study * SERIES).study, _microseconds(instances_of_study(study)[-1]),
            *_shared(study), SERIES, PER_STUDY, _modality(study),
        )
        for study in studies
    ]  # fmt: skip
    return [list(column) for column in zip(*rows, strict=True)]


def _shared(study: int) -> tuple[object, ...]:
    """Study date, description, issuer, patient's id and name."""
    day = date.fromisoformat(study_day(study))
    return day, f"Study {study}", "BENCH", f"{study:08d}", f"Bench^{study}"


def _modality(study: int) -> str:
    return _MODALITIES[study % LANES]


def _microseconds(instance: int) -> int:
    return (START + FRACTION + instance * STEP) // 10


def append_by_hand(table: Path, parts: Iterable[pa.Table], statistics: tuple[str, ...]) -> int:
    """Adds the parts to a Delta table, a file each, in one commit; how many rows.

    The commit is written here as text: delta-rs refuses to append to a clustered table, and Spark would take minutes.
    """
    actions: list[dict[str, object]] = []
    rows = 0
    now = time.time_ns() // 1_000_000
    for part in parts:
        path = f"part-bench-{uuid4()}.parquet"
        pq.write_table(part, table / path, compression="zstd")
        add = {
            "path": path,
            "partitionValues": {},
            "size": (table / path).stat().st_size,
            "modificationTime": now,
            "dataChange": True,
            "stats": Statistics.of(part, statistics).json(),
        }
        actions.append({"add": add})
        rows += part.num_rows
    log = table / "_delta_log"
    version = max(int(one.stem) for one in log.glob("*.json") if one.stem.isdigit()) + 1
    info = {"timestamp": now, "operation": "WRITE", "operationParameters": {"mode": "Append"}}
    lines = [json.dumps(action) for action in ({"commitInfo": info}, *actions)]
    (log / f"{version:020d}.json").write_text("\n".join(lines) + "\n")
    return rows
