"""The lakes of the benchmark: their settings, copies, how they are grown, and what a window did to their files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable

from bench.archive import append_by_hand, archive_rows, whole_rounds
from bench.feed import START, Feed, instant
from bench.processes import Ended, Server, run_process
from dicom_etl.core.settings.load import load_settings
from dicom_etl.core.settings.model import Settings
from dicom_etl.tables.file_skipping import study_ranges
from dicom_etl.tables.schema import TABLES, statistics_columns

NAMES = ("instance", "series", "study")
ALL_NAMES = (*NAMES, "change", "run")
# Beyond this, older rows are written directly: the feed of 10^7 entries would take an hour on two cores.
MOST_BY_SYNC = 1_000_000
_BY_SYNC_WHEN_HUGE = 100_000


@dataclass(frozen=True, slots=True)
class Grown:
    """A lake that holds the feed's creates up to now.

    ``start`` is its feed.start, ``sync`` the process that filled it, ``counters`` what that asked the service for.
    """

    root: Path
    entries: int
    start: int
    sync: Ended
    counters: dict[str, Any]

    def copied(self, root: Path) -> Grown:
        """The same lake at another place; data files are never changed, so that links will do."""
        shutil.copytree(self.root, root, copy_function=_link_data)
        return Grown(root, self.entries, self.start, self.sync, self.counters)


def _link_data(source: str, target: str) -> None:
    if source.endswith(".parquet") and "_delta_log" not in source:
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def texts(base_url: str, root: Path, start: int = START, more: Sequence[str] = ()) -> list[str]:
    """The settings of a lake, as texts of --set."""
    return [f"dicom.base_url={base_url}", f"lake.root={root}", f"feed.start={instant(start)}", *more]


def settings(base_url: str, root: Path, start: int = START, more: Sequence[str] = ()) -> Settings:
    """The same, checked."""
    return load_settings(None, texts(base_url, root, start, more), {}, Path("/nonexistent"))


def command(verb: str, *words: str, given: Sequence[str]) -> list[str]:
    """`dicom-etl VERB …` as arguments of Python."""
    return ["-m", "dicom_etl", verb, *words, *(part for text in given for part in ("--set", text))]


def sync_into_empty(server: Server, root: Path, entries: int, more: Sequence[str] = ()) -> Grown:
    """A new lake, filled by one cold `dicom-etl sync`, and what that took; beyond 10^6 its older rows by hand."""
    by_sync = entries if entries <= MOST_BY_SYNC else _BY_SYNC_WHEN_HUGE
    older = whole_rounds(entries - by_sync)
    start = Feed(entries).event(older).ticks if older else START
    server.show(entries)
    given = texts(server.base_url, root, start, more)
    ended = run_process(command("sync", "--init", "--json", given=given), root.parent / "work", limit_seconds=3600)
    counters = server.counters()
    if older:
        for table in TABLES:
            parts = (_shaped(part, root / table.name) for part in archive_rows(table.name, older))
            append_by_hand(root / table.name, parts, statistics_columns(table, partitioned=False))
    return Grown(root, entries, start, ended, counters)


def _shaped(part: pa.Table, table: Path) -> pa.Table:
    """The columns in the table's own order; a new column of ours that the benchmark does not know is missing."""
    names = [field.name for field in DeltaTable(table).schema().fields]
    return part.select([name for name in names if name in part.column_names])


def maintained(grown: Grown, base_url: str) -> Ended:
    """What `dicom-etl maintain` took: clustered, compacted."""
    given = texts(base_url, grown.root, grown.start)
    return run_process(command("maintain", given=given), grown.root.parent / "work", limit_seconds=3600)


def merge_figures(root: Path, studies: Collection[str], before: dict[str, int]) -> dict[str, Any]:
    """What the MERGEs since ``before`` (versions) did to files, and what they had to look into.

    Written: files and bytes, from the history's operationMetrics. Read: the files that the versions before held and
    whose bounds meet the MERGE's ranges of study UIDs.
    """
    ranges = study_ranges(studies)
    figures: dict[str, Any] = {"filesRead": 0, "bytesRead": 0, "filesAdded": 0, "filesRemoved": 0, "bytesAdded": 0}
    for name in NAMES:
        for low, high, size in _files(root / name, before[name]):
            if any(low <= last and first <= high for first, last in ranges):
                figures["filesRead"] += 1
                figures["bytesRead"] += size
        table = DeltaTable(root / name)
        for commit in table.history(table.version() - before[name]):
            metrics = commit.get("operationMetrics") or {}
            figures["filesAdded"] += int(metrics.get("numTargetFilesAdded", 0))
            figures["filesRemoved"] += int(metrics.get("numTargetFilesRemoved", 0))
            figures["bytesAdded"] += int(metrics.get("numTargetBytesAdded", 0))
    return figures


def _files(table: Path, version: int) -> list[tuple[str, str, int]]:
    actions = pa.table(DeltaTable(table, version=version).get_add_actions(flatten=True))
    columns = ("min.studyInstanceUid", "max.studyInstanceUid", "size_bytes")
    if any(name not in actions.column_names for name in columns):
        return [("", "\U0010ffff", size) for size in actions["size_bytes"].to_pylist()]
    rows = zip(*(actions[name].to_pylist() for name in columns), strict=True)
    return [(low or "", high or "\U0010ffff", size) for low, high, size in rows]


def versions(root: Path) -> dict[str, int]:
    return {name: DeltaTable(root / name).version() for name in ALL_NAMES}


def file_counts(root: Path) -> dict[str, int]:
    """How many files each table of the lake has now."""
    return {name: len(DeltaTable(root / name).file_uris()) for name in ALL_NAMES}


def compacted_figures(root: Path, before: dict[str, int]) -> dict[str, Any]:
    """What `maintain` wrote anew since ``before`` (versions): files and bytes, all tables together."""
    figures: dict[str, Any] = {"filesRemoved": 0, "filesAdded": 0, "bytesRewritten": 0}
    for name in ALL_NAMES:
        table = DeltaTable(root / name)
        for commit in table.history(table.version() - before[name]) if table.version() > before[name] else ():
            metrics = commit.get("operationMetrics") or {}
            if commit["operation"] == "OPTIMIZE":
                figures["filesRemoved"] += int(metrics["numRemovedFiles"])
                figures["filesAdded"] += int(metrics["numAddedFiles"])
                figures["bytesRewritten"] += int(metrics["numRemovedBytes"])
    return figures


def rows_by_log(root: Path) -> dict[str, int]:
    """How many rows each of the three tables holds, by its log."""
    counts = {}
    for name in NAMES:
        actions = pa.table(DeltaTable(root / name).get_add_actions(flatten=True))
        counts[name] = sum(actions["num_records"].to_pylist())
    return counts
