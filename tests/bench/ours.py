"""The steps of the benchmark that measure dicom-etl, and its limits on the same feed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from bench.feed import Feed
from bench.lakes import (
    Grown,
    command,
    maintained,
    merge_figures,
    rows_by_log,
    sync_into_empty,
    texts,
    versions,
)
from bench.limits import CONNECTIONS
from bench.processes import Ended, Server, StepFailed, run_process
from bench.results import Results, count

T = TypeVar("T")
_STEPS = ("start", "fetch", "land", "merge", "rollup")
KINDS_OF_CHANGE = ("updates", "deletes", "scattered")
_NAMES = {
    "create": "mostly new studies",
    "updates": "updates of whole studies",
    "deletes": "mostly deletes",
    "scattered": "updates all over the archive",
}


def step_seconds(runs: list[dict[str, Any]]) -> dict[str, float]:
    """The seconds that the ledger gives for each step, added up over the runs."""
    return {name: sum(float(run[f"{name}Seconds"]) for run in runs) for name in _STEPS}


def costs(ended: Ended, counters: dict[str, Any]) -> dict[str, Any]:
    """What a sync took beside its time: steps, memory, requests."""
    return {
        **step_seconds(ended.objects),
        "pythonBytes": ended.python_bytes,
        "jvmBytes": ended.jvm_bytes,
        "requests": sum(counters["requests"].values()),
        "pages": counters["requests"].get("/v2/changefeed", 0),
        "largestOffset": counters["largestOffset"],
    }


def measure_download(results: Results, server: Server, folder: Path, size: int) -> None:
    server.show(size)
    arguments = ["-m", "bench.limits", "download", "--base-url", server.base_url, "--entries", str(size)]
    ended = run_process(arguments, folder / "work")
    found = ended.objects[-1]
    what = f"limit: download only, {count(size)} entries, {CONNECTIONS} connections"
    results.add(
        f"download/{size}", what, ended.seconds, size,
        inside=found["insideSeconds"], bytes=found["bytes"],
    )  # fmt: skip


def measure_landing(results: Results, server: Server, folder: Path, size: int, processes: int) -> None:
    server.show(size)
    root = folder / f"landing-{size}-{processes}"
    arguments = ["--base-url", server.base_url, "--root", str(root), "--entries", str(size)]
    ended = run_process(["-m", "bench.limits", "landing", *arguments, "--processes", str(processes)], folder / "work")
    found = ended.objects[-1]
    if found["entries"] != size:
        raise StepFailed(f"{found['entries']} entries were landed, not {size}")
    pages = server.counters()["requests"]["/v2/changefeed"]
    of = "1 process" if processes == 1 else f"{processes} processes"
    results.add(
        f"landing{processes}/{size}", f"limit: landing alone, {count(size)} entries, {of}", ended.seconds, size,
        inside=found["insideSeconds"], slices=found["slices"], pages=pages, pythonBytes=ended.python_bytes,
    )  # fmt: skip
    shutil.rmtree(root)


def measure_sync(results: Results, server: Server, folder: Path, size: int, *, deletion_vectors: bool = False) -> Grown:
    """A lake of so many entries, filled by one cold sync, then maintained."""
    suffix = "-dv" if deletion_vectors else ""
    root = folder / f"grown-{size}{suffix}" / "lake"
    more = ["lake.deletion_vectors=true"] if deletion_vectors else []
    grown = sync_into_empty(server, root, size, more)
    runs = grown.sync.objects
    read = sum(int(run["entriesRead"]) for run in runs)
    if not runs or rows_by_log(root)["instance"] != size:
        raise StepFailed(f"{rows_by_log(root)['instance']} instances are in the table, not {size}")
    dv = ", deletion vectors" if deletion_vectors else ""
    what = f"sync into empty tables{dv}, {count(read)} entries, cold"
    if read < size:
        what += f" (the other rows of {count(size)} were written directly)"
    results.add(f"sync{suffix}/{size}", what, grown.sync.seconds, read, **costs(grown.sync, grown.counters))
    ended = maintained(grown, server.base_url)
    results.add(f"maintain{suffix}/{size}", f"maintain{dv}, after the first {count(size)} entries", ended.seconds)
    return grown


def measure_headers(results: Results, server: Server, folder: Path, kilobytes: int) -> None:
    """A sync of 3 GB of metadata, with headers of that size on average: its memory."""
    entries = 3_000_000 // kilobytes
    root = folder / f"headers-{kilobytes}" / "lake"
    server.show(entries, header_bytes=kilobytes * 1000)
    ended = run_process(command("sync", "--init", "--json", given=texts(server.base_url, root)), folder / "work")
    what = f"sync into empty tables, {count(entries)} entries with headers of {kilobytes} KB, cold"
    results.add(f"headers/{kilobytes}", what, ended.seconds, entries, **costs(ended, server.counters()))
    shutil.rmtree(root.parent)


def measure_cold_windows(results: Results, server: Server, folder: Path, grown: Grown, repeats: int) -> None:
    """Hourly windows of 1 000, each a cold process; the median, and what its MERGEs did to files."""
    lake = grown.copied(folder / f"cold-{grown.entries}" / "lake")
    found = []
    for number in range(repeats):
        feed = Feed(grown.entries, ["create"] * (number + 1))
        server.show(grown.entries, feed.windows)
        before = versions(lake.root)
        given = texts(server.base_url, lake.root, lake.start)
        ended = run_process(command("sync", "--json", given=given), folder / "work")
        if [run["entriesRead"] for run in ended.objects] != [len(feed.window(number))]:
            raise StepFailed("the window was not read as one run")
        figures = merge_figures(lake.root, feed.studies(feed.window(number)), before)
        found.append((ended.seconds, {**costs(ended, server.counters()), **figures}))
    found.sort(key=lambda one: one[0])
    seconds, details = found[len(found) // 2]
    results.add(
        f"cold/{grown.entries}", f"hourly window of 1 000 on {count(grown.entries)} instances, cold process",
        seconds, 1_000, **details, runs=len(found),
    )  # fmt: skip


def measure_empty_window(results: Results, server: Server, folder: Path, grown: Grown) -> None:
    lake = grown.copied(folder / f"empty-{grown.entries}" / "lake")
    server.show(grown.entries, ["empty"])
    given = texts(server.base_url, lake.root, lake.start)
    ended = run_process(command("sync", "--json", given=given), folder / "work")
    if [run["entriesRead"] for run in ended.objects] != [0]:
        raise StepFailed("the window was not empty")
    what = f"empty hourly window on {count(grown.entries)} instances, cold process"
    results.add(f"empty/{grown.entries}", what, ended.seconds, **costs(ended, server.counters()))


def measure_warm_windows(
    results: Results,
    server: Server,
    folder: Path,
    grown: Grown,
    repeats: int,
    kinds: Sequence[str],
    *,
    suffix: str = "",
) -> None:
    """Windows in one process with one JVM, one after another; then one of each of the kinds, from the same start."""
    lakes = [grown.copied(folder / f"warm{suffix}-{grown.entries}" / kind) for kind in ("create", *kinds)]
    windows = [",".join(["create"] * repeats), *kinds]
    arguments = ["--base-url", server.base_url, "--start", str(grown.start), "--entries", str(grown.entries)]
    pairs = [f"{lake.root}={some}" for lake, some in zip(lakes, windows, strict=True)]
    ended = run_process(["-m", "bench.warm", *arguments, *pairs], folder / "work")
    lines = ended.objects
    usual = settled(lines[:repeats])
    dv = ", deletion vectors" if suffix else ""
    changes = ((kind, [line]) for kind, line in zip(windows[1:], lines[repeats:], strict=True))
    for kind, some in (("create", usual), *changes):
        line = sorted(some, key=lambda one: one["seconds"])[len(some) // 2]
        name = _NAMES[kind]
        results.add(
            f"warm{suffix}-{kind}/{grown.entries}",
            f"hourly window of 1 000 ({name}) on {count(grown.entries)} instances, warm{dv}", line["seconds"], 1_000,
            **step_seconds([line["run"]]), requests=sum(line["requests"]["requests"].values()), **line["files"],
            pythonBytes=ended.python_bytes, jvmBytes=ended.jvm_bytes,
        )  # fmt: skip


def settled(windows: Sequence[T]) -> Sequence[T]:
    """The windows after the first three, or the last three: an odd number, so that their median is one of them.

    Every tenth commit of a table writes a checkpoint, seconds that few windows have: of five, two at most.
    """
    return windows[-max(3, len(windows) - 3) :]


def measure_session(results: Results, folder: Path, grown: Grown, repeats: int) -> None:
    ended = [
        run_process(["-m", "bench.limits", "session", "--root", str(grown.root)], folder / "work")
        for _ in range(repeats)
    ]
    inside = ended[-1].objects[-1]
    what = f"limit: a Spark session that starts and reads one Delta row of {count(grown.entries)}, cold process"
    results.add("session", what, median(one.seconds for one in ended), start=inside["startSeconds"], runs=repeats)


def measure_merge(results: Results, server: Server, folder: Path, grown: Grown, windows: int) -> None:
    lake = grown.copied(folder / f"merge-{grown.entries}" / "lake")
    server.show(grown.entries, ["create"] * windows)
    arguments = ["--base-url", server.base_url, "--root", str(lake.root), "--start", str(lake.start)]
    more = ["--entries", str(grown.entries), "--windows", str(windows)]
    ended = run_process(["-m", "bench.limits", "merge", *arguments, *more], folder / "work")
    seconds = median(settled(ended.objects[-1]["mergeSeconds"]))
    what = f"limit: one warm MERGE of 1 000 rows into instance of {count(grown.entries)}"
    results.add(f"merge/{grown.entries}", what, seconds, 1_000)


def measure_latency(
    results: Results, server: Server, folder: Path, size: int, latency_ms: int, connections: int
) -> None:
    """A sync into empty tables, each answer taking its time: the fetch, as the ledger has it."""
    root = folder / f"latency-{latency_ms}-{connections}" / "lake"
    server.show(size, latency_ms=latency_ms)
    given = texts(server.base_url, root, more=[f"dicom.connections={connections}"])
    ended = run_process(command("sync", "--init", "--json", given=given), folder / "work")
    counters = server.counters()
    fetch = step_seconds(ended.objects)["fetch"]
    results.add(
        f"latency{latency_ms}-{connections}/{size}",
        f"fetch of {count(size)} entries at {latency_ms} ms a page, {connections} connections", fetch, size,
        sync=ended.seconds, requests=sum(counters["requests"].values()), mostUnderWay=counters["mostUnderWay"],
    )  # fmt: skip
    shutil.rmtree(root.parent)
