"""The step of the benchmark that measures the output `columns`."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from bench.lakes import Grown, command, texts
from bench.processes import Server, run_process
from bench.results import Results, count

# Above, every tag takes longer than it is worth.
MOST_FOR_ALL = 100_000


def measure_columns(results: Results, server: Server, folder: Path, grown: Grown, windows: int) -> None:
    """A first fill, then windows of 1 000 in a warm JVM (the first, which compiles, left out), then nothing new."""
    size = grown.entries
    lake = grown.copied(folder / f"tags-{size}" / "lake")
    server.show(size)
    arguments = ["--base-url", server.base_url, "--root", str(lake.root), "--start", str(lake.start)]
    counts = ["--entries", str(size), "--windows", str(windows)]
    ended = run_process(["-m", "bench.tags", *arguments, *counts], folder / "work", limit_seconds=3600)
    filled, *warm = ended.objects
    results.add(
        f"backfill/{size}", f"columns: every row of {count(size)} instances, 51 tags", filled["seconds"],
        filled["headers"], pythonBytes=ended.python_bytes, jvmBytes=ended.jvm_bytes,
    )  # fmt: skip
    results.add(
        f"metadata/{size}", f"limit: reading the column metadata of {count(size)} entries", filled["metadataSeconds"],
        size,
    )  # fmt: skip
    for key, name, what in (
        ("tags", "seconds", "columns: window of 1 000, three tag tables, warm"),
        ("tagsync", "syncSeconds", "its sync, warm"),
        ("tagmerge", "mergeSeconds", "limit: one MERGE of the same rows, warm"),
    ):
        read = {"bytesRead": int(_median(warm, "bytesRead"))} if key == "tags" else {}
        results.add(f"{key}/{size}", f"{what}, on {count(size)} instances", _median(warm, name), 1_000, **read)
    ended = run_process(command("columns", "update", given=texts(server.base_url, lake.root)), folder / "work")
    results.add(f"tagsnone/{size}", "columns: nothing new", ended.seconds)
    if size <= MOST_FOR_ALL:
        _measure_all(results, texts(server.base_url, lake.root), folder, size)


def _measure_all(results: Results, given: list[str], folder: Path, size: int) -> None:
    """Every row with the set `imaging`, and then with every tag that the headers have, each in a process of its own."""
    work = folder / "work"
    usual = run_process(command("columns", "update", "--full", given=given), work)
    results.add(f"imaging/{size}", "columns: every row, the set imaging, a new process", usual.seconds, size)
    run_process(command("columns", "add", "--all", "--identifying", given=given), work)
    listed = run_process(command("columns", "list", "--json", given=given), work)
    ended = run_process(command("columns", "backfill", given=given), work, limit_seconds=3600)
    what = f"columns: the same with every tag of the headers, {len(listed.objects)} columns"
    results.add(f"all/{size}", what, ended.seconds, size, pythonBytes=ended.python_bytes, jvmBytes=ended.jvm_bytes)


def _median(windows: list[dict[str, Any]], name: str) -> float:
    return float(median(one[name] for one in windows[1:] or windows))
