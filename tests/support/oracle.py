"""What the tables must hold, in plain Python and with none of the product's code.

design/architecture.md: Tables, Fold, Accounting.

The truth is the emulator's own store: its live instances, and for the accounting the rows of its feed.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from dicom_emulator.state.service import DicomService

Row = dict[str, Any]
Tables = dict[str, list[Row]]

INSTANCE_KEY = ("partitionName", "studyInstanceUid", "seriesInstanceUid", "sopInstanceUid")
KEYS = {"instance": INSTANCE_KEY, "series": INSTANCE_KEY[:3], "study": INSTANCE_KEY[:2]}

# Word for word: the columns of each table in their order.
COLUMNS = {
    "instance": [
        "partitionName", "studyInstanceUid", "seriesInstanceUid", "sopInstanceUid", "lastModifiedTimestamp",
        "studyDate", "studyDescription", "issuerOfPatientId", "patientId", "patientName", "modality", "sopClassUid",
        "filePath", "sequence",
    ],
    "series": [
        "partitionName", "studyInstanceUid", "seriesInstanceUid", "lastModifiedTimestamp", "studyDate",
        "studyDescription", "issuerOfPatientId", "patientId", "patientName", "modality", "instanceCount",
    ],
    "study": [
        "partitionName", "studyInstanceUid", "lastModifiedTimestamp", "studyDate", "studyDescription",
        "issuerOfPatientId", "patientId", "patientName", "seriesCount", "instanceCount", "modalitiesInStudy",
    ],
}  # fmt: skip

_TAGS = {
    "studyDate": "00080020",
    "studyDescription": "00081030",
    "issuerOfPatientId": "00100021",
    "patientId": "00100020",
    "patientName": "00100010",
    "modality": "00080060",
    "sopClassUid": "00080016",
}
_STUDY_ATTRIBUTES = ("studyDate", "studyDescription", "issuerOfPatientId", "patientId", "patientName")
_SERIES_ATTRIBUTES = (*_STUDY_ATTRIBUTES, "modality")


def moment(ticks: int) -> datetime:
    """Ticks of 100 ns since 1970 as UTC, cut to microseconds."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ticks // 10)


def expected_tables(service: DicomService) -> Tables:
    """The three tables as they must be when the whole feed has been read, each sorted by its key."""
    return tables_of([instance_row(live) for live in service.live_instances()])


def instance_row(live: Any) -> Row:
    """The row of one live instance."""
    metadata = json.loads(live.metadata, parse_int=str, parse_float=str)
    return {
        **dict(zip(INSTANCE_KEY, live.key, strict=True)),
        "lastModifiedTimestamp": moment(live.ticks),
        **{column: _value(column, metadata.get(tag)) for column, tag in _TAGS.items()},
        "filePath": live.file_path,
        "sequence": live.sequence,
    }


def _value(column: str, element: Any) -> str | date | None:
    values = element.get("Value") if isinstance(element, dict) else None
    first = values[0] if isinstance(values, list) and values else None
    if column == "patientName" and isinstance(first, dict):
        first = first.get("Alphabetic")
    text = (first.strip(" \0") if isinstance(first, str) else "") or None
    if column != "studyDate" or text is None:
        return text
    try:
        return datetime.strptime(text, "%Y%m%d").date() if len(text) == 8 and text.isdecimal() else None  # noqa: DTZ007
    except ValueError:
        return None


def tables_of(instances: Iterable[Row]) -> Tables:
    """The three tables, given the rows of ``instance``."""
    instances = list(instances)
    series, study = defaultdict(list), defaultdict(list)
    for row in instances:
        series[tuple(row[name] for name in KEYS["series"])].append(row)
        study[tuple(row[name] for name in KEYS["study"])].append(row)
    return {
        "instance": by_key("instance", instances),
        "series": by_key("series", [_series_row(key, rows) for key, rows in series.items()]),
        "study": by_key("study", [_study_row(key, rows) for key, rows in study.items()]),
    }


def _series_row(key: tuple[str, ...], rows: list[Row]) -> Row:
    return {
        **dict(zip(KEYS["series"], key, strict=True)),
        "lastModifiedTimestamp": max(row["lastModifiedTimestamp"] for row in rows),
        **{name: _latest(rows, name) for name in _SERIES_ATTRIBUTES},
        "instanceCount": len(rows),
    }


def _study_row(key: tuple[str, ...], rows: list[Row]) -> Row:
    modalities = sorted({row["modality"] for row in rows if row["modality"] is not None})
    return {
        **dict(zip(KEYS["study"], key, strict=True)),
        "lastModifiedTimestamp": max(row["lastModifiedTimestamp"] for row in rows),
        **{name: _latest(rows, name) for name in _STUDY_ATTRIBUTES},
        "seriesCount": len({row["seriesInstanceUid"] for row in rows}),
        "instanceCount": len(rows),
        "modalitiesInStudy": "\\".join(modalities) or None,
    }


def _latest(rows: list[Row], name: str) -> Any:
    """The value of the latest row that has one."""
    having = [row for row in rows if row[name] is not None]
    order = ("lastModifiedTimestamp", "sequence", "seriesInstanceUid", "sopInstanceUid")
    return max(having, key=lambda row: tuple(row[part] for part in order))[name] if having else None


def by_key(table: str, rows: Iterable[Row]) -> list[Row]:
    """The rows sorted by the table's key."""
    return sorted(rows, key=lambda row: tuple(row[name] for name in KEYS[table]))


def digest(instances: Iterable[Row]) -> str:
    """SHA-256 of the sorted lines partition TAB study TAB series TAB sop TAB sequence TAB filePath LF.

    design/architecture.md: Comparison and repair.
    """
    lines = sorted(
        "\t".join("" if row[name] is None else str(row[name]) for name in (*INSTANCE_KEY, "sequence", "filePath"))
        + "\n"
        for row in instances
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


_ACTIONS = {"create", "update", "delete"}


def accounting(
    entries: Iterable[Any],
    stored: Mapping[tuple[str, ...], Row],
    made: Callable[[Any], Row],
    unusable: Iterable[int] = (),
    closed: Iterable[int] = (),
) -> Counter[str]:
    """What must become of each entry that a run reads, counted (read is the sum).

    ``entries`` are rows of the feed as they were when they were read; ``stored`` the rows of ``instance`` before the
    run, by key; ``made`` gives the row that an entry makes; ``unusable`` are the sequences without metadata that can
    be used, ``closed`` those of rejects that are void.
    """
    rows = list(entries)
    last: dict[tuple[str, ...], int] = {}
    for row in rows:
        last[tuple(row.key)] = max(row.sequence, last.get(tuple(row.key), 0))
    fates = {
        row.sequence: "superseded"
        if last[tuple(row.key)] != row.sequence
        else _fate(row, stored.get(tuple(row.key)), made, row.sequence in set(unusable))
        for row in rows
    }
    return Counter(
        "superseded" if fate == "rejected" and sequence in set(closed) else fate for sequence, fate in fates.items()
    )


def _fate(row: Any, stored: Row | None, made: Callable[[Any], Row], unusable: bool) -> str:
    refused = stored is not None and stored["sequence"] is not None and stored["sequence"] > row.sequence
    if row.state == "Deleted":
        return "deleted" if stored is not None and not refused else "superseded"
    if row.state == "Replaced":
        return "superseded"
    if unusable or (row.action or "").lower() not in _ACTIONS:
        return "rejected"
    if stored is None:
        return "inserted"
    equal = stored["sequence"] == row.sequence and made(row) == {name: stored[name] for name in COLUMNS["instance"]}
    return "superseded" if refused or equal else "updated"
