"""A lake whose tables are written without Spark, run by run: what `sync` and `columns` would leave of a local service.

For tests of what is made of the tables. That `sync` and `columns` do leave this, their own tests show.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from dicom_emulator.state.service import DicomService
from dicom_etl.core.attributes import INSTANCE_KEY, SERIES_KEY, STUDY_KEY
from dicom_etl.core.settings.load import load_settings
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake import ledger
from dicom_etl.lake.change_schema import change_schema
from dicom_etl.lake.delta.commit import append_rows
from dicom_etl.lake.delta.table import create_table
from dicom_etl.lake.lake_id import service_fingerprint
from dicom_etl.lake.open import init_lake
from dicom_etl.lake.paths import lake_paths
from dicom_etl.lake.snapshot import opened
from dicom_etl.outputs import execution
from dicom_etl.outputs.columns.batches import batch_parser
from dicom_etl.outputs.columns.design import ColumnDesign, design_of
from dicom_etl.outputs.execution import Execution
from support.oracle import Row, instance_row, moment, tables_of

SERVICE = "https://ws-svc.dicom.azurehealthcareapis.com"
_TEXT, _LONG, _TIME = pa.string(), pa.int64(), pa.timestamp("us", tz="UTC")
_TYPES = {"string": _TEXT, "long": _LONG, "double": pa.float64(), "date": pa.date32(), "timestamp": _TIME}
_TAGS = ("instance_tags", "series_tags", "study_tags")
_DESIGN, _SETTLE = "dicomEtl.columns", "dicomEtl.settle"


class HandmadeLake:
    """A lake in ``folder`` before ``service``; ``run`` leaves it as a sync at that moment would, with tag tables."""

    def __init__(self, folder: Path, service: DicomService, *settings: str, design: ColumnDesign | None = None) -> None:
        self.folder, self.service = folder, service
        self.design = design or design_of(())
        self.texts = (f"dicom.base_url={SERVICE}", f"lake.root={folder / 'lake'}", *settings)
        self.lake, _ = init_lake(lake_paths(self.settings), service_fingerprint(SERVICE))
        self.runs = 0
        self._read: set[int] = set()
        self._parse = batch_parser(self.design)

    @property
    def settings(self) -> Settings:
        return self.having()

    def having(self, *overrides: str) -> Settings:
        """The settings with these besides."""
        return load_settings(overrides=[*self.texts, *overrides], environment={}, folder=self.folder)

    def run(self, now: datetime, *, mode: execution.Mode | None = None, columns: bool = True) -> int:
        """The id of a run that has read all entries by now, and merged them; the tag tables follow unless told not to.

        ``mode`` is that of the execution of `columns`: the first computes everything.
        """
        self.runs += 1
        change = self._landed(now)
        live = self.service.live_instances()
        tables = tables_of([instance_row(one) for one in live])
        for name, rows in tables.items():
            self._overwritten(name, rows, _FIXED[name], {})
        self._run_recorded(now, change)
        if columns:
            self._followed(now, mode or ("full" if self.runs == 1 else "changed"), live)
        return self.runs

    def recorded(self, now: datetime, mode: execution.Mode = "changed") -> None:
        """A run and an execution of `columns` that left the tables as they stand."""
        self.runs += 1
        self._run_recorded(now, self._version("change"))
        self._execution_recorded(now, mode)

    def _version(self, name: str) -> int:
        return int(DeltaTable(self.lake.path(name)).version())

    def _run_recorded(self, now: datetime, change: int) -> None:
        versions = {name: self._version(name) for name in ("instance", "series", "study")}
        row = ledger.Run(
            run_id=self.runs, verb="sync", status="succeeded", started_at=now, finished_at=now,
            change_version=change, instance_version=versions["instance"], series_version=versions["series"],
            study_version=versions["study"],
        )  # fmt: skip
        run = opened(self.lake.paths, "run")
        assert run is not None
        ledger.record(run, row, self.lake.identity, self.lake.folder("run"))

    def _landed(self, now: datetime) -> int:
        """The version of `change` that has the entries not read yet."""
        headers = {one.sequence: one.metadata.decode() for one in self.service.live_instances()}
        rows = [
            {
                "runId": self.runs,
                "readAt": now,
                "sequence": row.sequence,
                "timestamp": moment(row.ticks),
                "timestampTicks": row.ticks,
                **dict(zip(INSTANCE_KEY, row.key, strict=True)),
                "action": row.action,
                "state": row.state,
                "filePath": row.file_path,
                "metadata": headers.get(row.sequence),
            }
            for row in self.service.history.window(0, 10**18, 0, 10**9)
            if row.sequence not in self._read
        ]
        self._read |= {row["sequence"] for row in rows}
        change = opened(self.lake.paths, "change")
        assert change is not None
        if not rows:
            return int(change.version())
        table = pa.Table.from_pylist(rows, schema=change_schema())
        folder = self.lake.folder("change")
        return append_rows(
            change, table, app_id=self.lake.app_id("change"), run_id=self.runs, details={}, folder=folder
        )

    def _followed(self, now: datetime, mode: execution.Mode, live: Sequence[Any]) -> None:
        """The tag tables, and the row of the execution that wrote them."""
        properties = {_DESIGN: self.design.to_json(), _SETTLE: str(30 * 60 * 1_000_000)}
        for name, rows in zip(_TAGS, self._tags(live), strict=True):
            self._overwritten(name, rows, self._tag_schema(name), properties)
        self._execution_recorded(now, mode)

    def _execution_recorded(self, now: datetime, mode: execution.Mode) -> None:
        versions = {name: self._version(name) for name in _TAGS}
        execution.record(
            self.lake,
            Execution(
                output="columns", execution_id=self.runs, mode=mode, status="succeeded", from_run=self.runs - 1,
                to_run=self.runs, started_at=now, finished_at=now, versions=versions, design_digest=self.design.digest,
            ),
        )  # fmt: skip

    def _tags(self, live: Sequence[Any]) -> tuple[list[Row], list[Row], list[Row]]:
        headers = pa.record_batch(
            {
                "runId": [self.runs] * len(live),
                "sequence": [one.sequence for one in live],
                "metadata": [one.metadata.decode() for one in live],
            }
        )
        parsed = [row for batch in self._parse(iter([headers])) for row in batch.to_pylist()] if live else []
        instances = [
            {**instance_row(one), **row, "createdSequence": one.sequence} for one, row in zip(live, parsed, strict=True)
        ]
        return instances, self._rolled(instances, SERIES_KEY, "series"), self._rolled(instances, STUDY_KEY, "study")

    def _rolled(self, instances: Iterable[Row], key: Sequence[str], level: Any) -> list[Row]:
        """The latest value that is not null, by time, sequence and key."""
        by_key: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for row in instances:
            by_key[tuple(row[name] for name in key)].append(row)
        return [
            dict(zip(key, values, strict=True))
            | {column.name: _latest(rows, column.name) for column in self.design.at(level)}
            for values, rows in by_key.items()
        ]

    def _tag_schema(self, name: str) -> pa.Schema:
        level: Any = name.removesuffix("_tags")
        own = {"lastModifiedTimestamp": _TIME, "sequence": _LONG} if level == "instance" else {}
        columns = {column.name: _TYPES[column.type] for column in self.design.at(level)}
        return pa.schema([*dict.fromkeys(_KEYS[level], _TEXT).items(), *own.items(), *columns.items()])

    def _overwritten(self, name: str, rows: Iterable[Row], schema: pa.Schema, told: Mapping[str, str]) -> None:
        names = set(schema.names)
        table = pa.Table.from_pylist([{k: v for k, v in row.items() if k in names} for row in rows], schema=schema)
        path = self.lake.path(name)
        if opened(self.lake.paths, name) is None:
            create_table(path, schema, name=name, properties={**self.lake.identity.properties, **told})
        write_deltalake(path, table, mode="overwrite")


def _latest(rows: Iterable[Row], name: str) -> Any:
    having = [row for row in rows if row[name] is not None]
    order = ("lastModifiedTimestamp", "sequence", "seriesInstanceUid", "sopInstanceUid")
    return max(having, key=lambda row: tuple(row[part] for part in order))[name] if having else None


_KEYS = {"instance": INSTANCE_KEY, "series": SERIES_KEY, "study": STUDY_KEY}
_STUDY = [("studyDate", pa.date32())] + [
    (name, _TEXT) for name in ("studyDescription", "issuerOfPatientId", "patientId", "patientName")
]
_MODIFIED = ("lastModifiedTimestamp", _TIME)
_FIXED = {
    "instance": pa.schema(
        [
            *dict.fromkeys(INSTANCE_KEY, _TEXT).items(), _MODIFIED, *_STUDY, ("modality", _TEXT),
            ("sopClassUid", _TEXT), ("filePath", _TEXT), ("sequence", _LONG),
        ]
    ),
    "series": pa.schema(
        [*dict.fromkeys(SERIES_KEY, _TEXT).items(), _MODIFIED, *_STUDY, ("modality", _TEXT), ("instanceCount", _LONG)]
    ),
    "study": pa.schema(
        [
            *dict.fromkeys(STUDY_KEY, _TEXT).items(), _MODIFIED, *_STUDY, ("seriesCount", _LONG),
            ("instanceCount", _LONG), ("modalitiesInStudy", _TEXT),
        ]
    ),
}  # fmt: skip
