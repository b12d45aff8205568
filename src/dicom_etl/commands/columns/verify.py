"""Compares tag columns with the headers that the service has now, for instances taken at random; needs no Spark."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from dicom_etl.commands.columns.served import HeaderService, Key
from dicom_etl.core.attributes import INSTANCE_KEY
from dicom_etl.core.errors import DataError, ServiceUnavailable
from dicom_etl.core.progress import NullProgress, Progress
from dicom_etl.core.settings.model import Settings
from dicom_etl.dicomweb.connect import connect
from dicom_etl.lake.delta.table import iterate_rows, read_rows
from dicom_etl.lake.open import existing_lake
from dicom_etl.outputs.columns.design import ColumnDesign
from dicom_etl.outputs.stored_tags import stored_tags
from dicom_etl.remote.http.client import HttpClient
from dicom_etl.remote.identity import dicom_tokens

# The rows that are compared at a time, so that a large sample fits into memory.
_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class ColumnsVerification:
    """How many of the rows were compared, and what came of it; ``columns`` counts differing rows by column.

    ``gone`` are instances that the service does not have. A row differs, too, where its instance was changed since the
    last sync: only a comparison after the next one tells. Rows without a header are not taken.
    """

    compared: int
    equal: int
    differing: int
    gone: int
    columns: Mapping[str, int]

    def as_row(self) -> dict[str, Any]:
        """By name, as a command prints it; no values and no keys."""
        return {
            "compared": self.compared,
            "equal": self.equal,
            "differing": self.differing,
            "gone": self.gone,
            "columnDifferences": dict(self.columns),
        }


def verify_columns(settings: Settings, rows: int, *, progress: Progress | None = None) -> ColumnsVerification:
    """The comparison of up to so many rows of `instance_tags` with the service of the settings; as ``verify_with``."""
    with connect(settings.dicom, dicom_tokens(settings.dicom)) as client:
        return verify_with(client, settings, rows, random=Random(), progress=progress or NullProgress())  # noqa: S311


def verify_with(
    client: HttpClient, settings: Settings, rows: int, *, random: Random, progress: Progress
) -> ColumnsVerification:
    """The comparison of up to so many rows of `instance_tags`, each as likely as the others.

    Raises DataError without tag tables, ServiceUnavailable when headers cannot be had, else as ``HttpClient.send``.
    """
    stored = stored_tags(existing_lake(settings, private=False).lake)
    design, table = stored.design, stored.tables.get("instance_tags")
    if design is None or table is None:
        raise DataError("there are no tag tables, or they are half made: run dicom-etl columns update")
    progress.step("choose rows")
    keys = _sample(table, rows, random)
    progress.step("ask the service for headers")
    return _compared(client, settings, (table, design), keys)


def _sample(table: DeltaTable, rows: int, random: Random) -> list[Key]:
    """The keys of rows with a header, all equally likely; only as many are held (reservoir sampling)."""
    chosen: list[Key] = []
    seen = 0
    for batch in iterate_rows(table, INSTANCE_KEY, pc.field("headerState") == "ok"):
        for at in range(batch.num_rows):
            place = len(chosen) if len(chosen) < rows else random.randrange(seen + 1)
            seen += 1
            if place < rows:
                key = _key([column[at].as_py() for column in batch.columns])
                chosen[place : place + 1] = [key]
    return sorted(chosen)


def _compared(
    client: HttpClient, settings: Settings, tables: tuple[DeltaTable, ColumnDesign], keys: Sequence[Key]
) -> ColumnsVerification:
    table, design = tables
    names = ["headerState", *(column.name for column in design.columns)]
    service = HeaderService(client, design, settings.dicom.connections)
    counts: Counter[str] = Counter()
    columns: Counter[str] = Counter()
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        served = service.ask(some)
        if served.failing:
            raise ServiceUnavailable("the service does not give the headers of all instances; run again later")
        held = _by_key(_stored_rows(table, names, some), names)
        now = _by_key(served.rows, names)
        for key, values in now.items():
            different = [name for name, a, b in zip(names, held[key], values, strict=True) if not _same(a, b)]
            counts["differing" if different else "equal"] += 1
            columns.update(different)
        counts["gone"] += len(served.gone)
    in_order = {name: columns[name] for name in names if columns[name]}
    return ColumnsVerification(len(keys), counts["equal"], counts["differing"], counts["gone"], in_order)


def _stored_rows(table: DeltaTable, names: Sequence[str], keys: Sequence[Key]) -> pa.Table:
    """The rows of these keys; files and row groups of other studies are not read."""
    studies, instances = pa.array(sorted({key[1] for key in keys})), pa.array(sorted({key[3] for key in keys}))
    only = pc.field("studyInstanceUid").isin(studies) & pc.field("sopInstanceUid").isin(instances)
    return read_rows(table, [*INSTANCE_KEY, *names], only)


def _by_key(rows: pa.Table, names: Sequence[str]) -> dict[Key, tuple[Any, ...]]:
    keys = zip(*(rows[name].to_pylist() for name in INSTANCE_KEY), strict=True)
    values = zip(*(rows[name].to_pylist() for name in names), strict=True)
    return dict(zip(map(_key, keys), values, strict=True))


def _key(values: Sequence[str]) -> Key:
    partition, study, series, sop = values
    return partition, study, series, sop


def _same(one: Any, other: Any) -> bool:
    both = isinstance(one, float) and isinstance(other, float)
    return one == other or (both and math.isnan(one) and math.isnan(other))
