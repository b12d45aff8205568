"""A lake that is ours, and its tables at one moment (design/architecture.md: Identity of a lake, Fencing)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from deltalake import DeltaTable

from dicom_etl.core.errors import AccessDenied, DataError, StorageError
from dicom_etl.lake import ledger
from dicom_etl.lake.delta.folder import TableFolder
from dicom_etl.lake.delta.table import open_table, properties, refresh_table, txn_version
from dicom_etl.lake.lake_id import LakeIdentity, check_owner
from dicom_etl.lake.paths import LakePaths
from dicom_etl.remote.storage import Storage

# In the order in which they are opened: the ledger first, so that no other table is older than what it covers.
TABLES = ("run", "change", "rejected", "instance", "series", "study")
_PRIVATE = ("change", "rejected", "fhir_sent")


def opened(paths: LakePaths, name: str) -> DeltaTable | None:
    """The newest snapshot of one of the tables that lie there, or None when there is none."""
    return open_table(paths.of(name), paths.storage.delta(paths.of(name)))


@dataclass(frozen=True, slots=True)
class Lake:
    """A lake that is ours: where it lies and whose it is."""

    paths: LakePaths
    identity: LakeIdentity

    @property
    def storage(self) -> Storage:
        return self.paths.storage

    def path(self, table: str) -> str:
        """The place of one of its tables."""
        return self.paths.of(table)

    def folder(self, name: str) -> TableFolder:
        """The folder of a table, to write files into; those of the private tables are for this user only."""
        return TableFolder(*self.storage.filesystem(self.path(name)), private=name in _PRIVATE)

    def app_id(self, table: str) -> str:
        """The name under which runs leave their marker in a table (design/architecture.md: Fencing)."""
        return self.identity.app_id(table)

    def remedy(self, name: str) -> str:
        """What to do about a table that is gone."""
        if name in self.paths.shared:
            return "mount or restore its folder, or run dicom-etl repair --rebuild"
        return "mount or restore its folder, or begin a new lake"


@dataclass(frozen=True, slots=True)
class LakeSnapshot:
    """The tables of a lake, each at the version that it had when it was opened, or last refreshed.

    Every answer is of that moment: nothing is opened to give it. A writer opens it before its claim, for the highest
    run id, and refreshes all of it after the claim; from then on only this run, or one that has overtaken it, writes.
    What must see what was written since says so, and refreshes the tables that it asks first. `refresh` moves the
    tables in place, for all holders of this snapshot.
    """

    lake: Lake
    _tables: dict[str, DeltaTable]
    _ledgers: dict[int, list[ledger.Run]] = field(default_factory=dict, repr=False)
    _markers: dict[tuple[str, int], int] = field(default_factory=dict, repr=False)

    def refresh(self, *names: str) -> Self:
        """The same, with these tables, or all, at their newest version; one that has been made since is opened."""
        for name in names or TABLES:
            newest = self._newest(name)
            if newest is not None:
                self._tables[name] = newest
            else:
                self._tables.pop(name, None)
        return self

    def _newest(self, name: str) -> DeltaTable | None:
        known = self._tables.get(name)
        if known is not None:
            try:
                return refresh_table(known)
            except DataError:
                # A log that was put back to an older version, too: what looks at versions says so.
                return opened(self.lake.paths, name)
        newest = opened(self.lake.paths, name)
        if newest is not None:
            check_owner(name, properties(newest), self.lake.identity)
        return newest

    def get(self, name: str) -> DeltaTable | None:
        """One of the tables, or None when there is none."""
        return self._tables.get(name)

    def has(self, name: str) -> bool:
        return name in self._tables

    def table(self, name: str) -> DeltaTable:
        """One of the tables. Raises DataError when it has vanished."""
        table = self.get(name)
        if table is None:
            raise self._missing(name)
        return table

    def _missing(self, name: str) -> DataError:
        if name != "run" and not any(run.status == "succeeded" for run in self.runs()):
            return DataError("no run has finished here yet: run dicom-etl sync")
        return DataError(f"the table {name} has vanished: {self.lake.remedy(name)}")

    def readable(self, name: str) -> bool:
        """Whether the table is there by now and this user may read it."""
        try:
            return self.refresh(name).has(name)
        except (StorageError, AccessDenied):
            return False

    def shared(self) -> dict[str, DeltaTable]:
        """Those of the shared tables that are there, by name."""
        tables = self._tables.copy()  # another thread may refresh
        return {name: tables[name] for name in self.lake.paths.shared if name in tables}

    def version(self, name: str) -> int:
        """The version of the table. Raises DataError when it has vanished."""
        return int(self.table(name).version())

    def txn_version(self, name: str) -> int:
        """The id of the last run that committed to the table; 0 when there is no table or no such run.

        It is looked up once for each version: delta-rs reads every commit since the last checkpoint for it.
        """
        table = self.get(name)
        if table is None:
            return 0
        at = (name, int(table.version()))
        if at not in self._markers:
            self._markers[at] = txn_version(table, self.lake.app_id(name))
        return self._markers[at]

    def runs(self) -> list[ledger.Run]:
        """The ledger, by run id; its files are read once for each version."""
        table = self.table("run")
        version = int(table.version())
        if version not in self._ledgers:
            self._ledgers[version] = ledger.runs(table)
        return list(self._ledgers[version])

    def record(self, run: ledger.Run) -> None:
        """Add the run's row to the ledger as it is now. Raises as ``ledger.record`` does."""
        ledger.record(self.refresh("run").table("run"), run, self.lake.identity, self.lake.folder("run"))
