"""Where the tables and the claims of a lake lie, on which storage (design/architecture.md: Tables)."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from dicom_etl.core.errors import ConfigurationError
from dicom_etl.core.settings.model import Settings
from dicom_etl.lake.delta.folder import local_path
from dicom_etl.remote.storage import Storage, storage_of
from dicom_etl.remote.uri import is_remote, parse_abfs_uri


@dataclass(frozen=True, slots=True)
class LakePaths:
    """The absolute places of a lake: the shared tables, the private ones, both ledgers, claims, and the outputs'."""

    root: str
    private_root: str
    instance: str
    series: str
    study: str
    run: str
    change: str
    rejected: str
    claims: str
    output: str
    instance_tags: str
    series_tags: str
    study_tags: str
    header_quality: str
    fhir_sent: str
    storage: Storage

    def of(self, table: str) -> str:
        """The place of one of the tables."""
        return str(getattr(self, table))

    @property
    def shared(self) -> dict[str, str]:
        """The three shared tables by name, in the order in which they are merged."""
        return {"instance": self.instance, "series": self.series, "study": self.study}


def lake_paths(settings: Settings, storage: Storage | None = None) -> LakePaths:
    """The places that the settings name.

    Raises ConfigurationError when they cannot be a lake, or one of them lies in another: `maintain` deletes what is no
    file of the table in whose folder it lies.
    """
    lake = settings.lake
    root = _place("lake.root", lake.root)
    private = _place("lake.private_root", lake.private_root) if lake.private_root else root
    tags = _place("columns.root", settings.columns.root) if settings.columns.root else root
    fhir = _place("fhir.root", settings.fhir.root) if settings.fhir.root else private
    paths = LakePaths(
        root=root,
        private_root=private,
        instance=f"{root}/{lake.instance_path}",
        series=f"{root}/{lake.series_path}",
        study=f"{root}/{lake.study_path}",
        run=f"{root}/run",
        change=f"{private}/change",
        rejected=f"{private}/rejected",
        claims=f"{root}/_claims",
        output=f"{root}/output",
        instance_tags=f"{tags}/instance_tags",
        series_tags=f"{tags}/series_tags",
        study_tags=f"{tags}/study_tags",
        header_quality=f"{tags}/header_quality",
        fhir_sent=f"{fhir}/fhir_sent",
        storage=storage or storage_of(settings),
    )
    _refuse_nested(paths)
    return paths


# Which setting moves what, the one that is easiest to change first.
_MOVED_BY = {
    "instance": "lake.instance_path",
    "series": "lake.series_path",
    "study": "lake.study_path",
    "change": "lake.private_root",
    "rejected": "lake.private_root",
    "run": "lake.root",
    "claims": "lake.root",
    "output": "lake.root",
    "instance_tags": "columns.root",
    "series_tags": "columns.root",
    "study_tags": "columns.root",
    "header_quality": "columns.root",
    "fhir_sent": "fhir.root",
}


def _refuse_nested(paths: LakePaths) -> None:
    real = {name: _real(str(getattr(paths, name))) for name in _MOVED_BY}
    for one, other in combinations(_MOVED_BY, 2):
        if _within(real[one], real[other]) or _within(real[other], real[one]):
            raise ConfigurationError(
                f"{_MOVED_BY[one]}: the folders of {one} and {other} are the same, or one lies in the other; "
                "give each a folder of its own"
            )


def _real(uri: str) -> str:
    """One text for one folder: links and `..` followed, and of an address what tells it from others."""
    if not is_remote(uri):
        return os.path.realpath(uri)
    azure = parse_abfs_uri(uri)
    # Ids of OneLake are the same in small and in capital letters.
    return f"{azure.dfs_host}/{azure.key}".casefold()


def _within(inner: str, outer: str) -> bool:
    return f"{inner}/".startswith(f"{outer}/")


# delta-rs takes the code for the character it stands for, and opens another folder than Spark; Spark's SQL takes no
# backtick in a path, and Hadoop a backslash for a slash.
_CANNOT_BE_IN_A_NAME = {r"%[0-9A-Fa-f]{2}": "the % and the two digits after it", r"[`\\]": "backticks and backslashes"}


def _place(key: str, text: str) -> str:
    """An address, or an absolute path: Delta does not take relative ones (design/spark.md: Jars)."""
    if not text:
        raise ConfigurationError(f"{key} is not set: name the folder of the lake, such as --set {key}=/data/lake")
    if is_remote(text):
        try:
            return str(parse_abfs_uri(text))
        except ValueError as error:
            raise ConfigurationError(f"{key}: {error}") from error
    try:
        # Two slashes at the beginning stay two in Python, and Hadoop takes what follows them for a host.
        path = Path(re.sub("^/+", "/", local_path(text))).expanduser().absolute()
    except RuntimeError as error:
        raise ConfigurationError(f"{key}: the user after ~ is not known here; name the folder from / on") from error
    for pattern, what in _CANNOT_BE_IN_A_NAME.items():
        if re.search(pattern, str(path)):
            raise ConfigurationError(f"{key}: take {what} out of the folder's name")
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
