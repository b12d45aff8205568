"""Opens a lake, makes one, and refuses a foreign or incomplete one (design/architecture.md: Identity of a lake)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import pyarrow as pa
from deltalake import DeltaTable

from dicom_etl.core.errors import AccessDenied, AnotherWriter, ConfigurationError, DataError, StorageError
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake import ledger
from dicom_etl.lake.change_schema import CHANGE_PROPERTIES, change_schema
from dicom_etl.lake.column_facts import commented
from dicom_etl.lake.delta.table import create_table, properties
from dicom_etl.lake.lake_id import LAKE_ID, check_identity, check_owner, new_identity
from dicom_etl.lake.paths import LakePaths, lake_paths
from dicom_etl.lake.rejected import REJECTED_PROPERTIES, rejected_schema
from dicom_etl.lake.snapshot import TABLES, Lake, LakeSnapshot, opened

# A property of tables that the Data Factory template made and that were taken over: they may hold instances that
# lie before `feed.start`.
ADOPTED = "dicomEtl.adopted"

_ROOT_LOST = (
    "but lake.private_root has the tables of one: mount the storage of lake.root, or correct lake.root; a new lake "
    "needs another lake.private_root"
)
WITHOUT_LAKE = "mount its storage, or correct lake.root, or make a new lake by dicom-etl init"


def find_lake(
    paths: LakePaths, service: str | None = None, *, adopting: bool = False, private: bool = True
) -> LakeSnapshot | None:
    """The lake at ``paths``, each of its tables opened once, or None where no lake was made yet.

    ``service`` is the fingerprint of the service that it must hold, if that matters. Raises DataError when a
    table is not ours or has vanished, ConfigurationError when the lake holds another service, or when `lake.root` is
    empty and `lake.private_root` is not. ``adopting``: tables that are nobody's are no reason to refuse.
    ``private = False`` leaves the private tables alone, which readers of the shared ones have no right to.
    """
    names = TABLES[1:] if private else tuple(paths.shared)
    run = opened(paths, "run")
    if run is None:
        if not adopting:
            _refuse_foreign_tables(paths, private=private)
        return None
    lake = Lake(paths, check_identity(properties(run), service))
    _check_columns(lake, "run", run)
    tables = {"run": run}
    for name in names:
        table = opened(paths, name)
        if table is not None:
            _check_table(lake, name, table, adopting)
            tables[name] = table
    return LakeSnapshot(lake, tables)


def existing_lake(settings: Settings, service: str | None = None, *, private: bool = True) -> LakeSnapshot:
    """The lake that the settings name; raises as ``lake_at`` does."""
    return lake_at(lake_paths(settings), service, private=private)


def lake_at(paths: LakePaths, service: str | None = None, *, private: bool = True) -> LakeSnapshot:
    """The lake at ``paths``. Raises ConfigurationError when there is none, else as ``find_lake`` does."""
    snapshot = find_lake(paths, service, private=private)
    if snapshot is None:
        # Not made here: where a share is not mounted, or lake.root is misspelt, it looks as if none was made yet.
        raise ConfigurationError(f"no lake at {paths.root}: {WITHOUT_LAKE}")
    return snapshot


def _refuse_foreign_tables(paths: LakePaths, *, private: bool) -> None:
    """Raise where tables lie beside a ledger that is not there: ConfigurationError when lake.root is lost, DataError
    when the ledger alone is, or when they are somebody else's.

    Readers without a right to the private tables, ``private = False``, are told by the others.
    """
    found = _found(paths, TABLES[1:]) if private else _readable(paths)
    ours = [name for name, table in found.items() if LAKE_ID in properties(table)]
    if ours and paths.private_root != paths.root and not set(ours) & set(paths.shared):
        raise ConfigurationError(f"no lake at {paths.root}, {_ROOT_LOST}")
    if ours:
        # Either this lake has lost its ledger, or the settings point into another lake: nothing here tells which.
        raise DataError(
            f"the table {ours[0]} belongs to a lake whose table run is not here: mount or restore its folder, or "
            "correct lake.root; if this is to be another lake, set folders of its own for it"
        )
    if found:
        raise DataError(
            f"the table {next(iter(found))} was not made by dicom-etl (there is no table run beside it): set lake.root "
            "to another folder, or move that table away; dicom-etl sync --adopt takes over the tables of the Data "
            "Factory template"
        )


def _found(paths: LakePaths, names: Iterable[str]) -> dict[str, DeltaTable]:
    tables = ((name, opened(paths, name)) for name in names)
    return {name: table for name, table in tables if table is not None}


def _readable(paths: LakePaths) -> dict[str, DeltaTable]:
    """The shared tables that are there, and those of the private ones that this user may open."""
    found = _found(paths, paths.shared)
    with suppress(AccessDenied, StorageError):
        found |= _found(paths, (name for name in TABLES[1:] if name not in paths.shared))
    return {name: found[name] for name in TABLES if name in found}


def _check_table(lake: Lake, name: str, table: DeltaTable, adopting: bool) -> None:
    if adopting and LAKE_ID not in properties(table):
        return
    check_owner(name, properties(table), lake.identity)
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


def refuse_incomplete(snapshot: LakeSnapshot, *, private: bool = True) -> None:
    """Raise DataError when any table has vanished that a run had written; ``private``: change and rejected too."""
    _not_yet_made(snapshot, TABLES[1:] if private else tuple(snapshot.lake.paths.shared))


def refuse_restored(snapshot: LakeSnapshot) -> None:
    """Raise DataError when a shared table is older than the newest run that succeeded left it.

    Versions only grow while a table is written, compacted or emptied of old files: a lower one was put back.
    """
    last = ledger.last_succeeded(snapshot.runs())
    if last is None:
        return
    for name, table in snapshot.shared().items():
        recorded = getattr(last, f"{name}_version")
        if recorded is not None and table.version() < recorded:
            raise DataError(
                f"the table {name} is at version {table.version()}, and run {last.run_id} left it at {recorded}: was "
                "it restored from a backup? dicom-etl repair compares it with the service and brings it up to date"
            )


def missing_tables(snapshot: LakeSnapshot) -> list[str]:
    """The shared tables that must still be made. Raises DataError when one vanished that a run had written."""
    return _not_yet_made(snapshot, tuple(snapshot.lake.paths.shared))


def _not_yet_made(snapshot: LakeSnapshot, names: Sequence[str]) -> list[str]:
    """Those of the tables that are not there; a table that a finished run had written must be there."""
    missing = [name for name in names if not snapshot.has(name)]
    if missing and any(run.status == "succeeded" and run.instance_version is not None for run in snapshot.runs()):
        # Made again, an empty `rejected` would forget what is open, and an empty `change` what is to be rolled up.
        raise DataError(f"the table {missing[0]} has vanished: {snapshot.lake.remedy(missing[0])}")
    return missing


def make_lake(paths: LakePaths, service: str) -> LakeSnapshot:
    """A new lake: the table ``run``, which decides its identity."""
    identity = new_identity(service)
    run = ledger.create_ledger(paths.run, identity, paths.storage.delta(paths.run))
    return LakeSnapshot(Lake(paths, identity), {"run": run})


def init_lake(paths: LakePaths, service: str) -> tuple[Lake, bool]:
    """The lake at ``paths``, made if there was none, and whether it was; the first run makes the shared tables.

    Raises as ``find_lake`` does, so that no table of somebody else gets a lake around it.
    """
    if snapshot := find_lake(paths, service):
        return snapshot.lake, False
    try:
        made = make_lake(paths, service)
    except AnotherWriter:
        # Of two at once, one has made it.
        return lake_at(paths, service).lake, False
    make_private_tables(made)
    return made.lake, True


def make_private_tables(snapshot: LakeSnapshot) -> None:
    """Make ``change`` and ``rejected`` where they are missing; their folders are for this user only."""
    lake, missing = snapshot.lake, _not_yet_made(snapshot, ("change", "rejected"))
    for name, schema, extra in (
        ("change", change_schema(), CHANGE_PROPERTIES),
        ("rejected", rejected_schema(), REJECTED_PROPERTIES),
    ):
        if name in missing:
            create_table(
                lake.path(name),
                commented(name, schema),
                name=name,
                properties={**extra, **lake.identity.properties},
                storage=lake.storage.delta(lake.path(name)),
                private=True,
            )
            snapshot.refresh(name)


def highest_run_id(snapshot: LakeSnapshot | None) -> int:
    """The largest run id in the ledger and in the markers of all tables; 0 for a lake that is not there yet."""
    if snapshot is None:
        return 0
    return max([0, *(run.run_id for run in snapshot.runs()), *(snapshot.txn_version(name) for name in TABLES)])
