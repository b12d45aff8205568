"""The versions of instances by watermark, and their files in the lake; not locked.

design/service-protocol.md: Data lake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dicom_emulator.http.jsontext import dumps
from dicom_emulator.options import EmulatorOptions
from dicom_emulator.state.lake import Lake, file_name


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an instance: its DICOM JSON and, unless made without, its PS3.10 file."""

    watermark: int
    metadata: bytes
    file: bytes | None
    file_path: str | None


class Versions:
    """All versions that are live or originals of live ones; writes and deletes their files."""

    def __init__(self, options: EmulatorOptions, lake: Lake | None, prefix: str) -> None:
        self._options = options
        self._lake = lake
        self._prefix = prefix
        self._all: dict[int, Version] = {}
        self._kept: set[int] = set()
        self._next_watermark = 1

    def take_watermark(self) -> int:
        """The next of the global numbers, which are used up even by what fails."""
        self._next_watermark += 1
        return self._next_watermark - 1

    def skip(self, count: int) -> None:
        """Uses up `count` watermarks."""
        self._next_watermark += count

    def add(self, partition: str, watermark: int, metadata: Mapping[str, Any] | bytes, file: bytes | None) -> Version:
        """A new version; its file is in the lake before this returns. Raises OSError when it is not."""
        text = metadata if isinstance(metadata, bytes) else dumps(dict(metadata))
        version = Version(watermark, text, file, self._file_path(partition, watermark))
        if self._lake is not None and file is not None and version.file_path is not None:
            self._lake.write(version.file_path, file)
        self._all[watermark] = version
        return version

    def keep(self, version: Version) -> None:
        """From now on `drop` leaves this version and its file alone."""
        self._kept.add(version.watermark)

    def drop(self, version: Version) -> None:
        """Forgets a version and deletes its file, unless it is kept."""
        if version.watermark in self._kept:
            return
        self._all.pop(version.watermark, None)
        if self._lake is not None and version.file_path is not None:
            self._lake.delete(version.file_path)

    def get(self, watermark: int) -> Version | None:
        """The version of a watermark."""
        return self._all.get(watermark)

    def _file_path(self, partition: str, watermark: int) -> str | None:
        wanted = self._options.file_paths
        if not (self._lake is not None if wanted is None else wanted):
            return None
        folder = f"{partition}/" if self._options.partition_folder else ""
        return f"{self._prefix}{folder}{file_name(watermark)}"
