"""What a retrieve is asked for, and the names that its files get."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dicom_etl.core.errors import UsageError
from dicom_etl.dicomweb.multipart import media_type
from dicom_etl.dicomweb.resources import is_uid

Picture = Literal["png", "jpeg"]

_PARTITION = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.-]{1,64}")
_FRAMES = re.compile(r"\s*[1-9][0-9]{0,8}\s*(,\s*[1-9][0-9]{0,8}\s*)*")
_SUFFIXES = {"png": "png", "jpeg": "jpg"}
# By the transfer syntax of a frame's bytes (PS3.5 Annex A); uncompressed ones are raw.
_COMPRESSED = {
    "1.2.840.10008.1.2.4.50": "jpg", "1.2.840.10008.1.2.4.51": "jpg", "1.2.840.10008.1.2.4.57": "jpg",
    "1.2.840.10008.1.2.4.70": "jpg", "1.2.840.10008.1.2.4.80": "jls", "1.2.840.10008.1.2.4.81": "jls",
    "1.2.840.10008.1.2.4.90": "jp2", "1.2.840.10008.1.2.4.91": "jp2", "1.2.840.10008.1.2.4.201": "jph",
    "1.2.840.10008.1.2.4.202": "jph", "1.2.840.10008.1.2.4.203": "jph", "1.2.840.10008.1.2.5": "rle",
}  # fmt: skip
_RAW = ("", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2")

FRAME_SUFFIXES = ("raw", *sorted(set(_COMPRESSED.values())), "bin")


@dataclass(frozen=True, slots=True)
class RetrieveRequest:
    """A study, a series of it, or an instance of that; as files, as pictures, or single frames of each instance."""

    study: str
    to: Path
    series: str | None = None
    instance: str | None = None
    partition: str | None = None
    rendered: Picture | None = None
    frames: tuple[int, ...] = ()

    def check(self) -> None:
        """Raises UsageError for what is no UID or no name of a partition: both become names of folders."""
        uids = {"STUDY": self.study, "SERIES": self.series, "INSTANCE": self.instance}
        for name, uid in uids.items():
            if uid is not None and not is_uid(uid):
                raise UsageError(f"retrieve: {name} is no UID: it has digits and dots, at most 64, and a digit last")
        if self.partition is not None and not _PARTITION.fullmatch(self.partition):
            raise UsageError("--partition: expected 1 to 64 letters, digits and _ . -")


def frame_numbers(text: str | None) -> tuple[int, ...]:
    """The numbers of ``1,2``, each once. Raises UsageError."""
    if text is None:
        return ()
    if not _FRAMES.fullmatch(text):
        raise UsageError("--frames: expected numbers from 1, such as 1,2")
    return tuple(dict.fromkeys(int(one) for one in text.split(",")))


def picture_name(instance: str, picture: Picture, frame: int | None = None) -> str:
    """``1.2.3.png``, ``1.2.3.frame-2.jpg``."""
    return f"{instance}{_of_frame(frame)}.{_SUFFIXES[picture]}"


def frame_names(instance: str, frame: int) -> list[str]:
    """All the names that a frame's bytes may have got."""
    return [f"{instance}{_of_frame(frame)}.{suffix}" for suffix in FRAME_SUFFIXES]


def frame_name(instance: str, frame: int, content_type: str) -> str:
    """``1.2.3.frame-2.raw``: the suffix tells the encoding that the service has named."""
    syntax = media_type(content_type)[1].get("transfer-syntax", "")
    return f"{instance}{_of_frame(frame)}.{'raw' if syntax in _RAW else _COMPRESSED.get(syntax, 'bin')}"


def _of_frame(frame: int | None) -> str:
    return "" if frame is None else f".frame-{frame}"
