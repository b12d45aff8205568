"""Fetches what is asked for of one instance, and says what became of each file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dicom_etl.commands.retrieve.folder import Folder, LeadsOutside, PartFile
from dicom_etl.commands.retrieve.request import RetrieveRequest, frame_name, frame_names, picture_name
from dicom_etl.dicomweb.download import Wanted, download, picture, stored_frames, whole_file
from dicom_etl.remote.http.client import HttpClient, KeepsFailing
from dicom_etl.remote.http.retry import RetryPolicy

Key = tuple[str, str, str]
"""Study, series and SOP instance UID."""

Outcome = Literal["stored", "present", "failed"]

_KEEPS_FAILING = "the service keeps failing for it; try again later"
_OUTSIDE = "a folder on its way is a link that leads out of the folder"
_GONE = {
    "file": "the service does not have it",
    "picture": "the service does not have it, or it has no such frame or no pixels",
    "frame": "the service does not have it, or it has no such frame or no pixels",
}
_NOT_GIVEN = {
    "file": "the service cannot give it",
    "picture": "the service cannot draw it",
    "frame": "the service cannot give the frame",
}
_LAKE = "the service cannot read it in its data lake (424)"


@dataclass(frozen=True, slots=True)
class Retrieved:
    """One file, by its path below the folder, and what became of it; ``passing``: another try may succeed."""

    path: str
    outcome: Outcome
    reason: str | None = None
    bytes: int | None = None
    passing: bool = False

    def as_row(self) -> dict[str, Any]:
        """By name, as a command prints it."""
        return {"path": self.path, "outcome": self.outcome, "reason": self.reason, "bytes": self.bytes}


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Asks one service, into one folder, for what the request wants of an instance."""

    client: HttpClient
    folder: Folder
    request: RetrieveRequest
    retry_policy: RetryPolicy

    def fetch(self, key: Key) -> list[Retrieved]:
        """The outcome of each of the instance's files, in their order.

        Raises as ``download`` for what ends the whole retrieve, OSError when a file cannot be written.
        """
        if self.request.rendered is None and self.request.frames:
            return list(self._frames(key))
        return [self._one(key, frame) for frame in self.request.frames or (None,)]

    def _one(self, key: Key, frame: int | None) -> Retrieved:
        """A file, or a picture of a frame."""
        kind = self.request.rendered
        if kind is None:
            path, wanted, what = self._place(key, f"{key[2]}.dcm"), whole_file(self.request.partition, *key), "file"
        else:
            path, what = self._place(key, picture_name(key[2], kind, frame)), "picture"
            wanted = picture(self.request.partition, *key, image_type=f"image/{kind}", frame=frame)
        if path.exists():
            return Retrieved(self.folder.shown(path), "present", bytes=path.stat().st_size)
        return self._stored(wanted, [path], lambda _number, _type: path, what)[0]

    def _frames(self, key: Key) -> Iterator[Retrieved]:
        """The frames as they are stored; the missing ones by one request, or each by its own where one is not there."""
        present = {frame: path for frame in self.request.frames if (path := self._present_frame(key, frame))}
        missing = [frame for frame in self.request.frames if frame not in present]
        fetched = dict(zip(missing, self._asked(key, missing), strict=True)) if missing else {}
        for frame in self.request.frames:
            if frame in fetched:
                yield fetched[frame]
            else:
                path = present[frame]
                yield Retrieved(self.folder.shown(path), "present", bytes=path.stat().st_size)

    def _asked(self, key: Key, frames: Sequence[int]) -> list[Retrieved]:
        expected = [self._place(key, frame_names(key[2], frame)[0]) for frame in frames]

        def place(number: int, content_type: str) -> Path:
            return self._place(key, frame_name(key[2], frames[number], content_type))

        results = self._stored(stored_frames(self.request.partition, *key, frames), expected, place, "frame")
        if len(frames) > 1 and results[0].reason == _GONE["frame"]:
            return [result for frame in frames for result in self._asked(key, [frame])]
        return results

    def _stored(
        self, wanted: Wanted, expected: Sequence[Path], place: Callable[[int, str], Path], what: str
    ) -> list[Retrieved]:
        """What became of the parts of one request; ``expected`` are their places as long as nobody knows better."""
        files: dict[int, PartFile] = {}

        def open_part(number: int, content_type: str) -> Callable[[bytes], None]:
            if number in files:
                files[number].discard()
            files[number] = PartFile(self.folder, place(number, content_type))
            files[number].begin()
            return files[number].write

        try:
            reason, passing = _reason(download(self.client, wanted, open_part, self.retry_policy), what), False
            if reason is None:
                return [self._committed(files[number]) for number in range(wanted.parts)]
        except KeepsFailing:
            reason, passing = _KEEPS_FAILING, True
        except LeadsOutside:
            reason, passing = _OUTSIDE, False
        finally:
            for file in files.values():
                file.discard()
        return [Retrieved(self.folder.shown(path), "failed", reason, passing=passing) for path in expected]

    def _committed(self, file: PartFile) -> Retrieved:
        file.commit()
        return Retrieved(self.folder.shown(file.path), "stored", bytes=file.size)

    def _place(self, key: Key, name: str) -> Path:
        return self.folder.file(*key[:2], name)

    def _present_frame(self, key: Key, frame: int) -> Path | None:
        paths = (self._place(key, name) for name in frame_names(key[2], frame))
        return next((path for path in paths if path.exists()), None)


def _reason(status: int, what: str) -> str | None:
    """Why a status is none of success."""
    if status == 200:
        return None
    return _GONE[what] if status == 404 else _LAKE if status == 424 else _NOT_GIVEN[what]
