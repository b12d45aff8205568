"""Opens a lake: whose it is, whether its tables are ours, and how far its runs have come.

design/architecture.md: Identity of a lake.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from dicom_etl.core.errors import AccessDenied, AnotherWriter, ConfigurationError, DataError, StorageError
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake import ledger
from dicom_etl.lake.change_schema import CHANGE_PROPERTIES, change_schema
from dicom_etl.lake.delta.folder import TableFolder
from dicom_etl.lake.delta.table import create_table, marker, open_table, properties
from dicom_etl.lake.lake_id import LAKE_ID, LakeIdentity, check_identity, new_identity
from dicom_etl.lake.paths import Places, places
from dicom_etl.lake.rejected import REJECTED_PROPERTIES, rejected_schema
from dicom_etl.remote.storage import Storage

Ranges = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Lake:
    """A lake that is ours: where it lies and whose it is."""

    places: Places
    identity: LakeIdentity

    @property
    def storage(self) -> Storage:
        return self.places.storage

    def path(self, table: str) -> str:
        """The place of one of its tables."""
        return self.places.of(table)

    def opened(self, name: str) -> DeltaTable | None:
        """The newest snapshot of a table, or None when there is none."""
        return opened(self.places, name)

    def folder(self, name: str) -> TableFolder:
        """The folder of a table, to write files into; those of the private tables are for this user only."""
        return TableFolder(*self.storage.filesystem(self.path(name)), private=name in _PRIVATE)

    def app_id(self, table: str) -> str:
        """The name under which runs leave their marker in a table (design/architecture.md: Fencing)."""
        return self.identity.app_id(table)

    def table(self, name: str) -> DeltaTable:
        """The newest snapshot of a table. Raises DataError when it has vanished."""
        table = self.opened(name)
        if table is None:
            raise self._missing(name)
        return table

    def _missing(self, name: str) -> DataError:
        if name != "run" and not any(run.status == "succeeded" for run in self.runs()):
            return DataError("no run has finished here yet: run dicom-etl sync")
        return DataError(f"the table {name} has vanished: {self.remedy(name)}")

    def remedy(self, name: str) -> str:
        """What to do about a table that is gone."""
        if name in self.places.shared:
            return "mount or restore its folder, or run dicom-etl repair --rebuild"
        return "mount or restore its folder, or begin a new lake"

    def marker(self, name: str) -> int:
        """The id of the last run that committed to the table; 0 when there is no table or no such run."""
        table = self.opened(name)
        return 0 if table is None else marker(table, self.app_id(name))

    def shared(self) -> dict[str, DeltaTable]:
        """The newest snapshots of those of the shared tables that are there, by name."""
        found = {name: self.opened(name) for name in self.places.shared}
        return {name: table for name, table in found.items() if table is not None}

    def rows(self) -> int:
        """About how many rows those of the shared tables hold that are there, by their logs."""
        counts = [pa.table(table.get_add_actions(flatten=True))["num_records"] for table in self.shared().values()]
        return sum(pc.sum(count).as_py() or 0 for count in counts)

    def rows_within(self, ranges: Ranges) -> int:
        """About how many rows the files of the shared tables hold that may have studies in the ranges."""
        return sum(
            rows for table in self.shared().values() for rows, low, high in _extents(table) if _meets(low, high, ranges)
        )

    def files(self) -> int:
        """How many files the largest of the shared tables has, of those that are there."""
        return max((len(table.file_uris()) for table in self.shared().values()), default=0)

    def may_hold(self, name: str, sequence: int) -> bool:
        """Whether a row of the table may have this sequence or a higher one, by the bounds of its files."""
        files = pa.table(self.table(name).get_add_actions(flatten=True))
        bounds = files["max.sequence"] if "max.sequence" in files.column_names else pa.nulls(files.num_rows, pa.int64())
        return any(highest is None or highest >= sequence for highest in bounds.to_pylist())

    def version(self, name: str) -> int:
        """The newest version of the table."""
        return int(self.table(name).version())

    def runs(self) -> list[ledger.Run]:
        """The ledger, by run id."""
        return ledger.runs(self.table("run"))

    def record(self, run: ledger.Run) -> None:
        """Add the run's row to the ledger. Raises as ``ledger.record`` does."""
        ledger.record(self.table("run"), run, self.identity, self.folder("run"))

    def has(self, name: str) -> bool:
        return self.opened(name) is not None

    def readable(self, name: str) -> bool:
        """Whether the table is there and this user may read it."""
        try:
            return self.has(name)
        except (StorageError, AccessDenied):
            return False

    def landed_between(self, above_run: int, below_run: int, besides: int | None = None) -> bool:
        """Whether ``change`` may hold entries of runs in (above_run, below_run), by the bounds of its files.

        ``besides``: a sequence that does not count.
        """
        files = pa.table(self.table("change").get_add_actions(flatten=True))
        if not files.num_rows:
            return False
        held = pc.and_(pc.greater(files["max.runId"], above_run), pc.less(files["min.runId"], below_run))
        if besides is not None:
            alone = pc.and_(pc.equal(files["min.sequence"], besides), pc.equal(files["max.sequence"], besides))
            held = pc.and_(held, pc.invert(pc.fill_null(alone, False)))
        return bool(pc.any(held).as_py())


def _extents(table: DeltaTable) -> Iterator[tuple[int, str, str]]:
    """For each file its rows and the bounds of its study UIDs; without statistics it may hold any."""
    files = pa.table(table.get_add_actions(flatten=True))
    nothing = pa.nulls(files.num_rows, pa.string())
    bounds = (files[name] if name in files.column_names else nothing for name in _STUDY_BOUNDS)
    columns = (column.to_pylist() for column in (files["num_records"], *bounds))
    for rows, low, high in zip(*columns, strict=True):
        yield rows or 0, low or "", _BEYOND if high is None else high


def _meets(low: str, high: str, ranges: Ranges) -> bool:
    return any(low <= last and first <= high for first, last in ranges)


_STUDY_BOUNDS = ("min.studyInstanceUid", "max.studyInstanceUid")
_BEYOND = "\U0010ffff"

TABLES = ("run", "change", "rejected", "instance", "series", "study")
_PRIVATE = ("change", "rejected")


def opened(places: Places, name: str) -> DeltaTable | None:
    """The newest snapshot of one of the tables that lie there, or None when there is none."""
    return open_table(places.of(name), places.storage.delta(places.of(name)))


# A property of tables that the Data Factory template made and that were taken over: they may hold instances that
# lie before `feed.start`.
ADOPTED = "dicomEtl.adopted"

WITHOUT_LAKE = "mount its storage, or correct lake.root, or make a new lake by dicom-etl init"


def find_lake(
    places: Places, service: str | None = None, *, adopting: bool = False, private: bool = True
) -> Lake | None:
    """The lake at ``places``, or None where none was made yet.

    ``service`` is the fingerprint of the service that it must hold, if that matters. Raises DataError when a
    table is not ours or has vanished, ConfigurationError when the lake holds another service. ``adopting``: tables
    that are nobody's are no reason to refuse. ``private = False`` leaves the private tables alone, which readers of
    the shared ones have no right to.
    """
    run = opened(places, "run")
    if run is None:
        if not adopting:
            _refuse_strangers(places, TABLES[1:] if private else tuple(places.shared))
        return None
    lake = Lake(places, check_identity(properties(run), service))
    _check_columns(lake, "run", run)
    for name in TABLES[1:] if private else places.shared:
        _check_table(lake, name, adopting)
    return lake


def existing_lake(settings: Settings, service: str | None = None, *, private: bool = True) -> Lake:
    """The lake that the settings name; raises as ``lake_at`` does."""
    return lake_at(places(settings), service, private=private)


def lake_at(places: Places, service: str | None = None, *, private: bool = True) -> Lake:
    """The lake at ``places``. Raises ConfigurationError when there is none, else as ``find_lake`` does."""
    lake = find_lake(places, service, private=private)
    if lake is None:
        # Not made here: where a share is not mounted, or lake.root is misspelt, it looks as if none was made yet.
        raise ConfigurationError(f"no lake at {places.root}: {WITHOUT_LAKE}")
    return lake


def _refuse_strangers(places: Places, names: Sequence[str]) -> None:
    for name in names:
        table = opened(places, name)
        if table is not None and LAKE_ID in properties(table):
            # Either this lake has lost its ledger, or the settings point into another lake: nothing here tells which.
            raise DataError(
                f"the table {name} belongs to a lake whose table run is not here: mount or restore its folder, or "
                "correct lake.root; if this is to be another lake, set folders of its own for it"
            )
        if table is not None:
            raise DataError(
                f"the table {name} was not made by dicom-etl (there is no table run beside it): set lake.root to "
                "another folder, or move that table away; dicom-etl sync --adopt takes over the tables of the Data "
                "Factory template"
            )


def _check_table(lake: Lake, name: str, adopting: bool) -> None:
    table = lake.opened(name)
    if table is None or (adopting and LAKE_ID not in properties(table)):
        return
    if LAKE_ID not in properties(table):
        raise DataError(f"the table {name} was not made by dicom-etl: take it over by sync --adopt, or move it away")
    if properties(table).get(LAKE_ID) != str(lake.identity.lake_id):
        raise DataError(f"the table {name} belongs to another lake: give each lake paths of its own")
    check_identity(properties(table), lake.identity.service)
    _check_columns(lake, name, table)


# The tables that delta-rs writes, and Delta's names of their types.
_SCHEMAS = {"run": ledger.SCHEMA, "change": change_schema(), "rejected": rejected_schema()}
_TYPES = {pa.int64(): "long", pa.float64(): "double", pa.string(): "string", pa.date32(): "date"}


def _check_columns(lake: Lake, name: str, table: DeltaTable) -> None:
    wanted = {f.name: _TYPES.get(f.type, "timestamp") for f in _SCHEMAS.get(name, ())}
    refuse_other_columns(lake, name, table, wanted)


def refuse_other_columns(lake: Lake, name: str, table: DeltaTable, wanted: Mapping[str, str]) -> None:
    """Raise DataError when a table lacks a column that we write (name to Delta's type), or has it with another type.

    More columns than ours are welcome.
    """
    stored = {field.name: getattr(field.type, "type", "nested") for field in table.schema().fields}
    unlike = [column for column, kind in wanted.items() if stored.get(column) != kind]
    if unlike:
        raise DataError(f"the table {name} is not as dicom-etl writes it, see {', '.join(unlike)}: {lake.remedy(name)}")


def refuse_incomplete(lake: Lake, *, private: bool = True) -> None:
    """Raise DataError when any table has vanished that a run had written; ``private``: change and rejected too."""
    _not_yet_made(lake, list(TABLES[1:] if private else lake.places.shared))


def refuse_restored(lake: Lake) -> None:
    """Raise DataError when a shared table is older than the newest run that succeeded left it.

    Versions only grow while a table is written, compacted or emptied of old files: a lower one was put back.
    """
    last = ledger.last_succeeded(lake.runs())
    if last is None:
        return
    for name, table in lake.shared().items():
        recorded = getattr(last, f"{name}_version")
        if recorded is not None and table.version() < recorded:
            raise DataError(
                f"the table {name} is at version {table.version()}, and run {last.run_id} left it at {recorded}: was "
                "it restored from a backup? dicom-etl repair compares it with the service and brings it up to date"
            )


def missing_tables(lake: Lake) -> list[str]:
    """The shared tables that must still be made. Raises DataError when one vanished that a run had written."""
    return _not_yet_made(lake, list(lake.places.shared))


def _not_yet_made(lake: Lake, names: list[str]) -> list[str]:
    """Those of the tables that are not there; a table that a finished run had written must be there."""
    missing = [name for name in names if not lake.has(name)]
    if missing and any(run.status == "succeeded" and run.instance_version is not None for run in lake.runs()):
        # Made again, an empty `rejected` would forget what is open, and an empty `change` what is to be rolled up.
        raise DataError(f"the table {missing[0]} has vanished: {lake.remedy(missing[0])}")
    return missing


def make_lake(places: Places, service: str) -> Lake:
    """A new lake: the table ``run``, which decides its identity."""
    identity = new_identity(service)
    ledger.create_ledger(places.run, identity, places.storage.delta(places.run))
    return Lake(places, identity)


def init_lake(places: Places, service: str) -> tuple[Lake, bool]:
    """The lake at ``places``, made if there was none, and whether it was; the first run makes the shared tables.

    Raises as ``find_lake`` does, so that no table of somebody else gets a lake around it.
    """
    if lake := find_lake(places, service):
        return lake, False
    try:
        lake = make_lake(places, service)
    except AnotherWriter:
        # Of two at once, one has made it.
        return lake_at(places, service), False
    make_private_tables(lake)
    return lake, True


def make_private_tables(lake: Lake) -> None:
    """Make ``change`` and ``rejected`` where they are missing; their folders are for this user only."""
    missing = _not_yet_made(lake, ["change", "rejected"])
    for name, schema, extra in (
        ("change", change_schema(), CHANGE_PROPERTIES),
        ("rejected", rejected_schema(), REJECTED_PROPERTIES),
    ):
        if name in missing:
            create_table(
                lake.path(name),
                schema,
                name=name,
                properties={**extra, **lake.identity.properties},
                storage=lake.storage.delta(lake.path(name)),
                private=True,
            )


def highest_run_id(lake: Lake | None) -> int:
    """The largest run id in the ledger and in the markers of all tables; 0 for a lake that is not there yet."""
    if lake is None:
        return 0
    return max([0, *(run.run_id for run in lake.runs()), *(lake.marker(name) for name in TABLES)])
