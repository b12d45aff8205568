"""Where the tables and the claims of a lake lie, on which storage (architecture §4)."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from pathlib import Path

from dicom_etl.address import address, is_remote
from dicom_etl.deltalog import local_path
from dicom_etl.errors import ConfigurationError
from dicom_etl.settings import Settings
from dicom_etl.storage import Storage, storage_of


@dataclass(frozen=True, slots=True)
class Places:
    """The absolute places of a lake, folders or addresses: the shared tables, the private ones, the ledger, claims."""

    root: str
    private_root: str
    instance: str
    series: str
    study: str
    run: str
    change: str
    rejected: str
    claims: str
    storage: Storage

    def of(self, table: str) -> str:
        """The place of one of the tables."""
        return str(getattr(self, table))

    @property
    def shared(self) -> dict[str, str]:
        """The three shared tables by name, in the order in which they are merged."""
        return {"instance": self.instance, "series": self.series, "study": self.study}


def places(settings: Settings, storage: Storage | None = None) -> Places:
    """The places that the settings name. Raises ConfigurationError when they cannot be a lake."""
    lake = settings.lake
    root = _place("lake.root", lake.root)
    private = _place("lake.private_root", lake.private_root) if lake.private_root else root
    return Places(
        root=root,
        private_root=private,
        instance=f"{root}/{lake.instance_path}",
        series=f"{root}/{lake.series_path}",
        study=f"{root}/{lake.study_path}",
        run=f"{root}/run",
        change=f"{private}/change",
        rejected=f"{private}/rejected",
        claims=f"{root}/_claims",
        storage=storage or storage_of(settings),
    )


def _place(key: str, text: str) -> str:
    """An address, or an absolute path: Delta does not take relative ones (spark.md §5.1)."""
    if not text:
        raise ConfigurationError(f"{key} is not set: name the folder of the lake, such as --set {key}=/data/lake")
    if is_remote(text):
        try:
            return str(address(text))
        except ValueError as error:
            raise ConfigurationError(f"{key}: {error}") from error
    try:
        path = Path(local_path(text)).expanduser().absolute()
    except RuntimeError as error:
        raise ConfigurationError(f"{key}: the user after ~ is not known here; name the folder from / on") from error
    if re.search(r"%[0-9A-Fa-f]{2}", str(path)):
        # delta-rs takes the code for the character it stands for, and opens another folder than Spark.
        raise ConfigurationError(f"{key}: take the % and the two digits after it out of the folder's name")
    if not _is_or_can_be_a_folder(key, path):
        raise ConfigurationError(f"{key} is no folder: it is, or lies below, a file")
    return str(path)


def _is_or_can_be_a_folder(key: str, path: Path) -> bool:
    try:
        return next((part.is_dir() for part in (path, *path.parents) if part.exists()), True)
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise
        raise ConfigurationError(f"{key}: no folder can have this name ({errno.errorcode[error.errno]})") from error
