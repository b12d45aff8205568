"""A local DICOM service in a thread, and the lake that is kept equal to it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from dicom_emulator.serve import Emulator
from dicom_emulator.state.service import DicomService
from dicom_etl.commands.sync import sync
from dicom_etl.commands.sync_request import request
from dicom_etl.core.settings.load import load_settings
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake.delta.table import open_table
from dicom_etl.lake.lake_id import service_fingerprint
from dicom_etl.lake.ledger import Run
from dicom_etl.lake.open import init_lake
from dicom_etl.lake.paths import lake_paths
from dicom_etl.remote.storage import Storage
from support.accounted import check_accounting, dataset_of
from support.oracle import KEYS, Row, Tables, accounting, by_key, expected_tables, instance_row

TABLES = ("instance", "series", "study")
SECOND = 10_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
# Where the tests' clocks stand: an aware time that is not UTC.
KATHMANDU = timezone(timedelta(hours=5, minutes=45))
DAY = datetime(2024, 5, 1, tzinfo=UTC)


def at(hour: float) -> datetime:
    """The instant so many hours into the tests' day, told in Kathmandu."""
    return (DAY + timedelta(hours=hour)).astimezone(KATHMANDU)


def ticks_at(hour: float) -> int:
    """The same in 100 ns since 1970."""
    return (at(hour) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 10


def text_at(hour: float) -> str:
    """The same as RFC 3339 in UTC."""
    return at(hour).astimezone(UTC).isoformat().replace("+00:00", "Z")


def metadata(**values: Any) -> dict[str, Any]:
    """DICOM JSON of some attributes: name, id, issuer, description, date, modality, sop_class; None: no value."""
    elements = {
        "sop_class": ("00080016", "UI"),
        "date": ("00080020", "DA"),
        "modality": ("00080060", "CS"),
        "description": ("00081030", "LO"),
        "name": ("00100010", "PN"),
        "id": ("00100020", "LO"),
        "issuer": ("00100021", "LO"),
    }
    document: dict[str, Any] = {}
    for name, (tag, vr) in elements.items():
        if name in values:
            value = {"Alphabetic": values[name]} if vr == "PN" else values[name]
            document[tag] = {"vr": vr} if values[name] is None else {"vr": vr, "Value": [value]}
    return document


@dataclass(frozen=True)
class Site:
    """A service and a lake; `spark` is the session that all tests share.

    The lake lies in `folder`, or at `address` where that is given, on `storage`.
    """

    emulator: Emulator
    folder: Path
    overrides: tuple[str, ...]
    spark: SparkSession | None
    address: str = ""
    storage: Storage = Storage()  # noqa: RUF009 - frozen

    @property
    def service(self) -> DicomService:
        return self.emulator.service

    @property
    def root(self) -> Path:
        """The lake's folder; a test that looks into it has nothing to say of a lake elsewhere."""
        if self.address:
            pytest.skip("looks into a local folder")
        return self.folder / "lake"

    def copied(self, folder: Path) -> Site:
        """A copy of the lake, before the same service: in ``folder``, or beside the lake where that lies elsewhere."""
        if not self.address:
            shutil.copytree(self.root, folder / "lake")
            return replace(self, folder=folder)
        from support.azurite import copied

        assert self.storage.endpoint is not None
        return replace(self, folder=folder, address=copied(self.address, self.storage.endpoint))

    def listed(self, table: str) -> set[str]:
        """The names of all that lies in a table's folder."""
        filesystem, path = self.storage.filesystem(self.place(table))
        return {Path(name).name for name in filesystem.ls(path, detail=False)}

    def place(self, table: str) -> str:
        """Where one of the tables lies."""
        return f"{self.address or self.folder / 'lake'}/{table}"

    @property
    def texts(self) -> list[str]:
        """The settings as texts of --set."""
        return [
            f"dicom.base_url={self.emulator.base_url}",
            f"lake.root={self.address or self.folder / 'lake'}",
            f"feed.start={text_at(0)}",
            "dicom.retry_seconds=20",
            *self.overrides,
        ]

    @property
    def settings(self) -> Settings:
        return load_settings(None, self.texts, {}, self.folder)

    def having(self, *overrides: str) -> Site:
        """The same service and lake under other settings."""
        return replace(self, overrides=(*self.overrides, *overrides))

    def init(self) -> Site:
        """The same, with a lake that is made if there is none."""
        init_lake(lake_paths(self.settings), service_fingerprint(self.settings.dicom.base_url))
        return self

    def clock(self, hour: float) -> None:
        """Let the service's clock stand at that hour; each event then moves it by a second."""
        self.service.clock.freeze(at(hour), step=SECOND)

    def sync(self, *windows: str | None, **how: Any) -> list[Run]:
        """The runs of one sync, all of them over; arguments as for ``runs``."""
        return list(self.runs(*windows, **how))

    def runs(
        self,
        start: str | None = None,
        end: str | None = None,
        until: str | None = None,
        max_runs: int | None = None,
        *,
        init: bool = True,
        now: datetime | None = None,
        spark: Any = None,
        accounted: bool = True,
    ) -> Iterator[Run]:
        """One sync, run by run, each when it is over and before the next; each entry of it is ``accounted`` for.

        It makes the lake if there is none, unless ``init`` is False. The machine's clock stands at ``now``, without it
        where the service's does.
        """
        moment = now or datetime.fromtimestamp(self.service.clock.now_ticks() / SECOND, KATHMANDU)
        wanted = request(start, end, until, max_runs, init=init)
        for run in sync(
            self.settings, wanted, spark=spark or self.spark, clock=lambda: moment, sleep=lambda _seconds: None
        ):
            if accounted and run.entries_read and run.instance_version and self.accountable:
                # As its MERGE found it: a run that was overtaken may have written while this one read.
                stored = self.stored_instances(run.instance_version - 1)
                closed = [row["sequence"] for row in self.rows("rejected") if row["status"] == "void"]
                check_accounting(self.opened("change"), run, stored, closed)
            yield run

    @property
    def accountable(self) -> bool:
        """Whether the runs merge, and all that the accounting needs is where it usually is, without changed UIDs."""
        if self.spark is None or not self.settings.lake.keep_metadata or not self.has("change"):
            return False
        return all(row["reason"] != "uid-changed" for row in self.rows("rejected"))

    def rows(self, table: str, version: int | None = None) -> list[Row]:
        """The rows of a table as delta-rs reads them."""
        return list(dataset_of(self.opened(table, version)).to_table().to_pylist())

    def has(self, table: str) -> bool:
        place = self.place(table)
        return open_table(place, self.storage.delta(place)) is not None

    def opened(self, table: str, version: int | None = None) -> DeltaTable:
        """A table as delta-rs has it."""
        place = self.place(table)
        return DeltaTable(place, version=version, storage_options=self.storage.delta(place))

    def tables(self) -> Tables:
        """The three tables, each sorted by its key."""
        return {name: by_key(name, self.rows(name)) for name in TABLES}

    def ledger(self) -> list[Row]:
        return sorted(self.rows("run"), key=lambda row: row["runId"])

    def version(self, table: str) -> int:
        return self.opened(table).version()

    def files(self, table: str) -> set[str]:
        """The data files of the newest version."""
        return set(self.opened(table).file_uris())

    def stored_instances(self, version: int | None = None) -> dict[tuple[str, ...], Row]:
        """The rows of ``instance``, by key; empty before there is a table."""
        if not self.has("instance"):
            return {}
        return {tuple(row[name] for name in KEYS["instance"]): row for row in self.rows("instance", version)}

    def fates(self, entries: Iterable[Any], unusable: Iterable[int] = ()) -> Counter[str]:
        """What must become of these rows of the feed when they are read now."""
        lives = {live.sequence: live for live in self.service.live_instances()}
        return accounting(entries, self.stored_instances(), lambda row: instance_row(lives[row.sequence]), unusable)

    def feed(self, start: float, end: float) -> list[Any]:
        """The service's rows between two hours of the day."""
        return self.service.history.window(ticks_at(start), ticks_at(end), 0, 10**9)

    def expected(self) -> Tables:
        return expected_tables(self.service)

    def create(self, study: str, series: str, sop: str, partition: str = "Microsoft.Default", **given: Any) -> Any:
        """Create an instance by its UIDs; ``at_ticks`` and ``sequence`` as the service takes them."""
        event = {name: given.pop(name) for name in ("at_ticks", "sequence", "uids") if name in given}
        document = given.pop("document", None)
        return self.service.create(
            (partition, study, series, sop), metadata(**given) if document is None else document, **event
        )

    def update(self, study: str, series: str, sop: str, partition: str = "Microsoft.Default", **given: Any) -> Any:
        event = {name: given.pop(name) for name in ("at_ticks", "sequence") if name in given}
        return self.service.update((partition, study, series, sop), metadata(**given), **event)


def table_rows(path: Path | str, version: int | None = None) -> list[Row]:
    """The rows of a Delta table in a local folder."""
    return list(dataset_of(DeltaTable(path, version=version)).to_table().to_pylist())


def keys_of(rows: Iterable[Row], table: str = "instance") -> set[tuple[Any, ...]]:
    return {tuple(row[name] for name in KEYS[table]) for row in rows}
