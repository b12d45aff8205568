"""Where the tables and the claims of a lake lie (architecture §4)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dicom_etl.errors import ConfigurationError
from dicom_etl.settings import Lake


@dataclass(frozen=True, slots=True)
class Places:
    """Absolute paths of one lake: the shared tables, the private ones, the ledger and the claims."""

    root: str
    private_root: str
    instance: str
    series: str
    study: str
    run: str
    change: str
    rejected: str
    claims: str

    @property
    def shared(self) -> dict[str, str]:
        """The three shared tables by name, in the order in which they are merged."""
        return {"instance": self.instance, "series": self.series, "study": self.study}


def places(lake: Lake) -> Places:
    """The places that the settings name. Raises ConfigurationError when they cannot be a lake."""
    root = _folder("lake.root", lake.root)
    private = _folder("lake.private_root", lake.private_root) if lake.private_root else root
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
    )


def _folder(key: str, text: str) -> str:
    """An absolute path: Delta does not take relative ones (spark.md §5.1)."""
    if not text:
        raise ConfigurationError(f"{key} is not set: name the folder of the lake, such as --set {key}=/data/lake")
    if "://" in text:
        raise ConfigurationError(f"{key}: this version keeps its tables in a local folder only; abfss:// comes later")
    path = Path(text).expanduser().absolute()
    for part in (path, *path.parents):
        if part.exists():
            if not part.is_dir():
                raise ConfigurationError(f"{key} is no folder: it is, or lies below, a file")
            break
    return str(path)
