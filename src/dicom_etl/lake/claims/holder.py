"""Who holds the lake, told without a claim and without writing anything."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from fsspec import AbstractFileSystem

from dicom_etl.lake.claims.claim import SILENT
from dicom_etl.lake.claims.file import ClaimFolder, ClaimSnapshot
from dicom_etl.lake.claims.process import Process, is_gone, this_process


@dataclass(frozen=True, slots=True)
class Holder:
    """The claim that nobody has released. ``state`` is ``running``; ``died`` when its process on this host is gone;
    ``silent`` when its file has not moved for longer than a living run lets it rest, ``silent_seconds`` long. ``here``:
    its process can be seen.
    """

    claim: ClaimSnapshot
    state: Literal["running", "died", "silent"]
    silent_seconds: float
    here: bool = False

    def __str__(self) -> str:
        file, run = self.claim.file, f"run {self.claim.run_id}"
        if file is not None:
            run = f"{run} ({file.verb})"
        if self.state == "died":
            return f"{run} died on this host; the next run that writes records it and goes on"
        if self.state == "silent":
            where = f" on host {file.host}" if file is not None else ""
            what = "hangs" if self.here else "may have died"
            return f"{run}{where} {what}: silent for {round(self.silent_seconds / 60)} min"
        return str(self.claim)


def holder(fs: AbstractFileSystem, folder: str, now: datetime, me: Process | None = None) -> Holder | None:
    """Who holds the lake whose `_claims` are ``folder``, as seen by ``me`` (this process); None when nobody does.

    The newest claim that has worked decides: it has marked those before it. ``now`` is this machine's clock and the
    age of the file the storage's, so a difference between the two counts as silence. Raises as ``ClaimFolder`` does.
    """
    claims = ClaimFolder(fs, str(fs._strip_protocol(folder)))
    for run_id in reversed(claims.ids()):
        snapshot = claims.read(run_id)
        if snapshot is None or (snapshot.file is not None and snapshot.file.withdrawn):
            continue
        return None if snapshot.over else _holder(snapshot, now, me or this_process())
    return None


def _holder(snapshot: ClaimSnapshot, now: datetime, me: Process) -> Holder:
    silent = abs(now - snapshot.modified)
    file = snapshot.file
    if file is not None and is_gone(file.process, me):
        return Holder(snapshot, "died", silent.total_seconds())
    here = file is not None and file.process.shares_pids_with(me)
    return Holder(snapshot, "running" if silent <= SILENT else "silent", silent.total_seconds(), here)
