"""What can be chosen when an emulator starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dicom_emulator.state.lake import Lake


@dataclass(frozen=True)
class EmulatorOptions:
    """The service's fixed properties; clock, faults and histories are set while it runs."""

    lake: Lake | Path | str | None = None
    """A folder, or another Lake, that receives the files; None: the service has no data lake."""

    file_paths: bool | None = None
    """Whether feed rows carry `filePath`; None: when there is a lake. True without one only names files."""

    workspace: str = "emulator"
    service: str = "dicom"
    """Both name the folder `AHDS/{workspace}/dicom/{service}/` (design/service-protocol.md: Data lake)."""

    partition_folder: bool = True
    """Whether the partition's name is part of `filePath`; real services differ.

    design/service-protocol.md: Data lake.
    """

    partitions: bool = False
    """Whether data partitions are on: then every DICOMweb route needs `/partitions/{name}`."""

    clear_file_path_on_delete: bool = False
    """Whether a deletion takes `filePath` off the key's older rows; the real service's does not.

    design/service-protocol.md: Rows that change.
    """

    operation_polls: int = 0
    """How often a bulk update or a reindex answers `running` before it is done; 0: it is done at once."""

    max_body_bytes: int = 2 * 1024**3
    """Larger requests are refused with 413 (design/service-protocol.md: STOW-RS)."""

    keep_health_files: bool = False
    """Whether health-check files stay in the lake, as after a crash, instead of being deleted at once."""

    tokens: Mapping[str, str] | None = None
    """Bearer tokens and their roles (`reader`, `owner`, `nobody`); None: none is asked for until one is issued."""

    gzip: bool = False
    """Whether answers are compressed for clients that take it; the real service: unknown.

    design/service-protocol.md: Addresses and errors.
    """

    cors_origins: Sequence[str] = ()
    """Origins, such as `http://127.0.0.1:3000`, whose pages may read the answers in a browser; none by default."""

    remembered_requests: int = 100_000
    """How many requests the request log lists; its counters go on."""
