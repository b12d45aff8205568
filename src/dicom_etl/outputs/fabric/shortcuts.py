"""Shares the lake with Microsoft Fabric: shortcuts of its tables, of the ledger and of the DICOM files."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from dicom_etl.core.errors import ConfigurationError, DataError, ServiceUnavailable
from dicom_etl.core.settings.model import Fabric, Settings
from dicom_etl.outputs.fabric.api import LakehouseShortcuts
from dicom_etl.outputs.fabric.responses import NameTaken, Shortcut, as_target
from dicom_etl.remote.uri import AbfsUri, parse_abfs_uri

Outcome = Literal["created", "updated", "unchanged", "would create", "would update"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one shortcut."""

    shortcut: Shortcut
    outcome: Outcome

    def as_row(self) -> dict[str, str]:
        """By name, as a command prints it."""
        target = self.shortcut.target
        uri = f"{target.location}{target.subpath}" if target else ""
        return {"shortcut": self.shortcut.place, "outcome": self.outcome, "target": uri}


def share(wanted: list[Shortcut], lakehouse: LakehouseShortcuts, *, dry_run: bool = False) -> Iterator[Done]:
    """Each wanted shortcut, once it is as it should be; those that are so already are left alone.

    With ``dry_run`` nothing is changed. Raises DataError when a name is taken by something that is no shortcut.
    """
    there = lakehouse.listed()
    for shortcut in wanted:
        present = there.get(shortcut.place)
        if present == shortcut:
            yield Done(shortcut, "unchanged")
        elif dry_run:
            yield Done(shortcut, "would create" if present is None else "would update")
        else:
            _put(lakehouse, shortcut, exists=present is not None)
            yield Done(shortcut, "created" if present is None else "updated")


def shortcuts(settings: Settings) -> list[Shortcut]:
    """The shortcuts that the settings ask for: the three tables, the ledger, then the files.

    Raises ConfigurationError when ids are missing or the lake does not lie in Azure storage.
    """
    _check_ids(settings.fabric)
    lake, fabric = settings.lake, settings.fabric
    root = _azure("lake.root", lake.root)
    # The ledger holds nothing of patients, and says how fresh the three are and which versions fit each other (ADR 80).
    tables = {"instance": lake.instance_path, "series": lake.series_path, "study": lake.study_path, "run": "run"}
    wanted = [_shortcut(_folder(fabric), name, _below(root, path), fabric) for name, path in tables.items()]
    if fabric.files_name:
        wanted.append(_shortcut("Files", fabric.files_name, _files(settings, root), fabric))
    return wanted


def tag_shortcuts(settings: Settings, names: Iterable[str]) -> list[Shortcut]:
    """The shortcuts of these tag tables, which lie beside the shared tables (`tag_tables.tag_tables` says which)."""
    root = _azure("lake.root", settings.lake.root)
    return [_shortcut(_folder(settings.fabric), name, _below(root, name), settings.fabric) for name in names]


def _folder(fabric: Fabric) -> str:
    return f"Tables/{fabric.schema}" if fabric.schema else "Tables"


def _put(lakehouse: LakehouseShortcuts, shortcut: Shortcut, *, exists: bool) -> None:
    try:
        if exists:
            lakehouse.overwrite(shortcut)
        else:
            lakehouse.make(shortcut)
    except NameTaken as taken:
        # A POST whose answer was lost has made it, and its repetition finds the name taken.
        present = lakehouse.listed().get(shortcut.place)
        if present == shortcut:
            return
        if present is not None:
            raise ServiceUnavailable(
                f"{shortcut.place}: Fabric does not change it now ({taken.status_text}), "
                "somebody else may be at it; run again"
            ) from taken
        raise DataError(
            f"{shortcut.place}: the lakehouse has a table or folder of this name that is no shortcut "
            f"({taken.status_text}); nothing was overwritten: rename or remove it, or name another lakehouse"
        ) from taken


def _check_ids(fabric: Fabric) -> None:
    given = {"workspace": fabric.workspace, "lakehouse": fabric.lakehouse, "connection": fabric.connection}
    missing = [name for name, value in given.items() if not value]
    if missing:
        keys, options = (", ".join(f"{before}{name}" for name in missing) for before in ("fabric.", "--"))
        raise ConfigurationError(f"{keys}: not set; give the id by {options} or in the settings (docs/fabric.md)")


def _shortcut(path: str, name: str, folder: AbfsUri, fabric: Fabric) -> Shortcut:
    return Shortcut(path, name, as_target(f"https://{folder.dfs_host}", folder.key, fabric.connection))


def _files(settings: Settings, root: AbfsUri) -> AbfsUri:
    """Where ``filePath`` starts: files.root, or the lake's container."""
    files = _azure("files.root", settings.files.root) if settings.files.root else replace(root, path="")
    if files.dfs_host != root.dfs_host:
        raise ConfigurationError(
            "files.root: lies in another storage account than lake.root, which one connection does not reach; "
            'set fabric.files_name = "" and make that shortcut by hand'
        )
    private = _abfs_uri(settings.lake.private_root or settings.lake.root)
    if private is not None and any(_holds(files, _below(private, table)) for table in ("change", "rejected")):
        log.warning(
            "the shortcut of the files reaches the tables change and rejected too, which hold whole headers, also of "
            "deleted instances: set lake.private_root to another container, or share no files (fabric.files_name)"
        )
    return files


def _azure(key: str, uri: str) -> AbfsUri:
    """The address in Azure storage that a setting must be."""
    azure = _abfs_uri(uri)
    if azure is None or azure.suffix == "fabric.microsoft.com":
        raise ConfigurationError(
            f"{key}: Fabric's shortcuts lead to Azure storage only; expected "
            "abfss://container@account.dfs.core.windows.net/path"
        )
    return azure


def _abfs_uri(uri: str) -> AbfsUri | None:
    try:
        return parse_abfs_uri(uri)
    except ValueError:
        return None


def _below(folder: AbfsUri, path: str) -> AbfsUri:
    return replace(folder, path=f"{folder.path}/{path}".strip("/"))


def _holds(folder: AbfsUri, other: AbfsUri) -> bool:
    return folder.dfs_host == other.dfs_host and f"{other.key}/".startswith(f"{folder.key}/")
